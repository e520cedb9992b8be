// A CLIP with a tokenizer.json of its own: read, found beside the weights, used where it fits the embedding table.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BYTE_CHARACTERS } from '../../src/text/clip_vocabulary.js';
import {
  chunkLayout,
  clipTokenizer,
  loadClipTokenizer,
  readClipTokenizerJson,
  tokenizePrompt,
} from '../../src/text/index.js';
import { readJson, tokenizerGolden } from './samples.js';

/** Bytes, bytes that end a word, merges, special tokens last: what OpenAI's own file looks like. */
function clipJson(merges: readonly string[], vocabulary?: Record<string, number>): Record<string, unknown> {
  const pieces = [...BYTE_CHARACTERS, ...BYTE_CHARACTERS.map((char) => `${char}</w>`)];
  pieces.push(...merges.map((merge) => merge.replace(' ', '')), '<|startoftext|>', '<|endoftext|>');
  const vocab = vocabulary ?? Object.fromEntries(pieces.map((piece, id) => [piece, id]));
  const added = ['<|startoftext|>', '<|endoftext|>'].map((content) => ({
    id: vocab[content],
    content,
    special: true,
  }));
  return {
    version: '1.0',
    added_tokens: added,
    normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'Lowercase' }] },
    pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Split' }, { type: 'ByteLevel' }] },
    model: { type: 'BPE', unk_token: '<|endoftext|>', end_of_word_suffix: '</w>', vocab, merges },
  };
}

const small = clipJson(['r e', 're d</w>', 'c a', 'ca t</w>']);
const kRows = 2 * 256 + 4 + 2;

let root: string;
beforeEach(() => (root = mkdtempSync(path.join(tmpdir(), 'kotoba-clip-'))));
afterEach(() => rmSync(root, { recursive: true }));

function put(name: string, content: unknown): string {
  const file = path.join(root, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return file;
}

describe('readClipTokenizerJson', () => {
  const read = (json: unknown): ReturnType<typeof readClipTokenizerJson> =>
    readClipTokenizerJson(typeof json === 'string' ? json : JSON.stringify(json), 'x.json');

  test('pieces, merges and special tokens', () => {
    const tokenizer = clipTokenizer({ vocabulary: read(small) });
    expect(tokenizer).toMatchObject({
      source: 'x.json',
      vocabularySize: kRows,
      bosId: kRows - 2,
      eosId: kRows - 1,
    });
    const { ids, pieces } = tokenizer.encode('Red CAT, cab');
    expect(pieces).toEqual(['red</w>', 'cat</w>', ',</w>', 'ca', 'b</w>']);
    expect(ids.map((id) => tokenizer.piece(id))).toEqual(pieces);
    expect(tokenizer.encode('猫').ids.every((id) => id < 512)).toBe(true);
    expect(tokenizer.piece(tokenizer.commaId!)).toBe(',</w>');
  });

  test('merges as pairs', () => {
    const paired = structuredClone(small);
    const model = paired['model'] as { merges: unknown[] };
    model.merges = (model.merges as string[]).map((merge) => merge.split(' '));
    expect(clipTokenizer({ vocabulary: read(paired) }).encode('red').pieces).toEqual(['red</w>']);
  });

  test('a chunk is framed and padded with its own special tokens', () => {
    const tokenizer = clipTokenizer({ vocabulary: read(small) });
    const { chunks } = tokenizePrompt(tokenizer, [['red cat', 1]], chunkLayout('clip-l'));
    const [bos, eos] = [kRows - 2, kRows - 1];
    expect([...chunks[0]!.ids.subarray(0, 5)]).toEqual([bos, 513, 515, eos, eos]);
    expect(chunks[0]!.ids.length).toBe(77);
  });

  const vocab = (small['model'] as { vocab: Record<string, number> }).vocab;
  const changed = (model: object): unknown => ({
    ...small,
    model: { ...(small['model'] as object), ...model },
  });
  const { 'Ā</w>': _, ...withoutByte } = vocab;
  test.each([
    ['{"model": ', 'not JSON'],
    [{}, '"model" to be an object'],
    [changed({ type: 'Unigram' }), 'expected a BPE model'],
    [changed({ end_of_word_suffix: '' }), 'words end in </w>'],
    [changed({ vocab: { ...vocab, extra: 7 } }), 'each once'],
    [changed({ vocab: { ...vocab, extra: 1e9 } }), 'each once'],
    [changed({ vocab: { ...withoutByte, other: vocab['Ā</w>'] } }), '"Ā</w>" is missing'],
    [changed({ merges: ['r'] }), 'merge 0'],
    [changed({ merges: ['x y'] }), 'merge 0'],
    [changed({ merges: 'r e' }), '"model.merges" to be a list'],
  ])('%#: %j is refused', (json, message) => {
    expect(() => read(json)).toThrow(
      expect.objectContaining({
        code: 'ERR_TOKENIZER_FORMAT',
        message: expect.stringContaining(message) as string,
      }),
    );
  });

  const files = [tokenizerGolden('clip_vocab.json.gz'), tokenizerGolden('clip_merges.txt.gz')];
  const ids = tokenizerGolden('token_ids.json');
  const isThere = files.every(Boolean) && ids !== undefined;
  test.skipIf(!isThere)("OpenAI's own vocabulary gives the built-in one's ids", () => {
    const [vocabulary, merges] = files.map((file) => gunzipSync(readFileSync(file!)).toString());
    const lines = merges!.split('\n').slice(1, 48895);
    const full = clipJson(lines, JSON.parse(vocabulary!) as Record<string, number>);
    const [own, builtIn] = [clipTokenizer({ vocabulary: read(full) }), clipTokenizer()];
    expect([own.vocabularySize, own.bosId, own.eosId, own.commaId]).toEqual([49408, 49406, 49407, 267]);
    for (const { text } of readJson<{ prompts: { text: string }[] }>(ids!).prompts)
      expect(own.encode(text), text).toEqual(builtIn.encode(text));
  });
});

describe('loadClipTokenizer', () => {
  const load = (weights: string, rows = kRows, eosId = rows - 1) =>
    loadClipTokenizer({ weights: path.join(root, weights), rows, eosId });

  test.each([
    ['m.safetensors', 'tokenizer.json'],
    ['m.safetensors', 'tokenizer/tokenizer.json'],
    ['text_encoder/m.safetensors', 'tokenizer/tokenizer.json'],
    ['text_encoder_2/m.safetensors', 'tokenizer_2/tokenizer.json'],
  ])('%s takes %s', async (weights, file) => {
    const written = put(file, small);
    expect(await load(weights)).toMatchObject({ source: written, vocabularySize: kRows });
  });

  test('the built-in one where no file fits a table of the usual size', async () => {
    expect((await load('m.safetensors', 49408)).source).toContain('built in');
    put('tokenizer.json', small);
    expect((await load('m.safetensors', 49408)).source).toContain('built in');
    put('tokenizer.json', { model: { type: 'Unigram' } });
    expect((await load('m.safetensors', 49408)).source).toContain('built in');
  });

  test('rows beyond the vocabulary are no misfit, another end of text is', async () => {
    put('tokenizer.json', small);
    expect((await load('m.safetensors', kRows + 3, kRows - 1)).vocabularySize).toBe(kRows);
    await expect(load('m.safetensors', kRows + 3)).rejects.toMatchObject({ code: 'ERR_TOKENIZER_MISSING' });
  });

  test('nothing fits: an error that names the file and what was found', async () => {
    const missing = (...words: string[]) => ({
      code: 'ERR_TOKENIZER_MISSING',
      message: expect.stringMatching(new RegExp(words.join('.*'), 's')) as string,
    });
    await expect(load('m.safetensors')).rejects.toMatchObject(
      missing('m.safetensors', `${kRows} tokens`, 'looked for'),
    );
    put('tokenizer.json', small);
    await expect(load('m.safetensors', 400)).rejects.toMatchObject(
      missing('m.safetensors', `${kRows} pieces`),
    );
    put('tokenizer.json', '{"model": {"type": "BPE"');
    await expect(load('m.safetensors')).rejects.toMatchObject({ code: 'ERR_TOKENIZER_FORMAT' });
  });
});
