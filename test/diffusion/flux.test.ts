/** Flux.1's transformer against golden/diffusion/flux_tiny_*: every intermediate, so that the first wrong stage is named. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fluxBlocks } from '../../src/diffusion/flux.js';
import { fluxModel, type FluxModel } from '../../src/diffusion/flux_model.js';
import { rotation } from '../../src/diffusion/rotary.js';
import { sinusoids } from '../../src/diffusion/timestep_embedding.js';
import { openModel, selectPart, type FluxPart } from '../../src/formats/index.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Weights } from '../../src/runtime/weights.js';
import { openModelDevice } from '../support/devices.js';
import { golden, goldenPath, readGolden, type GoldenTensor } from '../support/golden.js';
import { relativeL2 } from '../support/reference.js';

/** The reference's own float32 run differs by 1.3e-5; a GELU of the wrong kind would cost 1.2e-4. */
const TOLERANCE = 1e-5;

type Tensors = ReadonlyMap<string, GoldenTensor>;
const values = (tensors: Tensors, name: string): Float32Array => tensors.get(name)!.data as Float32Array;
const shape = (tensors: Tensors, name: string): readonly number[] => tensors.get(name)!.shape;

/** [tokens, 3] of the first sequence */
function ids(tensors: Tensors, name: string): number[][] {
  const [, tokens, axes] = shape(tensors, name) as [number, number, number];
  const data = values(tensors, name);
  return Array.from({ length: tokens }, (_, i) => [...data.subarray(i * axes, (i + 1) * axes)]);
}

/** Runs one case; every stage as host values, under the golden names. */
async function run(ops: Ops, model: FluxModel, io: Tensors, at: string): Promise<Map<string, Float32Array>> {
  const { device } = ops;
  const upload = (name: string) => {
    const [batch, rows, columns] = shape(io, name) as [number, number, number];
    return device.from(values(io, name), [batch * rows, columns]);
  };
  const stages = new Map<string, Promise<Float32Array>>();
  const positions = [...ids(io, `${at}.in.txt_ids`), ...ids(io, `${at}.in.img_ids`)];
  const pe = rotation(positions, model.config.axes_dim, model.config.theta);
  using img = upload(`${at}.in.img`);
  using txt = upload(`${at}.in.txt`);
  using y = device.from(values(io, `${at}.in.y`), shape(io, `${at}.in.y`));
  using table = device.from(pe, [positions.length, model.headDim]);
  const batch = shape(io, `${at}.in.img`)[0]!;
  const timesteps = [...values(io, `${at}.in.timesteps`)];
  const guidance = model.guidance_in && [...values(io, `${at}.in.guidance`)];
  const blocks = fluxBlocks(ops, model, { batch, img, txt, y, rotation: table, timesteps, guidance });
  for (;;) {
    const { done, value } = blocks.next();
    if (done) {
      using out = value;
      stages.set('out', out.read());
      break;
    }
    if (value.img) stages.set(`mid.${value.name}.img`, value.img.read());
    if (value.txt) stages.set(`mid.${value.name}.txt`, value.txt.read());
    if (value.joint) stages.set(`mid.${value.name}`, value.joint.read());
  }
  return new Map(await Promise.all([...stages].map(async ([name, read]) => [name, await read] as const)));
}

const NAMES = ['flux_tiny_dev', 'flux_tiny_schnell'] as const;
const missing = NAMES.filter((name) => !goldenPath(`diffusion/${name}`));
if (missing.length) console.log(`not tested, ../shared/golden is not here: ${missing.join(', ')}`);
if (missing.length === NAMES.length) test.skip('needs ../shared/golden', () => undefined);

describe.each(NAMES.filter((name) => !missing.includes(name)))('%s', (name) => {
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
    const stages = await device.run(() => run(new Ops(device, 'fp32'), model, io, at));
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
    const repeat = await device.run(() => run(new Ops(device, 'fp32'), model, io, 'a'));
    const once = await device.run(() => run(new Ops(device, 'fp32'), model, io, 'a'));
    expect(once.get('out')).toEqual(repeat.get('out'));
  });
});
