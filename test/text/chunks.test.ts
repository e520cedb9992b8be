import { describe, expect, test } from 'vitest';
import {
  chunkLayout,
  clipTokenizer,
  emptyPromptChunk,
  parsePrompt,
  readSentencePieceModel,
  t5Tokenizer,
  tokenizePrompt,
  tokenizePromptAsync,
  type ChunkLayout,
  type PromptDialect,
  type TokenizedPrompt,
} from '../../src/text/index.js';
import { readFileSync } from 'node:fs';
import { packA1111, packComfyui, type WeightedToken } from '../../src/text/chunk_rules.js';
import { golden } from '../support/golden.js';
import { randomText, readJson, seeded, tokenizerGolden } from './samples.js';

const BOS = 49406;
const EOS = 49407;
const clip = clipTokenizer();
const t5 = t5Tokenizer(
  readSentencePieceModel(readFileSync(golden('encoders/t5_tiny_gguf/spiece.model')), 'spiece.model'),
);

const tokenize = (prompt: string, layout: Partial<ChunkLayout> = {}, dialect: PromptDialect = 'a1111') =>
  tokenizePrompt(clip, parsePrompt(prompt, dialect), chunkLayout('clip-l', layout));

/** The prompt's own ids of each chunk. */
const contents = ({ chunks }: TokenizedPrompt) =>
  chunks.map((chunk) => [
    ...chunk.ids.subarray(chunk.contentStart, chunk.contentStart + chunk.contentLength),
  ]);

const tokenIds = tokenizerGolden('token_ids.json');
test.skipIf(!tokenIds)(
  `clip_77 of 65 prompts${tokenIds ? '' : ' (skipped: ../shared/golden/tokenizers is absent)'}`,
  () => {
    for (const { text, clip_77 } of readJson<{ prompts: { text: string; clip_77: number[] }[] }>(tokenIds!)
      .prompts) {
      const { chunks, tokenCount, truncated } = tokenizePrompt(
        clip,
        [[text, 1]],
        chunkLayout('clip-l', { overflow: 'truncate' }),
      );
      expect([...chunks[0]!.ids], JSON.stringify(text)).toEqual(clip_77);
      expect(tokenCount + truncated.ids.length).toBe(clip.encode(text).ids.length);
    }
  },
);

describe('one chunk', () => {
  test('CLIP-L pads with EOS, CLIP-G with 0, Long-CLIP is 248 long', () => {
    const ids = (family: 'clip-l' | 'clip-g' | 'clip-h' | 'long-clip-l') => [
      ...tokenizePrompt(clip, [['a cat', 1]], chunkLayout(family)).chunks[0]!.ids,
    ];
    const start = [BOS, 320, 2368, EOS];
    expect(ids('clip-l')).toEqual([...start, ...Array<number>(73).fill(EOS)]);
    expect(ids('clip-g')).toEqual([...start, ...Array<number>(73).fill(0)]);
    expect(ids('clip-h')).toEqual(ids('clip-g'));
    expect(ids('long-clip-l')).toEqual([...start, ...Array<number>(244).fill(EOS)]);
  });

  test('weights sit on their tokens, pieces name them', () => {
    const { chunks, hasWeights } = tokenize('a (cat:1.5)');
    const [chunk] = chunks;
    expect([...chunk!.weights.subarray(0, 5)]).toEqual([1, 1, 1.5, 1, 1]);
    expect(chunk!.pieces.slice(0, 4)).toEqual(['<|startoftext|>', 'a</w>', 'cat</w>', '<|endoftext|>']);
    expect([chunk!.contentStart, chunk!.contentLength, chunk!.eosIndex, hasWeights]).toEqual([1, 2, 3, true]);
  });

  test.each([
    ['flux-dev', 512, 0],
    ['flux-schnell', 256, 0],
    ['sd3', 77, 43],
    ['sd3-256', 256, 0],
    ['comfyui-sd3', 120, 0],
    ['comfyui-flux', 256, 0],
    ['unpadded', 120, 0],
  ] as const)('T5 length %s: %d ids, %d cut', (t5Length, length, cut) => {
    // prettier-ignore
    const words = Array<string>(119).fill('a').join(' ');
    const { chunks, truncated } = tokenizePrompt(t5, [[words, 1]], chunkLayout('t5', { t5Length }));
    expect(chunks).toHaveLength(1);
    expect(chunks[0]!.ids).toHaveLength(length);
    expect(truncated.ids).toHaveLength(cut);
    expect(chunks[0]!.ids[chunks[0]!.eosIndex]).toBe(1);
    expect([...chunks[0]!.ids.subarray(chunks[0]!.eosIndex + 1)].every((id) => id === 0)).toBe(true);
  });

  test('too long: an error that counts, or a report of what was cut', () => {
    const prompt = `${'cat '.repeat(80)}dog`;
    expect(() => tokenize(prompt, { overflow: 'error' })).toThrow(/81 tokens but the encoder takes 75/);
    const { truncated, tokenCount } = tokenize(prompt, { overflow: 'truncate' });
    expect([tokenCount, truncated.ids.length, truncated.pieces.at(-1)]).toEqual([75, 6, 'dog</w>']);
  });

  test.each([
    { maxLength: 2 },
    { minLength: 99 },
    { minLength: NaN },
    { maxLength: 77.5 },
    { minLength: Infinity, maxLength: Infinity },
  ])('ERR_ARGUMENT for %j', (layout) =>
    expect(() => tokenize('a', layout)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' })),
  );

  test('the empty prompt’s row at any length', () => {
    expect([...emptyPromptChunk(clip, chunkLayout('clip-g'), 5).ids]).toEqual([BOS, EOS, 0, 0, 0]);
    expect([...emptyPromptChunk(t5, chunkLayout('t5'), 3).ids]).toEqual([1, 0, 0]);
  });
});

describe('A1111 chunks', () => {
  const cats = (count: number) => Array<number>(count).fill(2368);

  test('75 tokens a chunk; an empty prompt is one chunk', () => {
    expect(contents(tokenize('cat '.repeat(160)))).toEqual([cats(75), cats(75), cats(10)]);
    expect(contents(tokenize('cat '.repeat(75)))).toEqual([cats(75)]);
    expect(contents(tokenize(''))).toEqual([[]]);
    expect(tokenize('cat '.repeat(160)).chunks.every((chunk) => chunk.ids.length === 77)).toBe(true);
  });

  test('breaks after a comma at most 20 tokens back', () => {
    const prompt = (before: number, after: number) => `${'cat '.repeat(before)}, ${'cat '.repeat(after)}`;
    expect(contents(tokenize(prompt(60, 30))).map((ids) => ids.length)).toEqual([61, 30]);
    expect(contents(tokenize(prompt(54, 30))).map((ids) => ids.length)).toEqual([75, 10]); // 21 back
    expect(contents(tokenize(prompt(55, 30))).map((ids) => ids.length)).toEqual([56, 30]); // 20 back
    expect(contents(tokenize(prompt(60, 30), { commaBacktrack: 0 })).map((ids) => ids.length)).toEqual([
      75, 16,
    ]);
    expect(contents(tokenize(prompt(75, 5))).map((ids) => ids.length)).toEqual([75, 6]); // the comma starts a chunk
  });

  test('BREAK ends a chunk, even an empty one', () => {
    expect(contents(tokenize('cat BREAK (cat:1.2) BREAK'))).toEqual([cats(1), cats(1)]);
    expect(contents(tokenize('BREAK BREAK cat'))).toEqual([[], [], cats(1)]);
    const { chunks } = tokenize('cat BREAK (cat:1.2)');
    expect([chunks[0]!.weights[1], chunks[1]!.weights[1]]).toEqual([1, 1.2]);
    expect(contents(tokenize('cat BREAK cat', { overflow: 'truncate' }))).toEqual([cats(2)]);
    expect(contents(tokenize('cat BREAK cat', {}, 'plain'))).toHaveLength(1);
  });
});

describe('ComfyUI chunks', () => {
  const rules = 'comfyui';
  const lengths = (prompt: string) =>
    contents(tokenize(prompt, { rules }, 'comfyui')).map((ids) => ids.length);

  test('a group of eight tokens or more is split, a smaller one moves on whole', () => {
    expect(lengths('cat '.repeat(160))).toEqual([75, 75, 10]);
    expect(lengths(`${'cat '.repeat(70)}(${'dog '.repeat(7)}:1.2)`)).toEqual([70, 7]);
    expect(lengths(`${'cat '.repeat(70)}(${'dog '.repeat(8)}:1.2)`)).toEqual([75, 3]);
    expect(lengths(`${'cat '.repeat(70)}(${'dog '.repeat(5)}:1.2)`)).toEqual([75]);
    expect(lengths('')).toEqual([0]);
  });

  test('no comma rule and no BREAK', () => {
    expect(lengths(`${'cat '.repeat(60)}, ${'cat '.repeat(30)}`)).toEqual([75, 16]);
    expect(lengths('a BREAK b')).toEqual([3]);
  });
});

test('no rule loses, adds or reorders a token, or exceeds its capacity', () => {
  const random = seeded(21);
  for (let i = 0; i < 500; i++) {
    let next = 0;
    const group = (): WeightedToken[] =>
      Array.from({ length: Math.floor(random() * 30) }, () => ({ id: next++, piece: '', weight: 1 }));
    const groups = Array.from({ length: Math.floor(random() * 12) }, () => (random() < 0.1 ? null : group()));
    const capacity = 1 + Math.floor(random() * 40);
    const comma = Math.floor(random() * 50);
    for (const chunks of [packA1111(groups, capacity, comma, 20), packComfyui(groups, capacity)]) {
      expect(chunks.flat().map(({ id }) => id)).toEqual(Array.from({ length: next }, (_, id) => id));
      expect(chunks.every((chunk) => chunk.length <= capacity)).toBe(true);
      expect(chunks.length).toBeGreaterThan(0);
    }
  }
});

test('any prompt, family and rule: rows of one length, framed, within range; async alike', async () => {
  const random = seeded(5);
  for (let i = 0; i < 200; i++) {
    const text = randomText(random, 200);
    for (const [tokenizer, family] of [
      [clip, 'clip-l'],
      [clip, 'long-clip-l'],
      [t5, 't5'],
    ] as const) {
      const layout = chunkLayout(family, { rules: i % 2 ? 'comfyui' : 'a1111' });
      const { chunks } = tokenizePrompt(tokenizer, [[text, 1]], layout);
      expect(new Set(chunks.map(({ ids }) => ids.length)).size).toBe(1);
      for (const { ids, weights, pieces, eosIndex } of chunks) {
        expect(ids[eosIndex]).toBe(tokenizer.eosId);
        expect(ids.every((id) => id >= 0 && id < tokenizer.vocabularySize)).toBe(true);
        expect([weights.length, pieces.length]).toEqual([ids.length, ids.length]);
      }
      if (i % 20 === 0)
        expect((await tokenizePromptAsync(tokenizer, [[text, 1]], layout)).chunks).toEqual(chunks);
    }
  }
});

test('100,000 words in chunks', { timeout: 20_000 }, () => {
  for (const rules of ['a1111', 'comfyui'] as const) {
    expect(tokenize('cat '.repeat(100_000), { rules }, 'plain').chunks.length).toBe(1334);
  }
});
