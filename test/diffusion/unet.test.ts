/** The UNets of SD1 and SDXL against golden/diffusion: every block, so that the first wrong one is named. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { sinusoids } from '../../src/diffusion/timestep_embedding.js';
import { unetBlocks } from '../../src/diffusion/unet.js';
import { unetModel, type Unet } from '../../src/diffusion/unet_model.js';
import { openModel, selectPart, type UnetPart } from '../../src/formats/index.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Weights } from '../../src/runtime/weights.js';
import { openModelDevice } from '../support/devices.js';
import { golden, readGolden } from '../support/golden.js';
import { available, blockValues, shape, values, type Tensors } from '../support/golden_blocks.js';
import { relativeL2 } from '../support/reference.js';

/** The reference's own float32 run differs by 2e-6; a GELU of the wrong kind would cost 1.9e-4. */
const TOLERANCE = 1e-5;

/** [batch, channels, height, width] from rows of pixels */
function nchw(pixels: Float32Array, [, channels, height, width]: readonly number[]): Float32Array {
  const area = height! * width!;
  return pixels.map((_, i) => {
    const [b, c, at] = [Math.floor(i / (channels! * area)), Math.floor(i / area) % channels!, i % area];
    return pixels[(b * area + at) * channels! + c]!;
  });
}

/** Runs one case; every block as host values, under the golden names. */
async function run(ops: Ops, unet: Unet, io: Tensors, at: string): Promise<Map<string, Float32Array>> {
  const { device } = ops;
  const [batch, channels, height, width] = shape(io, `${at}.in.x`) as [number, number, number, number];
  const [, tokens, context] = shape(io, `${at}.in.context`) as [number, number, number];
  using image = device.from(values(io, `${at}.in.x`), [batch, channels, height, width]);
  using x = ops.patchify(image, { batch, channels, height, width, patch: 1 });
  using text = device.from(values(io, `${at}.in.context`), [batch * tokens, context]);
  const timesteps = [...values(io, `${at}.in.timesteps`)];
  const waves = sinusoids(timesteps, unet.config.model_channels);
  using time = device.from(waves, [batch, unet.config.model_channels]);
  using y = io.has(`${at}.in.y`) ? device.from(values(io, `${at}.in.y`), shape(io, `${at}.in.y`)) : undefined;
  const blocks = unetBlocks(ops, unet, { x, size: { batch, height, width }, time, context: text, y });
  return await blockValues(
    blocks,
    ({ name, image }) => [[`mid.${name}`, image.read()]],
    async (out) => {
      using result = out;
      return await result.read();
    },
  );
}

const NAMES = ['sd1_unet_tiny', 'sdxl_unet_tiny'] as const;

describe.each(available(NAMES))('%s', (name) => {
  let device: Device;
  let weights: Weights;
  let unet: Unet;
  let io: Tensors;
  beforeAll(async () => {
    device = openModelDevice();
    const model = openModel(golden(`diffusion/${name}/${name}.weights.safetensors`));
    const part = selectPart(model, { slot: 'unet' }) as UnetPart;
    weights = new Weights(device, part.tensors, name);
    unet = await device.run(async () => unetModel(weights, part.config));
    io = readGolden(`diffusion/${name}/${name}.io.safetensors`);
  });
  afterAll(() => {
    weights[Symbol.dispose]();
    device.close();
  });

  test.each(['a', 'b'])('case %s', async (at) => {
    const stages = await device.run(() => run(new Ops(device, 'fp32'), unet, io, at));
    const known = [...stages.keys()].filter((stage) => io.has(`${at}.${stage}`));
    expect(known).toContain('out');
    if (at === 'a') expect(known.length).toBe(stages.size);
    for (const stage of known) {
      const expected = values(io, `${at}.${stage}`);
      const got = nchw(stages.get(stage)!, shape(io, `${at}.${stage}`));
      expect(relativeL2(got, expected), `${at}.${stage}`).toBeLessThan(TOLERANCE);
    }
  });

  test('inputs that do not fit are refused', () => {
    const ops = new Ops(device, 'fp32');
    using x = device.from(new Float32Array(4 * 9), [9, 4]);
    using time = device.from(new Float32Array(32), [1, 32]);
    const size = { batch: 1, height: 3, width: 3 };
    const blocks = unetBlocks(ops, unet, { x, size, time, context: x });
    expect(() => blocks.next()).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(/sides that are multiples of \d, context \[9, 4\]/) as string,
      }),
    );
  });
});
