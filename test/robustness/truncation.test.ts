/** Real files of every container, cut at every kind of place, as a user meets them: through TextEncoder.load. */
import { cpSync, readFileSync, truncateSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device, TextEncoder, loadT5Tokenizer, openModel, type LoadOptions } from '../../src/index.js';
import { golden } from '../support/golden.js';
import { outcomeOf, useScratch } from './scratch.js';

const scratch = useScratch();
let device: Device;
beforeAll(() => {
  device = Device.open('cpu', { threads: 1 });
});
afterAll(() => device.close());

/** About 120 places in the header, all around its end, 40 in the data. */
function places(header: number, size: number): number[] {
  const step = Math.max(1, Math.floor(header / 120));
  const inHeader = Array.from({ length: Math.ceil(header / step) }, (_, i) => i * step);
  const atItsEnd = Array.from({ length: 9 }, (_, i) => header - 4 + i);
  const inData = Array.from({ length: 40 }, (_, i) => header + Math.floor(((size - header) * i) / 40));
  const all = [...inHeader, 1, 7, 8, 9, 23, 24, ...atItsEnd, ...inData, size - 1];
  return [...new Set(all)].filter((n) => n < size).sort((a, b) => b - a); // longest first: each cuts the same file
}

const loads = (path: string, options: LoadOptions) =>
  outcomeOf(async () => {
    await using _ = await TextEncoder.load(path, { ...options, device });
  });

const clip = { slot: 'clip_l', config: { num_attention_heads: 2, hidden_act: 'quick_gelu' } } as const;
const kTruncated = /^ERR_(SAFETENSORS|GGUF)_TRUNCATED$/;

describe.each<[string, string, LoadOptions]>([
  ['F16', 't5_tiny_containers/model.fp16.safetensors', {}],
  ['scaled FP8', 't5_tiny_containers/model.fp8_scaled_legacy.safetensors', {}],
  ['CLIP', 'clip_naming/clip_l_openai.safetensors', clip],
  ['an all-in-one checkpoint', 'clip_naming/sd3_checkpoint.safetensors', clip],
  ['GGUF F16 with a vocabulary', 't5_tiny_gguf/model.f16.gguf', {}],
  ['GGUF Q4_K', 't5_quant_gguf/model.q4_k.gguf', {}],
])('%s', (_, name, options) => {
  test('whole it loads; at every cut it is ERR_…_TRUNCATED, with the path', async () => {
    const whole = golden(`encoders/${name}`);
    const bytes = readFileSync(whole);
    const path = scratch.put(basename(name), bytes);
    expect(await loads(path, options)).toMatchObject({ code: 'ok' });
    const tensors = [...openModel(whole).tensors.values()];
    const header = Math.min(...tensors.map(({ offset }) => offset));
    // GGUF may pad after the last tensor: cutting there loses nothing.
    const end = Math.max(...tensors.map((tensor) => tensor.offset + tensor.bytes));
    for (const length of places(header, end)) {
      truncateSync(path, length);
      const { code, message } = await loads(path, options);
      expect(code, `${length} bytes: ${message}`).toMatch(kTruncated);
      expect(message).toContain(path);
    }
  });
});

test('shards: a cut in any of them, or in the index', async () => {
  const folder = join(scratch.dir, 'sharded');
  cpSync(golden('encoders/t5_tiny_containers/sharded'), folder, { recursive: true });
  expect(await loads(folder, {})).toMatchObject({ code: 'ok' });
  for (const [name, expected] of [
    ['model-00001-of-00003.safetensors', kTruncated],
    ['model-00003-of-00003.safetensors', kTruncated],
    ['model.safetensors.index.json', /^ERR_SHARDS$/],
  ] as const) {
    const whole = readFileSync(join(folder, name));
    for (let i = 0; i < 40; i++) {
      scratch.put(join('sharded', name), whole.subarray(0, Math.floor((whole.length * i) / 40)));
      const { code, message } = await loads(folder, {});
      expect(code, message).toMatch(expected);
      expect(message).toContain(name);
    }
    scratch.put(join('sharded', name), whole);
  }
});

test('spiece.model: a cut anywhere is ERR_TOKENIZER_FORMAT with the path', async () => {
  const whole = readFileSync(golden('encoders/t5_tiny_gguf/spiece.model'));
  for (let length = 0; length < whole.length; length += 97) {
    const path = scratch.put('spiece.model', whole.subarray(0, length));
    const { code, message } = await outcomeOf(() => loadT5Tokenizer({ explicitPath: path }));
    expect(code, `${length} bytes: ${message}`).toBe('ERR_TOKENIZER_FORMAT');
    expect(message).toContain(path);
  }
});
