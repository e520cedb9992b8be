/** SD3's transformers against golden/diffusion: every block, so that the first wrong one is named. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { mmditBlocks, mmditPositions, mmditSinusoids } from '../../src/diffusion/mmdit.js';
import { mmditModel, type Mmdit } from '../../src/diffusion/mmdit_model.js';
import { openModel, selectPart, type MmditPart } from '../../src/formats/index.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Weights } from '../../src/runtime/weights.js';
import { openModelDevice } from '../support/devices.js';
import { golden, readGolden } from '../support/golden.js';
import { available, blockValues, shape, values, type Tensors } from '../support/golden_blocks.js';
import { relativeL2 } from '../support/reference.js';

/** The reference's own float32 run differs by 4e-6; a GELU of the wrong kind would cost 5.8e-5. */
const TOLERANCE = 1e-5;

/** Runs one case; every block as host values, under the golden names. */
async function run(
  ops: Ops,
  model: Mmdit,
  io: Tensors,
  at: string,
  skipLayers: readonly number[] = [],
): Promise<Map<string, Float32Array>> {
  const { device } = ops;
  const { patch_size: patch, pos_embed_max_size: side } = model.config;
  const [batch, channels, height, width] = shape(io, `${at}.in.x`) as [number, number, number, number];
  const [, textTokens, contextWidth] = shape(io, `${at}.in.context`) as [number, number, number];
  using image = device.from(values(io, `${at}.in.x`), [batch, channels, height, width]);
  using x = ops.patchify(image, { batch, channels, height, width, patch });
  using context = device.from(values(io, `${at}.in.context`), [batch * textTokens, contextWidth]);
  using y = device.from(values(io, `${at}.in.y`), shape(io, `${at}.in.y`));
  using time = device.from(mmditSinusoids([...values(io, `${at}.in.t`)]), [batch, 256]);
  const rows = mmditPositions(side, batch, height / patch, width / patch);
  using positions = device.from(rows, [rows.length]);
  const blocks = mmditBlocks(ops, model, { batch, x, positions, context, y, time, skipLayers });
  return await blockValues(
    blocks,
    (stage) => [
      [`mid.${stage.name}.x`, stage.x.read()],
      [`mid.${stage.name}.context`, stage.context.read()],
    ],
    async (out) => {
      using tokens = out;
      using picture = ops.unpatchify(tokens, { batch, channels, height, width, patch, order: 'ph,pw,c' });
      return await picture.read();
    },
  );
}

const NAMES = ['sd3_tiny', 'sd35_large_tiny', 'sd35_medium_tiny'] as const;

describe.each(available(NAMES))('%s', (name) => {
  let device: Device;
  let weights: Weights;
  let model: Mmdit;
  let io: Tensors;
  beforeAll(async () => {
    device = openModelDevice();
    const file = openModel(golden(`diffusion/${name}/${name}.weights.safetensors`));
    const part = selectPart(file, { slot: 'transformer' }) as MmditPart;
    weights = new Weights(device, part.tensors, name);
    model = await device.run(async () => mmditModel(weights, part.config));
    io = readGolden(`diffusion/${name}/${name}.io.safetensors`);
  });
  afterAll(() => {
    weights[Symbol.dispose]();
    device.close();
  });

  test.each(['a', 'b'])('case %s', async (at) => {
    const stages = await device.run(() => run(new Ops(device, 'fp32'), model, io, at));
    const known = [...stages.keys()].filter((stage) => io.has(`${at}.${stage}`));
    expect(known).toContain('out');
    if (at === 'a') expect(known.length).toBe(4); // the last block has no context
    for (const stage of known)
      expect(relativeL2(stages.get(stage)!, values(io, `${at}.${stage}`)), `${at}.${stage}`).toBeLessThan(
        TOLERANCE,
      );
  });

  test('a block left out', async () => {
    const stages = await device.run(() => run(new Ops(device, 'fp32'), model, io, 'a', [0]));
    expect(relativeL2(stages.get('out')!, values(io, 'a.out.skip_layer_0'))).toBeLessThan(TOLERANCE);
  });

  test('a picture larger than the table of positions is refused', () => {
    expect(() => mmditPositions(model.config.pos_embed_max_size, 1, 12, 13)).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
  });
});
