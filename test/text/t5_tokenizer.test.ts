import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { KotobaError } from '../../src/errors.js';
import {
  readGgufVocabulary,
  readSentencePieceModel,
  readTokenizerJson,
  t5Tokenizer,
  type T5Tokenizer,
  type UnigramVocabulary,
} from '../../src/text/index.js';
import { golden } from '../support/golden.js';
import { ggufMetadata, randomText, readJson, seeded, tokenizerGolden } from './samples.js';

const withEos = (tokenizer: T5Tokenizer, text: string) => [...tokenizer.encode(text).ids, tokenizer.eosId];

const realSpiece = tokenizerGolden('t5_spiece.model');
const skipped = realSpiece ? '' : ' (skipped: ../shared/golden/tokenizers is absent)';

describe.skipIf(!realSpiece)(`the published T5 vocabulary${skipped}`, () => {
  interface Prompts {
    readonly prompts: readonly { text: string; t5_ids: number[]; t5_ids_hf_slow?: number[] }[];
  }
  const prompts = realSpiece ? readJson<Prompts>(tokenizerGolden('token_ids.json')!).prompts : [];
  const vocabularies = (): [string, UnigramVocabulary][] => [
    ['spiece.model', readSentencePieceModel(readFileSync(realSpiece!), 'spiece.model')],
    [
      'tokenizer.json',
      readTokenizerJson(
        gunzipSync(readFileSync(tokenizerGolden('t5_tokenizer.json.gz')!)).toString(),
        'tokenizer.json',
      ),
    ],
  ];

  test('65 prompts from both files, as SentencePiece reads them', () => {
    expect(prompts).toHaveLength(65);
    for (const [name, vocabulary] of vocabularies()) {
      const tokenizer = t5Tokenizer(vocabulary);
      expect([tokenizer.vocabularySize, tokenizer.eosId, tokenizer.padId]).toEqual([32100, 1, 0]);
      for (const { text, t5_ids } of prompts)
        expect(withEos(tokenizer, text), `${name}: ${JSON.stringify(text)}`).toEqual(t5_ids);
    }
  });

  test('and with special tokens recognised, as transformers reads them', () => {
    const others = new Map(
      readJson<Prompts>(tokenizerGolden('token_ids_other_flavours.json')!).prompts.map((p) => [
        p.text,
        p.t5_ids_hf_slow,
      ]),
    );
    for (const [name, vocabulary] of vocabularies()) {
      const tokenizer = t5Tokenizer(vocabulary, { specialTokens: 'recognise' });
      for (const { text, t5_ids } of prompts) {
        expect(withEos(tokenizer, text), `${name}: ${JSON.stringify(text)}`).toEqual(
          others.get(text) ?? t5_ids,
        );
      }
      expect(tokenizer.piece(32099)).toBe('<extra_id_0>');
    }
  });

  test('any text gives ids in range, the same from both files', () => {
    const [spiece, json] = vocabularies().map(([, vocabulary]) => t5Tokenizer(vocabulary)) as [
      T5Tokenizer,
      T5Tokenizer,
    ];
    const random = seeded(3);
    for (let i = 0; i < 300; i++) {
      const text = randomText(random, 40);
      const { ids } = spiece.encode(text);
      expect(
        ids.every((id) => id >= 2 && id < 32000),
        JSON.stringify(text),
      ).toBe(true);
      expect(json.encode(text).ids).toEqual(ids);
    }
  });

  // A quadratic step would take minutes; shared machines are noisy.
  test.each([
    ['words', 'the quick brown fox jumps, '.repeat(3704)],
    ['one word', 'a'.repeat(100_000)],
    ['unknown characters', '猫'.repeat(100_000)],
    ['spaces', ' '.repeat(100_000)],
  ])('100,000 characters: %s', { timeout: 20_000 }, (_, text) => {
    const tokenizer = t5Tokenizer(vocabularies()[0]![1]);
    const start = process.cpuUsage();
    tokenizer.encode(text);
    expect(process.cpuUsage(start).user / 1e6).toBeLessThan(5);
  });
});

describe('the tiny T5’s vocabulary', () => {
  const spiece = readFileSync(golden('encoders/t5_tiny_gguf/spiece.model'));
  const vocabulary = readSentencePieceModel(spiece, 'spiece.model');
  const expected = readJson<{ text: string; ids: number[] }[]>(
    golden('encoders/t5_tiny_gguf/tokenizer_expected.json'),
  );

  test.each(['model.f32.gguf', 'model.f16.gguf'])('ids from the metadata of %s', (name) => {
    const metadata = ggufMetadata(golden(`encoders/t5_tiny_gguf/${name}`));
    const tokenizer = t5Tokenizer(readGgufVocabulary(metadata, name));
    for (const { text, ids } of expected) expect(withEos(tokenizer, text), text).toEqual(ids);
  });

  test('ids from spiece.model', () => {
    const tokenizer = t5Tokenizer(vocabulary);
    for (const { text, ids } of expected) expect(withEos(tokenizer, text), text).toEqual(ids);
  });

  test('400 random prompts as sentencepiece 0.2.2 cuts them', () => {
    const { cases } = readJson<{ cases: { text: string; t5_tiny_ids: number[] }[] }>(
      golden('text/reference_cases.json'),
    );
    const tokenizer = t5Tokenizer(vocabulary);
    for (const { text, t5_tiny_ids } of cases)
      expect(tokenizer.encode(text).ids, JSON.stringify(text)).toEqual(t5_tiny_ids);
  });

  test('pieces spell the text, unknown characters included', () => {
    const tokenizer = t5Tokenizer(vocabulary);
    const { ids, pieces } = tokenizer.encode('the 猫猫 café');
    expect(pieces.map((piece) => tokenizer.readable(piece)).join('')).toBe(' the 猫猫 café');
    expect(ids.filter((id) => id === 2)).toHaveLength(2);
  });

  test('encodeAsync gives the same ids', async () => {
    const tokenizer = t5Tokenizer(vocabulary);
    const text = Array.from({ length: 5000 }, (_, i) => `license${i}`).join(' ');
    expect((await tokenizer.encodeAsync(text)).ids).toEqual(tokenizer.encode(text).ids);
  });

  test('an unknown character costs 10 more than the worst ordinary piece, whatever unused pieces score', () => {
    const ids = (x: number, pq: number) =>
      t5Tokenizer({
        source: 'made up',
        pieces: ['<pad>', '</s>', '<unk>', '▁', 'xp', 'x', 'pq', '[PAD]'],
        scores: [0, 0, 0, -1, -1, x, pq, -10000],
        kinds: ['control', 'control', 'unknown', 'normal', 'normal', 'normal', 'normal', 'unused'],
        unknownId: 2,
        eosId: 1,
        padId: 0,
        normalizer: { charsmap: null, addDummyPrefix: true, removeExtraWhitespaces: true },
        specials: new Map(),
      }).encode('xpq').ids;
    expect(ids(-9, -9)).toEqual([3, 5, 6]); // x pq = −18 beats xp ? = −1 − 19
    expect(ids(-12, -12)).toEqual([3, 4, 2]); // xp ? = −1 − 22 beats x pq = −24
  });

  test('byte pieces spell what no piece has; user-defined pieces always match', () => {
    const bytes = Array.from(
      { length: 256 },
      (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`,
    );
    const tokenizer = t5Tokenizer({
      source: 'made up',
      pieces: [...bytes, '<unk>', '</s>', '▁', 'a', 'aab'],
      scores: [...bytes.map(() => 0), 0, 0, -9, -1, 0],
      kinds: [...bytes.map(() => 'byte' as const), 'unknown', 'control', 'normal', 'normal', 'user'],
      unknownId: 256,
      eosId: 257,
      padId: 257,
      normalizer: { charsmap: null, addDummyPrefix: false, removeExtraWhitespaces: true },
      specials: new Map(),
    });
    expect(tokenizer.encode('a\u00e9<0x41>').ids.slice(0, 3)).toEqual([259, 0xc3, 0xa9]);
    expect(tokenizer.encode('aaab').ids).toEqual([259, 260]);
  });

  describe('damaged files', () => {
    /** The error's code, or null if reading worked; anything but a coded error is thrown on. */
    const codeOf = (use: () => void): string | null => {
      try {
        use();
        return null;
      } catch (error) {
        if (error instanceof KotobaError) return error.code;
        throw error;
      }
    };

    // Every length near the end, where sections change, and a fifth of those inside the list of pieces.
    test('every truncation of spiece.model is ERR_TOKENIZER_FORMAT', () => {
      for (let n = 0; n < spiece.length; n += n < spiece.length - 1000 ? 5 : 1) {
        const code = codeOf(() => readSentencePieceModel(spiece.subarray(0, n), 'cut'));
        if (code !== 'ERR_TOKENIZER_FORMAT') expect.fail(`${n} bytes gave ${code}`);
      }
    });

    test('mutated bytes: ERR_TOKENIZER_FORMAT or a vocabulary that works', () => {
      const random = seeded(7);
      const codes = Array.from({ length: 1000 }, (_, i) => {
        const bytes = Uint8Array.from(spiece);
        for (let n = 0; n < 3; n++) bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
        return codeOf(() => {
          const mutated = readSentencePieceModel(bytes, 'mutated');
          if (i % 20 === 0) t5Tokenizer(mutated).encode('This program is free software');
        });
      });
      expect(new Set(codes)).toEqual(new Set(['ERR_TOKENIZER_FORMAT', null]));
    });

    test.each([
      ['', /no pieces/],
      ['\x0a\x03\x0a\x01a', /file may be cut off/],
      ['hello, I am no model', /not a whole SentencePiece model/],
      ['\x0a\xff\xff\xff\xff\x0f', /passes the end/],
      ['\xff'.repeat(20), /more than ten bytes/],
      ['\x00\x00', /numbered 0/],
    ])('%j', (bytes, message) => {
      const read = () => readSentencePieceModel(Buffer.from(bytes, 'latin1'), 'bad.model');
      expect(read).toThrow(message);
      expect(read).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER_FORMAT' }));
    });
  });
});

describe('tokenizer.json', () => {
  const minimal = {
    added_tokens: [{ id: 1, content: '</s>' }],
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Strip' }] },
    pre_tokenizer: { type: 'Metaspace' },
    model: {
      type: 'Unigram',
      unk_id: 0,
      vocab: [
        ['<unk>', 0],
        ['</s>', 0],
        ['▁', -1],
        ['▁a', -2],
        ['b', -3],
      ],
    },
  };
  const read = (value: unknown) =>
    readTokenizerJson(typeof value === 'string' ? value : JSON.stringify(value), 'tokenizer.json');

  test('a minimal one works, without any normalisation table', () => {
    expect(t5Tokenizer(read(minimal)).encode('  ab  b é ').ids).toEqual([3, 4, 2, 4, 2, 0]);
  });

  test.each([
    ['not JSON', '{"model": {', /not JSON, or cut off/],
    ['a list', '[]', /expected the file to be an object/],
    ['no model', {}, /"model" to be an object but found nothing/],
    ['CLIP’s', { ...minimal, model: { type: 'BPE', vocab: {}, merges: [] } }, /BPE \(CLIP has one\)/],
    [
      'a vocabulary of the wrong form',
      { ...minimal, model: { ...minimal.model, vocab: [['a']] } },
      /entry 0/,
    ],
    ['no vocabulary', { ...minimal, model: { ...minimal.model, vocab: [] } }, /found none/],
    [
      'a score that is no number',
      {
        ...minimal,
        model: {
          ...minimal.model,
          vocab: [
            ['<unk>', 0],
            ['</s>', 0],
            ['a', null],
          ],
        },
      },
      /entry 2/,
    ],
    [
      'an unknown id out of range',
      { ...minimal, model: { ...minimal.model, unk_id: 9 } },
      /unknown token's id below 5/,
    ],
    ['a step no T5 has', { ...minimal, normalizer: { type: 'Lowercase' } }, /"Lowercase"/],
    [
      'a table that is no base64',
      { ...minimal, normalizer: { type: 'Precompiled', precompiled_charsmap: '%%' } },
      /base64/,
    ],
    [
      'added tokens of the wrong form',
      { ...minimal, added_tokens: [{ id: -1, content: 'x' }] },
      /added_tokens/,
    ],
    ['deep nesting', '['.repeat(100_000), /not JSON/],
  ])('%s', (_, value, message) => {
    expect(() => read(value)).toThrow(message);
    expect(() => read(value)).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER_FORMAT' }));
  });
});

describe('GGUF metadata', () => {
  const metadata = (changes: Record<string, unknown>) =>
    new Map(
      Object.entries({
        model: 't5',
        tokens: ['<pad>', '</s>', '<unk>', '▁', '▁a', 'b', '<extra_id_0>'],
        scores: Float32Array.of(0, 0, 0, -1, -2, -3, 0),
        token_type: Int32Array.of(3, 3, 2, 1, 1, 1, 4),
        ...changes,
      }).flatMap(([key, value]): [string, unknown][] =>
        value === undefined ? [] : [[`tokenizer.ggml.${key}`, value]],
      ),
    );
  const read = (changes: Record<string, unknown> = {}) => readGgufVocabulary(metadata(changes), 'model.gguf');

  test('typed arrays, big integers and absent keys', () => {
    expect(t5Tokenizer(read()).encode('ab <extra_id_0>').ids).toEqual([4, 5, 3, 2]);
    expect(t5Tokenizer(read({ eos_token_id: 1n, unknown_token_id: 2n })).eosId).toBe(1);
    expect(t5Tokenizer(read({ token_type: undefined })).encode('ab').ids).toEqual([4, 5]);
    expect(t5Tokenizer(read({ add_space_prefix: false })).encode('b').ids).toEqual([5]);
    expect(t5Tokenizer(read({ remove_extra_whitespaces: false })).encode('b  b').ids).toEqual([
      3, 5, 3, 3, 5,
    ]);
  });

  test('added tokens only on demand', () => {
    expect(t5Tokenizer(read(), { specialTokens: 'recognise' }).encode('ab<extra_id_0>b</s>').ids).toEqual([
      4, 5, 6, 3, 5, 1,
    ]);
  });

  test.each([
    ['another model', { model: 'llama' }, 'ERR_TOKENIZER_FORMAT'],
    ['no model', { model: undefined }, 'ERR_TOKENIZER_MISSING'],
    ['no tokens', { tokens: undefined }, 'ERR_TOKENIZER_FORMAT'],
    ['tokens that are numbers', { tokens: [1, 2] }, 'ERR_TOKENIZER_FORMAT'],
    ['too few scores', { scores: [0] }, 'ERR_TOKENIZER_FORMAT'],
    ['scores that are not finite', { scores: [0, 0, 0, NaN, -2, -3, 0] }, 'ERR_TOKENIZER_FORMAT'],
    ['an unknown type', { token_type: [3, 3, 2, 1, 1, 9, 4] }, 'ERR_TOKENIZER_FORMAT'],
    ['an id out of range', { eos_token_id: 70 }, 'ERR_TOKENIZER_FORMAT'],
    [
      'a broken table',
      { precompiled_charsmap: Uint8Array.of(255, 255, 255, 255, 0, 0, 0, 0) },
      'ERR_TOKENIZER_FORMAT',
    ],
  ])('%s', (_, changes, code) => {
    expect(() => t5Tokenizer(read(changes))).toThrow(expect.objectContaining({ code }));
  });
});
