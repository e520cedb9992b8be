/** Files that are well-formed but wrong: each is refused with what is wrong and where, or encodes rightly. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device, TextEncoder, type ErrorCode, type LoadOptions, type Slot } from '../../src/index.js';
import { golden } from '../support/golden.js';
import { outcomeOf, rewritten, useScratch, type Tensors } from './scratch.js';

const kT5 = 'encoders/t5_tiny_containers/model.fp16.safetensors';
const kFp8 = 'encoders/t5_tiny_containers/model.fp8_scaled_legacy.safetensors';
const kClip = 'encoders/clip_l_tiny/model.safetensors';
const kClipConfig = { num_attention_heads: 4, hidden_act: 'quick_gelu' };
const kBlock = 'encoder.block.1.layer.1.DenseReluDense';

const kBias = 'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight';

const scratch = useScratch();
let device: Device;
beforeAll(() => {
  device = Device.open('cpu', { threads: 1 });
});
afterAll(() => device.close());

/** Loads and encodes three tokens in both precisions. */
const encodes = (path: string, options: LoadOptions = {}, ids = [1, 2, 3]) =>
  outcomeOf(async () => {
    for (const precision of ['fp32', 'int8'] as const) {
      await using encoder = await TextEncoder.load(path, { ...options, device, precision });
      const { lastHiddenState } = await encoder.encodeTokens({ ids: Int32Array.from(ids), batch: 1 });
      expect(lastHiddenState.every((value) => Number.isFinite(value))).toBe(true);
    }
  });

describe('tensors', () => {
  test.each<[string, string, (tensors: Tensors) => unknown, ErrorCode, string[]]>([
    [
      'one missing',
      kT5,
      (t) => t.delete(`${kBlock}.wo.weight`),
      'ERR_MODEL_TENSORS',
      [`${kBlock}.wo.weight`],
    ],
    ['a block missing', kT5, (t) => removeAll(t, /block\.1\./), 'ERR_MODEL_TENSORS', ['missing', 'block.1.']],
    [
      'one that nothing uses',
      kT5,
      (t) => t.set('encoder.block.0.extra.weight', t.get('shared.weight')!),
      'ERR_MODEL_TENSORS',
      ['nothing uses', 'encoder.block.0.extra.weight'],
    ],
    [
      'a transposed matrix',
      kT5,
      (t) => reshape(t, `${kBlock}.wo.weight`, [160, 64]),
      'ERR_MODEL_TENSORS',
      [`${kBlock}.wo.weight is [160, 64]: expected [64, 160]`],
    ],
    [
      'a vector for a matrix',
      kT5,
      (t) => reshape(t, `${kBlock}.wo.weight`, [64 * 160]),
      'ERR_MODEL_TENSORS',
      ['is [10240]'],
    ],
    [
      'six dimensions',
      kT5,
      (t) => reshape(t, `${kBlock}.wo.weight`, [1, 1, 1, 1, 64, 160]),
      'ERR_MODEL_TENSORS',
      ['1, 1'],
    ],
    [
      'integers for weights',
      kClip,
      (t) => retype(t, 'text_model.encoder.layers.0.mlp.fc1.weight', 'I32'),
      'ERR_MODEL_TENSORS',
      ['fc1.weight is I32'],
    ],
    [
      'an FP8 scale without its weight',
      kFp8,
      (t) => t.delete(`${kBlock}.wo.weight`),
      'ERR_MODEL_TENSORS',
      [`${kBlock}.wo.weight`, `${kBlock}.wo.scale_weight`],
    ],
    [
      'an FP8 weight without its scale',
      kFp8,
      (t) => t.delete(`${kBlock}.wo.scale_weight`),
      'ERR_MODEL_TENSORS',
      [`${kBlock}.wo.scale_weight`],
    ],
    [
      'a scale for a weight that is no FP8',
      kT5,
      (t) => t.set(`${kBlock}.wo.scale_weight`, float32([1])),
      'ERR_MODEL_TENSORS',
      [`${kBlock}.wo.scale_weight`],
    ],
    [
      'a scale of two values',
      kFp8,
      (t) => t.set(`${kBlock}.wo.scale_weight`, float32([1, 1])),
      'ERR_MODEL_TENSORS',
      [`${kBlock}.wo.scale_weight`, 'expected one float'],
    ],
    [
      'one bucket of relative positions',
      kT5,
      (t) => t.set(kBias, { ...t.get(kBias)!, data: t.get(kBias)!.data.subarray(0, 12), shape: [1, 6] }),
      'ERR_MODEL_TENSORS',
      ['relative_attention_bias has 1 buckets'],
    ],
    ['nothing at all', kT5, (t) => t.clear(), 'ERR_MODEL_UNKNOWN', ['0 tensors']],
  ])('%s', async (_, name, edit, code, messages) => {
    const path = await rewritten(scratch, name, edit);
    const config = name === kClip ? { config: kClipConfig } : {};
    const outcome = await encodes(path, config);
    expect(outcome.code, outcome.message).toBe(code);
    expect(outcome.message).toContain(path);
    for (const message of messages) expect(outcome.message).toContain(message);
  });

  test('a name that is not UTF-8, in a file that is else whole', async () => {
    const path = await rewritten(scratch, kT5, (t) => t.set('encoder.block.0.\u00e9', float32([1])));
    const { readFileSync } = await import('node:fs');
    const bytes = readFileSync(path);
    bytes[bytes.indexOf('\u00e9', 0, 'utf8')] = 0xff;
    expect(await encodes(scratch.put('latin1.safetensors', bytes))).toMatchObject({
      code: 'ERR_SAFETENSORS_HEADER',
      message: expect.stringContaining('UTF-8') as string,
    });
  });
});

describe('slots', () => {
  test.each<[string, string, Slot, string]>([
    ['CLIP for T5', kClip, 't5', 'slot t5'],
    ['T5 for CLIP-L', kT5, 'clip_l', 'slot clip_l'],
    ['T5 for CLIP-G', kT5, 'clip_g', 'slot clip_g'],
    ['an encoder for a VAE', kT5, 'vae', 'slot vae'],
    ['a checkpoint without T5', 'encoders/clip_naming/sdxl_checkpoint.safetensors', 't5', 'slot t5'],
  ])('%s', async (_, name, slot, message) => {
    const outcome = await encodes(golden(name), { slot });
    expect(outcome).toMatchObject({ code: 'ERR_MODEL_SLOT' });
    expect(outcome.message).toContain(message);
    expect(outcome.message).toContain('It holds');
  });
});

describe('a config that cannot be', () => {
  test.each<[string, Record<string, unknown>]>([
    ['heads that do not divide', { num_attention_heads: 7 }],
    ['no heads', { num_attention_heads: 0 }],
    ['heads of text', { num_attention_heads: '4' }],
    ['NaN', { layer_norm_eps: NaN }],
    ['an unknown activation', { hidden_act: 'relu6' }],
    ['another size than the tensors', { hidden_size: 128 }],
    ['an end of text outside the vocabulary', { eos_token_id: 1e9 }],
    ['2^53 positions', { max_position_embeddings: 2 ** 53 }],
    ['only keys nobody knows', { heads: 4 }],
  ])('%s', async (_, config) => {
    const outcome = await encodes(golden(kClip), {
      config: { ...('heads' in config ? {} : kClipConfig), ...config },
    });
    expect(outcome.code, outcome.message).toBe('ERR_MODEL_CONFIG');
    expect(outcome.message).toMatch(/config|num_attention_heads|hidden_act|eos_token_id/);
  });
});

describe('tokens', () => {
  test.each([[[-1]], [[600]], [[0x7fffffff]], [[-0x80000000]], [[1, 2, 600]]])(
    'ids %j of 600',
    async (ids) => {
      const outcome = await encodes(golden(kT5), {}, ids);
      expect(outcome.code).toBe('ERR_TOKEN_ID');
      expect(outcome.message).toContain(`position ${ids.length - 1}`);
    },
  );

  test.each([0, 78, 1000])('%i tokens for 77 positions', async (length) => {
    const outcome = await encodes(golden(kClip), { config: kClipConfig }, Array<number>(length).fill(1));
    expect(outcome.code).toBe('ERR_ARGUMENT');
    expect(outcome.message).toContain('1 to 77 tokens');
  });

  test('a batch that does not divide, none, a negative one, a mask that does not fit', async () => {
    await using encoder = await TextEncoder.load(golden(kT5), { device });
    const ids = Int32Array.from([1, 2, 3]);
    for (const tokens of [
      { ids, batch: 2 },
      { ids, batch: 0 },
      { ids, batch: -1 },
      { ids, batch: NaN },
      { ids, batch: 1.5 },
      { ids, batch: 1, mask: Int32Array.of(1) },
    ])
      expect((await outcomeOf(() => encoder.encodeTokens(tokens))).code, JSON.stringify(tokens)).toBe(
        'ERR_ARGUMENT',
      );
  });
});

function removeAll(tensors: Tensors, pattern: RegExp): void {
  for (const name of [...tensors.keys()]) if (pattern.test(name)) tensors.delete(name);
}

const reshape = (tensors: Tensors, name: string, shape: number[]) =>
  tensors.set(name, { ...tensors.get(name)!, shape });
const retype = (tensors: Tensors, name: string, dtype: 'I32') =>
  tensors.set(name, { ...tensors.get(name)!, dtype });
const float32 = (values: number[]) => ({
  data: new Uint8Array(Float32Array.from(values).buffer),
  dtype: 'F32' as const,
  shape: [values.length],
});
