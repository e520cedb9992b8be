import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { findT5Tokenizer, loadT5Tokenizer, readT5Vocabulary } from '../../src/text/index.js';
import { golden } from '../support/golden.js';
import { ggufMetadata } from './samples.js';

const SPIECE = golden('encoders/t5_tiny_gguf/spiece.model');
const UNIGRAM_JSON = JSON.stringify({
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: { type: 'Metaspace' },
  model: {
    type: 'Unigram',
    unk_id: 2,
    vocab: [
      ['<pad>', 0],
      ['</s>', 0],
      ['<unk>', 0],
      ['▁', -1],
      ['a', -2],
    ],
  },
});

let root: string;
beforeEach(() => (root = mkdtempSync(path.join(tmpdir(), 'kotoba-tokenizer-'))));
afterEach(() => rmSync(root, { recursive: true }));

const put = (name: string, content?: string): string => {
  const file = path.join(root, name);
  mkdirSync(path.dirname(file), { recursive: true });
  if (content === undefined) cpSync(SPIECE, file);
  else writeFileSync(file, content);
  return file;
};

describe('findT5Tokenizer', () => {
  test.each([
    ['beside the weights', 'model/spiece.model'],
    ['in a folder there', 'model/tokenizer/spiece.model'],
    ['in the parent folder', 'spiece.model'],
    ['diffusers Flux', 'tokenizer_2/spiece.model'],
    ['diffusers SD3', 'tokenizer_3/spiece.model'],
  ])('%s', async (_, name) => {
    const file = put(name);
    mkdirSync(path.join(root, 'model'), { recursive: true });
    expect((await findT5Tokenizer([path.join(root, 'model')])).file).toBe(file);
  });

  test('passes over CLIP’s tokenizer.json and takes the T5’s', async () => {
    put('tokenizer_2/tokenizer.json', '{"model":{"type":"BPE"}}');
    const file = put('tokenizer/tokenizer.json', UNIGRAM_JSON);
    mkdirSync(path.join(root, 'text_encoder_2'));
    expect((await findT5Tokenizer([path.join(root, 'text_encoder_2')])).file).toBe(file);
  });

  test('an explicit path wins: file of any name, or folder', async () => {
    put('spiece.model');
    const other = put('other/vocabulary.bin');
    expect((await findT5Tokenizer([root], other)).file).toBe(other);
    const json = put('folder/tokenizer.json', UNIGRAM_JSON);
    expect((await findT5Tokenizer([root], path.join(root, 'folder'))).file).toBe(json);
  });

  test.each(['nowhere', 'empty'])('an explicit path to %s is ERR_FILE_NOT_FOUND', async (name) => {
    put('spiece.model');
    mkdirSync(path.join(root, 'empty'));
    await expect(findT5Tokenizer([root], path.join(root, name))).rejects.toMatchObject({
      code: 'ERR_FILE_NOT_FOUND',
    });
  });
});

describe('readT5Vocabulary tells formats apart by content', () => {
  test('whatever the name', async () => {
    expect((await readT5Vocabulary(put('a.bin'))).pieces).toHaveLength(580);
    expect((await readT5Vocabulary(put('b.bin', `\ufeff ${UNIGRAM_JSON}`))).pieces).toHaveLength(5);
  });

  test.each([
    [
      'a Git LFS pointer',
      'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n',
      /git lfs pull/,
    ],
    ['an empty file', '', /no pieces/],
    ['a web page', '<!DOCTYPE html>', /not a whole SentencePiece model/],
  ])('%s is ERR_TOKENIZER_FORMAT', async (_, content, message) => {
    const reading = readT5Vocabulary(put('bad', content));
    await expect(reading).rejects.toThrow(message);
    await expect(reading).rejects.toMatchObject({ code: 'ERR_TOKENIZER_FORMAT' });
  });
});

describe('loadT5Tokenizer', () => {
  const metadata = ggufMetadata(golden('encoders/t5_tiny_gguf/model.f16.gguf'));

  test('the GGUF’s own vocabulary beats a file beside it, an explicit one beats both', async () => {
    const json = put('tokenizer.json', UNIGRAM_JSON);
    expect((await loadT5Tokenizer({ dirs: [root], metadata })).vocabularySize).toBe(600);
    expect((await loadT5Tokenizer({ dirs: [root], metadata, explicitPath: json })).vocabularySize).toBe(5);
    expect((await loadT5Tokenizer({ dirs: [root] })).vocabularySize).toBe(5);
    expect((await loadT5Tokenizer({ dirs: [root], metadata: new Map() })).vocabularySize).toBe(5);
  });

  test('none found: the error names the three ways and the folders', async () => {
    const loading = loadT5Tokenizer({
      dirs: [path.join(root, 'model')],
      metadata: new Map(),
      weights: 't5.gguf',
    });
    await expect(loading).rejects.toMatchObject({ code: 'ERR_TOKENIZER_MISSING' });
    for (const part of [
      /t5\.gguf/,
      /spiece\.model or tokenizer\.json beside/,
      /--t5-tokenizer/,
      /tokenizer\.ggml.*this one does not/,
    ]) {
      await expect(loading).rejects.toThrow(part);
    }
    await expect(loading).rejects.toThrow(root);
  });
});
