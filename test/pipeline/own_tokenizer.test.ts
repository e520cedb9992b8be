/** Folders of a small model as a trainer saves them: weights, config.json and tokenizer.json, loaded as they are. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { TextEncoder } from '../../src/pipeline/text_encoder.js';
import { BYTE_CHARACTERS } from '../../src/text/clip_vocabulary.js';
import { golden } from '../support/golden.js';
import { writeRandomClip } from '../support/random_clip.js';

let root: string;
beforeEach(() => (root = mkdtempSync(join(tmpdir(), 'kotoba-own-'))));
afterEach(() => rmSync(root, { recursive: true }));

const put = (file: string, content: unknown): void => {
  mkdirSync(join(root, file, '..'), { recursive: true });
  writeFileSync(join(root, file), JSON.stringify(content));
};

const kMerges = ['r e', 're d</w>'];
const kPieces = [
  ...BYTE_CHARACTERS,
  ...BYTE_CHARACTERS.map((char) => `${char}</w>`),
  ...kMerges.map((merge) => merge.replace(' ', '')),
  '<|startoftext|>',
  '<|endoftext|>',
];
const kClipJson = {
  added_tokens: [],
  model: {
    type: 'BPE',
    end_of_word_suffix: '</w>',
    vocab: Object.fromEntries(kPieces.map((piece, id) => [piece, id])),
    merges: kMerges,
  },
};
const kClipConfig = {
  hidden_size: 64,
  num_attention_heads: 2,
  num_hidden_layers: 2,
  hidden_act: 'quick_gelu',
};

test('a CLIP with its own vocabulary, heads and activation', async () => {
  const rows = kPieces.length;
  put('text_encoder/config.json', { ...kClipConfig, eos_token_id: rows - 1 });
  put('text_encoder/tokenizer.json', kClipJson);
  await writeRandomClip(join(root, 'text_encoder/model.safetensors'), {
    width: 64,
    vocabulary: rows,
    config: null,
  });
  await using encoder = await TextEncoder.load(join(root, 'text_encoder'));
  expect(encoder.part.config).toMatchObject({ ...kClipConfig, vocab_size: rows, eos_token_id: rows - 1 });
  const { prompt, pooled, tokens } = await encoder.encode('red');
  expect([...prompt.chunks[0]!.ids.subarray(0, 4)]).toEqual([rows - 2, 513, rows - 1, rows - 1]);
  expect([tokens, pooled!.length, pooled!.every(Number.isFinite)]).toEqual([77, 64, true]);

  rmSync(join(root, 'text_encoder/tokenizer.json'));
  await using without = await TextEncoder.load(join(root, 'text_encoder'));
  await expect(without.encode('red')).rejects.toMatchObject({ code: 'ERR_TOKENIZER_MISSING' });
});

test('a whole folder of both encoders', async () => {
  put('model_index.json', {});
  put('text_encoder/config.json', kClipConfig);
  put('tokenizer/tokenizer.json', kClipJson);
  const rows = kPieces.length;
  await writeRandomClip(join(root, 'text_encoder/model.safetensors'), {
    width: 64,
    vocabulary: rows,
    config: null,
  });
  await using encoder = await TextEncoder.load(root);
  expect((await encoder.tokenizer()).source).toBe(join(root, 'tokenizer/tokenizer.json'));
  expect((await encoder.encode('red red')).tokens).toBe(77);
});

test('a T5', async () => {
  mkdirSync(join(root, 't5'));
  copyFileSync(golden('encoders/t5_tiny/model.safetensors'), join(root, 't5/model.safetensors'));
  copyFileSync(golden('encoders/t5_tiny/config.json'), join(root, 't5/config.json'));
  const vocab = [
    ['<pad>', 0],
    ['</s>', 0],
    ['<unk>', 0],
    ['▁', -5],
    ['▁red', -1],
    ['▁cat', -2],
  ];
  put('t5/tokenizer.json', {
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: 'Metaspace' },
    model: { type: 'Unigram', unk_id: 2, vocab },
  });
  await using encoder = await TextEncoder.load(join(root, 't5'));
  const { prompt } = await encoder.encode('red cat', { layout: { minLength: 6, maxLength: 6 } });
  expect([...prompt.chunks[0]!.ids]).toEqual([4, 5, 1, 0, 0, 0]);
});
