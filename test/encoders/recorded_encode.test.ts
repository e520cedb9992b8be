/** Recorded layers give the same bits as op by op, for other tokens of the same shape too; on GPUs: test/cuda/replay.test.ts. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encodeTokens } from '../../src/encoders/encode_tokens.js';
import { RecordedEncode } from '../../src/encoders/recorded_encode.js';
import {
  clipNetwork,
  t5Network,
  type TextNetwork,
  type TokenBatch,
} from '../../src/encoders/text_network.js';
import { openModel, selectPart } from '../../src/formats/index.js';
import { EncodeRunner } from '../../src/pipeline/encode_runner.js';
import { TextEncoder } from '../../src/pipeline/text_encoder.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Weights } from '../../src/runtime/weights.js';
import { golden } from '../support/golden.js';

let device: Device;
let ops: Ops;
beforeAll(() => {
  device = Device.open('cpu');
  ops = new Ops(device, 'fp32');
});
afterAll(() => device.close());

const tokens = (batch: number, length: number, step: number): TokenBatch => ({
  batch,
  ids: Int32Array.from({ length: batch * length }, (_, i) => 1 + ((i * step) % 90)),
});

const FILES = { t5: 'encoders/t5_tiny/model.safetensors', clip: 'encoders/clip_l_tiny/model.safetensors' };
const wanted = { raw: [0, 1], normed: [1] };

describe.each(['t5', 'clip'] as const)('%s', (family) => {
  let weights: Weights;
  let network: TextNetwork;
  beforeAll(async () => {
    const part = selectPart(openModel(golden(FILES[family])));
    weights = new Weights(device, part.tensors, family);
    network = await device.run(async () => {
      if (part.family === 'clip') return clipNetwork(weights, part);
      if (part.family === 't5') return t5Network(weights, part);
      throw new Error(part.description);
    });
  });
  afterAll(() => weights[Symbol.dispose]());

  test('the same bits, replay after replay', async () => {
    using recorded = new RecordedEncode(ops, network, tokens(2, 7, 1), wanted);
    let last: unknown;
    for (const step of [1, 3, 7, 1]) {
      const batch = tokens(2, 7, step);
      const replayed = await device.run(() => recorded.encode(batch));
      expect(replayed, `step ${step}`).toEqual(
        await device.run(() => encodeTokens(ops, network, batch, wanted)),
      );
      expect(replayed).not.toEqual(last);
      last = replayed;
    }
  });

  test('a shape is recorded when it comes again, whatever came between; the oldest give way', async () => {
    using runner = new EncodeRunner(ops, network, 'always');
    const reached: number[] = [];
    for (const length of [5, 6, 5, 7, 8, 9, 10, 5, 5, 6])
      for (const step of [1, 5]) {
        const batch = tokens(1, length, step);
        const onLayer = (layer: number) => reached.push(layer);
        const got = await device.run(() => runner.encode(batch, { ...wanted, onLayer }));
        expect(got, `${length} tokens`).toEqual(
          await device.run(() => encodeTokens(ops, network, batch, wanted)),
        );
        expect(reached.at(-1)).toBe(network.depth);
      }
    expect(reached.length).toBeLessThan(20 * (network.depth + 1)); // replays tell of the last layer only
  });
});

test('T5 with a mask, and one without, are different shapes', async () => {
  const options = { device, input: 'ids', precision: 'fp32', replay: 'always' } as const;
  await using encoder = await TextEncoder.load(golden(FILES.t5), options);
  await using plain = await TextEncoder.load(golden(FILES.t5), { ...options, replay: 'never' });
  const mask = Int32Array.from({ length: 14 }, (_, i) => (i % 7 < 5 ? 1 : 0));
  for (let i = 0; i < 3; i++)
    for (const batch of [tokens(2, 7, i + 1), { ...tokens(2, 7, i + 2), mask }])
      expect(await encoder.encodeTokens(batch)).toEqual(await plain.encodeTokens(batch));
});
