/** Flux.1's transformer against golden/diffusion/flux_tiny_*: every intermediate, so that the first wrong stage is named. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fluxModel, type FluxModel } from '../../src/diffusion/flux_model.js';
import { rotation } from '../../src/diffusion/rotary.js';
import { sinusoids } from '../../src/diffusion/timestep_embedding.js';
import { openModel, selectPart, type FluxPart } from '../../src/formats/index.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Weights } from '../../src/runtime/weights.js';
import { openModelDevice } from '../support/devices.js';
import { golden, readGolden } from '../support/golden.js';
import { available, values, type Tensors } from '../support/golden_blocks.js';
import { ids, runFlux } from '../support/golden_flux.js';
import { relativeL2 } from '../support/reference.js';

/** The reference's own float32 run differs by 1.3e-5; a GELU of the wrong kind would cost 1.2e-4. */
const TOLERANCE = 1e-5;

const NAMES = ['flux_tiny_dev', 'flux_tiny_schnell'] as const;
describe.each(available(NAMES))('%s', (name) => {
  let device: Device;
  let weights: Weights;
  let model: FluxModel;
  let io: Tensors;
  beforeAll(async () => {
    device = openModelDevice();
    const part = selectPart(openModel(golden(`diffusion/${name}/${name}.weights.safetensors`)), {
      slot: 'transformer',
    }) as FluxPart;
    weights = new Weights(device, part.tensors, name);
    model = await device.run(async () => fluxModel(weights, part.config));
    io = readGolden(`diffusion/${name}/${name}.io.safetensors`);
  });
  afterAll(() => {
    weights[Symbol.dispose]();
    device.close();
  });

  test('its config', () => {
    expect(model.config).toMatchObject({
      num_heads: 4,
      axes_dim: [8, 12, 12],
      depth: 2,
      depth_single_blocks: 3,
      guidance_embed: name === 'flux_tiny_dev',
    });
  });

  test('sinusoids and rotary table', () => {
    const time = sinusoids(
      [...values(io, 'a.in.timesteps')].map((t) => t * 1000),
      256,
    );
    expect(relativeL2(time, values(io, 'a.mid.time_in.sinusoid'))).toBeLessThan(1e-7);
    const positions = [...ids(io, 'a.in.txt_ids'), ...ids(io, 'a.in.img_ids')];
    const pe = rotation(positions, model.config.axes_dim, model.config.theta);
    expect(
      relativeL2(
        pe.filter((_, i) => i % 2 === 0),
        values(io, 'a.mid.pe.cos'),
      ),
    ).toBeLessThan(1e-7);
    expect(
      relativeL2(
        pe.filter((_, i) => i % 2 === 1),
        values(io, 'a.mid.pe.sin'),
      ),
    ).toBeLessThan(1e-7);
  });

  test.each(['a', 'b'])('case %s: every block and the output', async (at) => {
    const stages = await device.run(() => runFlux(new Ops(device, 'fp32'), model, io, at));
    let compared = 0;
    for (const [stage, got] of stages) {
      const expected = io.get(`${at}.${stage}`);
      if (!expected) continue;
      const error = relativeL2(got, expected.data as Float32Array);
      expect(error, `${at}.${stage}`).toBeLessThan(TOLERANCE);
      compared++;
    }
    expect(compared).toBe(at === 'a' ? 2 * 2 + 3 + 1 : 1);
  });

  test('the same bits on repeat, and at any number of threads', async () => {
    const repeat = await device.run(() => runFlux(new Ops(device, 'fp32'), model, io, 'a'));
    const once = await device.run(() => runFlux(new Ops(device, 'fp32'), model, io, 'a'));
    expect(once.get('out')).toEqual(repeat.get('out'));
  });
});
