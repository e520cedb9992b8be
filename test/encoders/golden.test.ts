/** Every case of golden/encoders within 2e-5 in fp32; every container and naming variant equals its twin. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encodeTokens } from '../../src/encoders/encode_tokens.js';
import { clipNetwork, t5Network, type TextNetwork } from '../../src/encoders/text_network.js';
import { openModel, selectPart, type Slot } from '../../src/formats/index.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Weights } from '../../src/runtime/weights.js';
import { openModelDevice } from '../support/devices.js';
import { golden, goldenPath, readGolden, type GoldenTensor } from '../support/golden.js';
import { maxAbsDifference, relativeL2 } from '../support/reference.js';

const TOLERANCE = 2e-5;
let device: Device;
beforeAll(() => (device = openModelDevice()));
afterAll(() => device.close());

type Use<T> = (network: TextNetwork) => Promise<T>;

async function withNetwork<T>(
  file: string,
  slot: Slot | undefined,
  use: Use<T>,
  config?: Record<string, unknown>,
): Promise<T> {
  const part = selectPart(openModel(golden(`encoders/${file}`)), {
    ...(slot && { slot }),
    ...(config && { config }),
  });
  using weights = new Weights(device, part.tensors, file);
  if (part.family === 'clip') return await use(clipNetwork(weights, part));
  if (part.family === 't5') return await use(t5Network(weights, part));
  throw new Error(`${file} is no text encoder`);
}

const int32 = (tensor: GoldenTensor) => tensor.data as Int32Array;
const float32 = (tensor: GoldenTensor) => tensor.data as Float32Array;

/** Compares every tensor of `expected` under `prefix` that an encoder can give. */
async function check(
  network: TextNetwork,
  expected: Map<string, GoldenTensor>,
  prefix: string,
  options: { ids?: string; mask?: string; output?: string; tolerance?: number } = {},
): Promise<number> {
  const ids = expected.get(prefix + (options.ids ?? 'input_ids'))!;
  const mask = options.mask && int32(expected.get(prefix + options.mask)!);
  const layers = Array.from({ length: network.depth + 1 }, (_, i) => i);
  const got = await device.run(() =>
    encodeTokens(
      new Ops(device, 'fp32'),
      network,
      { ids: int32(ids), batch: ids.shape[0]!, ...(mask && { mask }) },
      { raw: layers, normed: layers },
    ),
  );
  const outputs = new Map<string, Float32Array | undefined>([
    [options.output ?? 'last_hidden_state', got.lastHiddenState],
    ['pooled', got.pooled],
    ['text_embeds', got.projected],
    ['penultimate_ln', got.normed.get(network.depth - 1)],
    ...layers.map((i) => [`hidden_states.${i}`, got.raw.get(i)] as const),
  ]);
  let compared = 0;
  for (const [name, values] of outputs) {
    const reference = expected.get(prefix + name);
    if (!reference || !values) continue;
    const error = maxAbsDifference(values, float32(reference));
    expect(error, `${prefix}${name}: max abs error ${error}`).toBeLessThanOrEqual(
      options.tolerance ?? TOLERANCE,
    );
    compared++;
  }
  expect(compared, 'tensors compared').toBeGreaterThan(0);
  return compared;
}

describe('CLIP', () => {
  test.each([
    ['clip_l_tiny', 7],
    ['clip_g_tiny', 8],
    ['long_clip_tiny', 4],
  ])('%s: every layer', async (folder, tensors) => {
    const expected = readGolden(`encoders/${folder}/expected.safetensors`);
    const compared = await withNetwork(`${folder}/model.safetensors`, undefined, (n) =>
      check(n, expected, ''),
    );
    expect(compared).toBe(tensors);
  });

  test('Long-CLIP in its original naming, with two position tables', async () => {
    const expected = readGolden('encoders/long_clip_tiny/expected.safetensors');
    await withNetwork('long_clip_tiny/openai_naming_res.safetensors', undefined, (n) =>
      check(n, expected, ''),
    );
  });

  type Dims = Record<string, { Hd: number }>;
  const NAMINGS: [string, Slot][] = [
    ['clip_l_hf', 'clip_l'],
    ['clip_l_openai', 'clip_l'],
    ['sd1_checkpoint', 'clip_l'],
    ['sdxl_checkpoint', 'clip_l'],
    ['sd3_checkpoint', 'clip_l'],
    ['clip_g_hf', 'clip_g'],
    ['clip_g_openclip', 'clip_g'],
    ['sd2_style_checkpoint', 'clip_g'],
    ['sdxl_checkpoint', 'clip_g'],
    ['sd3_checkpoint', 'clip_g'],
  ];
  test.each(NAMINGS)('%s as %s', async (file, slot) => {
    const expected = readGolden('encoders/clip_naming/expected.safetensors');
    const dims = JSON.parse(readFileSync(golden('encoders/clip_naming/config.json'), 'utf8')) as Dims;
    const config = { num_attention_heads: dims[slot]!.Hd }; // the slot tells the activation
    await withNetwork(`clip_naming/${file}.safetensors`, slot, (n) => check(n, expected, `${slot}.`), config);
  });
});

describe('T5', () => {
  test.each([1, 7, 77, 256, 512])('t5_tiny, %i tokens', async (length) => {
    const expected = readGolden('encoders/t5_tiny/expected.safetensors');
    await withNetwork('t5_tiny/model.safetensors', undefined, (n) => check(n, expected, `len${length}.`));
  });

  test('t5_tiny, a padded batch with and without mask', async () => {
    const expected = readGolden('encoders/t5_tiny/expected.safetensors');
    await withNetwork('t5_tiny/model.safetensors', undefined, async (n) => {
      await check(n, expected, 'batch.', { mask: 'attention_mask', output: 'masked.last_hidden_state' });
      await check(n, expected, 'batch.', { output: 'nomask.last_hidden_state' });
    });
  });

  test.each(['0', '1', '2'])('t5_tiny_encdec, input %s: only the encoder', async (j) => {
    const expected = readGolden('encoders/t5_tiny_encdec/expected.safetensors');
    const output = 'encoder_last_hidden_state';
    await withNetwork('t5_tiny_encdec/model.safetensors', undefined, (n) =>
      check(n, expected, `${j}.`, { output }),
    );
  });

  test.each([
    ['model.fp16.safetensors', 'fp16'],
    ['model.bf16.safetensors', 'bf16'],
    ['model.fp8_e4m3fn.safetensors', 'fp8_e4m3fn'],
    ['model.fp8_scaled_legacy.safetensors', 'fp8_scaled'],
    ['model.fp8_scaled_comfy_quant.safetensors', 'fp8_scaled'],
    ['sharded', 'fp16'],
    ['sharded/model.safetensors.index.json', 'fp16'],
    ['sharded/model-00002-of-00003.safetensors', 'fp16'],
  ])('container %s', async (file, twin) => {
    const expected = readGolden(`encoders/t5_tiny_containers/expected.${twin}.safetensors`);
    const ids = readGolden('encoders/t5_tiny/expected.safetensors');
    for (const length of [7, 77]) {
      expected.set(`len${length}.input_ids`, ids.get(`len${length}.input_ids`)!);
      await withNetwork(`t5_tiny_containers/${file}`, undefined, (n) => check(n, expected, `len${length}.`));
    }
  });

  test.each(['f32', 'f16'])('GGUF %s', async (type) => {
    const expected = readGolden(
      type === 'f32'
        ? 'encoders/t5_tiny/expected.safetensors'
        : 'encoders/t5_tiny_gguf/expected.f16.safetensors',
    );
    const ids = readGolden('encoders/t5_tiny/expected.safetensors');
    for (const length of [7, 77]) {
      expected.set(`len${length}.input_ids`, ids.get(`len${length}.input_ids`)!);
      await withNetwork(`t5_tiny_gguf/model.${type}.gguf`, undefined, (n) =>
        check(n, expected, `len${length}.`),
      );
    }
  });

  const QUANTISED = ['q8_0', 'q4_0', 'q4_k', 'q5_k', 'q6_k', 'mixed'];
  const [present, absent] = [true, false].map((there) =>
    QUANTISED.filter(
      (type) => (goldenPath(`encoders/t5_quant_gguf/model.${type}.gguf`) !== undefined) === there,
    ),
  ) as [string[], string[]];
  if (absent.length) console.log(`skipped, ../shared/golden is not here: GGUF ${absent.join(', ')}`);

  test.each(present)('GGUF %s', async (type) => {
    const expected = readGolden(`encoders/t5_quant_gguf/expected.${type}.safetensors`);
    await withNetwork(`t5_quant_gguf/model.${type}.gguf`, undefined, async (n) => {
      await check(n, expected, 'len7.');
      await check(n, expected, 'len33.');
    });
  });

  test('t5_overflow_tiny: a residual stream beyond 65504 comes out right', async () => {
    const expected = readGolden('encoders/t5_overflow_tiny/expected.safetensors');
    const ids = expected.get('input_ids') ?? [...expected].find(([key]) => key.endsWith('input_ids'))![1];
    await withNetwork('t5_overflow_tiny/model.safetensors', undefined, async (n) => {
      const got = await device.run(() =>
        encodeTokens(new Ops(device, 'fp32'), n, { ids: int32(ids), batch: ids.shape[0]! }),
      );
      const reference = [...expected].find(([key]) => key.endsWith('last_hidden_state'))![1];
      expect(relativeL2(got.lastHiddenState, float32(reference))).toBeLessThan(2e-6);
    });
  });
});
