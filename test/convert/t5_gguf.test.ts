/** A T5 written as GGUF encodes as its source does, tokens included, and tells other programs what they ask for. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gguf as parseOracle } from '@huggingface/gguf';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { convertModel, type ConvertOptions, type Converted } from '../../src/convert/convert.js';
import { WRITTEN_TYPES, type WrittenType } from '../../src/convert/types.js';
import { openModel, selectPart, type T5Part } from '../../src/formats/index.js';
import { TextEncoder } from '../../src/pipeline/text_encoder.js';
import { Device } from '../../src/runtime/device.js';
import { readGgufVocabulary, readT5Vocabulary } from '../../src/text/index.js';
import { refused } from '../formats/encoder_files.js';
import { golden } from '../support/golden.js';
import { relativeL2 } from '../support/reference.js';

const SOURCE = golden('encoders/t5_tiny/model.safetensors');
const VOCABULARY = golden('encoders/t5_tiny_gguf/spiece.model');

let device: Device;
let path: string;
let dir: string;
beforeAll(() => (device = Device.open('cpu')));
afterAll(() => device.close());
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kotoba-t5-'));
  path = join(dir, 'm.gguf');
});
afterEach(() => rmSync(dir, { recursive: true }));

const convert = (input: string, options: ConvertOptions): Promise<Converted> =>
  convertModel(device, openModel(input), path, { extract: 't5', ...options });

test.each<[WrittenType, number]>([
  ['F32', 1e-6],
  ['F16', 1e-3],
  ['BF16', 1e-2],
  // golden/encoders/t5_quant_gguf: ggml's blocks are off by 0.0106 and 0.167 after one layer; this one has three
  ['Q8_0', 3 * 0.0106],
  ['Q4_0', 3 * 0.167],
])('as %s it encodes the same within %f', async (type, tolerance) => {
  await convert(SOURCE, { type, vocabulary: await readT5Vocabulary(VOCABULARY) });
  const [source, written] = [openModel(SOURCE), openModel(path)].map((model) => selectPart(model) as T5Part);
  expect(written!.config).toEqual(source!.config);
  expect([...written!.tensors.keys()]).toEqual([...source!.tensors.keys()]);
  for (const [name, { tensor, shape }] of written!.tensors)
    if (shape.length === 1) expect([name, tensor.dtype]).toEqual([name, 'F32']);
    else if (!name.includes('relative')) expect([name, tensor.dtype]).toEqual([name, type]);
  await using original = await TextEncoder.load(SOURCE, { t5Tokenizer: VOCABULARY });
  await using reread = await TextEncoder.load(path);
  const options = { layout: { maxLength: 32, minLength: 1 } };
  const expected = JSON.parse(
    readFileSync(golden('encoders/t5_tiny_gguf/tokenizer_expected.json'), 'utf8'),
  ) as { text: string; ids: number[] }[];
  for (const { text, ids } of expected.filter((one) => one.ids.length <= 32)) {
    const [a, b] = [await original.encode(text, options), await reread.encode(text, options)];
    expect([...b.prompt.chunks[0]!.ids].slice(0, ids.length), text).toEqual(ids);
    expect(b.prompt.chunks.map((chunk) => [...chunk.ids])).toEqual(
      a.prompt.chunks.map((chunk) => [...chunk.ids]),
    );
    expect(relativeL2(b.hidden, a.hidden), text).toBeLessThan(tolerance);
  }
});

test.each(WRITTEN_TYPES)('as %s it gives the outputs of its decoded copy', async (type) => {
  await convert(SOURCE, { type, vocabulary: await readT5Vocabulary(VOCABULARY) });
  const decoded = join(dir, 'decoded.safetensors');
  await convertModel(device, openModel(path), decoded, { type: 'F32' });
  const options = { precision: 'fp32', t5Tokenizer: VOCABULARY } as const;
  await using stored = await TextEncoder.load(path, options);
  await using plain = await TextEncoder.load(decoded, options);
  const [a, b] = [await stored.encode('a red circle'), await plain.encode('a red circle')];
  // Weights are decoded exactly; sums may be taken in another order.
  expect(relativeL2(a.hidden, b.hidden)).toBeLessThan(2e-6);
});

test('the vocabulary survives whole', async () => {
  const vocabulary = await readT5Vocabulary(VOCABULARY);
  await convert(SOURCE, { type: 'F16', vocabulary });
  const reread = readGgufVocabulary(openModel(path).metadata, path);
  const count = vocabulary.pieces.length;
  expect(reread.pieces.length).toBe((selectPart(openModel(SOURCE)) as T5Part).config.vocab_size);
  expect(reread.pieces.slice(0, count)).toEqual(vocabulary.pieces);
  expect(reread.kinds.slice(0, count)).toEqual(vocabulary.kinds);
  expect(new Set(reread.kinds.slice(count))).toEqual(new Set(count < reread.pieces.length ? ['unused'] : []));
  expect(Float32Array.from(reread.scores.slice(0, count))).toEqual(Float32Array.from(vocabulary.scores));
  expect(reread).toMatchObject({
    unknownId: vocabulary.unknownId,
    eosId: vocabulary.eosId,
    padId: vocabulary.padId,
    normalizer: vocabulary.normalizer,
  });
  const oracle = await parseOracle(path, { allowLocalFile: true });
  expect(oracle.metadata).toMatchObject({
    'general.architecture': 't5encoder',
    'tokenizer.ggml.model': 't5',
  });
});

test('what such a file cannot tell is refused', async () => {
  const vocabulary = await readT5Vocabulary(VOCABULARY);
  await expect(
    convert(SOURCE, { vocabulary, config: { relative_attention_max_distance: 64 } }),
  ).rejects.toEqual(refused('ERR_ARGUMENT', 'distance 64'));
  const rows = (selectPart(openModel(SOURCE)) as T5Part).config.vocab_size;
  const pieces = Array.from({ length: rows + 1 }, (_, i) => `p${i}`);
  await expect(convert(SOURCE, { vocabulary: { ...vocabulary, pieces } })).rejects.toEqual(
    refused('ERR_ARGUMENT', "another T5's"),
  );
  writeFileSync(path, 'old');
  await expect(convert(SOURCE, { type: 'F16' })).rejects.toEqual(
    refused('ERR_TOKENIZER_MISSING', 'carries its vocabulary'),
  );
  expect(readFileSync(path, 'utf8')).toBe('old');
  rmSync(path);
  expect(existsSync(path)).toBe(false);
});
