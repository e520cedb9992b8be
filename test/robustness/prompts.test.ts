/** Prompts nobody would write, through whole encoders with full vocabularies: right results, in time. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TextEncoder, type EncodeOptions, type Encoding } from '../../src/index.js';
import { golden } from '../support/golden.js';
import { writeRandomClip } from '../support/random_clip.js';
import { outcomeOf, useScratch } from './scratch.js';

const scratch = useScratch();
const encoders = new Map<string, TextEncoder>();
beforeAll(async () => {
  const clip = await writeRandomClip(join(scratch.dir, 'clip.safetensors'), { projection: 16 });
  encoders.set('clip', await TextEncoder.load(clip, { threads: 2 }));
  encoders.set('t5', await TextEncoder.load(golden('encoders/t5_tiny_gguf/model.f16.gguf'), { threads: 2 }));
});
afterAll(async () => {
  for (const encoder of encoders.values()) await encoder[Symbol.asyncDispose]();
});

async function encode(family: string, prompt: string, options: EncodeOptions = {}): Promise<Encoding> {
  const encoding = await encoders.get(family)!.encode(prompt, options);
  expect(encoding.hidden.length).toBe(encoding.tokens * encoding.width);
  for (const values of [encoding.hidden, encoding.pooled, encoding.projected])
    expect(values?.every((value) => Number.isFinite(value))).not.toBe(false);
  return encoding;
}

const ids = ({ prompt }: Encoding) => prompt.chunks.flatMap((chunk) => [...chunk.ids]);

describe('nothing to encode', () => {
  test.each(['', ' ', '\n\t \r', '\0', '\0\0 \0'])('CLIP: %j is the empty prompt', async (prompt) => {
    const { tokens, hidden, pooled } = await encode('clip', prompt);
    expect(tokens).toBe(77);
    const empty = await encode('clip', '');
    expect(hidden).toEqual(empty.hidden);
    expect(pooled).toEqual(empty.pooled);
  });

  test.each(['', ' ', '     '])('T5: %j is one end of text', async (prompt) => {
    expect(ids(await encode('t5', prompt))).toEqual([1]);
  });

  test('an empty batch', async () => {
    for (const encoder of encoders.values()) expect(await encoder.encode([])).toEqual([]);
  });

  test.each(['a1111', 'comfyui'] as const)(
    '%s: brackets, weights and BREAK around nothing',
    async (dialect) => {
      for (const prompt of [
        '()',
        '(:1.3)',
        '((((',
        '[[]]',
        ')',
        '(((',
        'BREAK',
        'BREAK BREAK',
        '(:nan)',
        '\\(',
        '(a:0)',
      ])
        for (const family of encoders.keys()) {
          const { code } = await outcomeOf(() => encode(family, prompt, { dialect }));
          expect(code, `${family} ${prompt}`).toMatch(/^(ok|ERR_ARGUMENT)$/);
        }
    },
  );
});

describe('odd characters', () => {
  test.each(['clip', 't5'])('%s: a lone surrogate reads as U+FFFD', async (family) => {
    for (const prompt of ['a \ud83d cat', '\udc00', 'x\ud800', '\ud800\ud800 dog'])
      expect(ids(await encode(family, prompt)), prompt).toEqual(
        ids(await encode(family, prompt.replace(/[\ud800-\udfff]/g, '\ufffd'))),
      );
  });

  test.each(['clip', 't5'])('%s: controls, joiners, right-to-left, combining marks', async (family) => {
    const prompts = [
      'a\0b',
      '\u202eabc',
      '\u200d\u200b',
      `e${'\u0301'.repeat(500)}`,
      '👨‍👩‍👧‍👦🏴󠁧󠁢󠁳󠁣󠁴󠁿',
      '\ufeffcat',
      '﷽',
      '\x7f\x1b[31m',
    ];
    for (const prompt of prompts) await encode(family, prompt);
    const batch = await encoders.get(family)!.encode(prompts);
    for (const [i, prompt] of prompts.entries())
      expect(ids(batch[i]!)).toEqual(ids(await encode(family, prompt)));
  });

  test.each(['clip', 't5'])('%s: special tokens written out', async (family) => {
    for (const prompt of ['</s>', '<pad>', '<unk>', '<extra_id_0>', '<|startoftext|>', '<|endoftext|>', '<|'])
      await encode(family, prompt);
  });

  test('a prompt that is no string', async () => {
    for (const prompt of [undefined, null, 5, {}, [null]])
      for (const encoder of encoders.values()) {
        const { code } = await outcomeOf(() => encoder.encode(prompt as unknown as string));
        expect(code, String(prompt)).toBe('ERR_ARGUMENT');
      }
  });
});

// CPU time on loaded machines: bounds are loose, a quadratic step would take minutes.
describe('100,000 characters', () => {
  const kLong: [string, string][] = [
    ['words', 'the quick brown fox jumps, '.repeat(3704)],
    ['one word', 'a'.repeat(100_000)],
    ['blanks', ' '.repeat(100_000)],
    ['brackets', '('.repeat(100_000)],
    ['emoji', '🏴󠁧󠁢󠁳󠁣󠁴󠁿'.repeat(7143)],
    ['no spaces', '漢字'.repeat(50_000)],
    ['lone surrogates', '\ud83d'.repeat(100_000)],
  ];

  test.each(kLong)('CLIP, in chunks of 77: %s', async (_, prompt) => {
    const { tokens, prompt: tokenized } = await encode('clip', prompt);
    expect(tokens).toBe(77 * tokenized.chunks.length);
    expect(tokenized.chunks.length).toBeGreaterThanOrEqual(tokenized.tokenCount / 75);
    expect(tokenized.truncated.ids).toEqual([]);
  });

  test.each(kLong)('T5, cut to 512: %s', async (_, prompt) => {
    const { tokens, prompt: tokenized } = await encode('t5', prompt, { layout: { t5Length: 'flux-dev' } });
    expect(tokens).toBe(512);
    expect(tokenized.tokenCount).toBeLessThanOrEqual(511);
  });

  test.each(['a1111', 'comfyui'] as const)('%s: nested weights', async (dialect) => {
    const layout = { t5Length: 'sd3' } as const;
    for (const prompt of [
      `${'('.repeat(50_000)}${')'.repeat(50_000)}`,
      '(a:1.1)'.repeat(14_286),
      '[a]'.repeat(33_334),
    ])
      expect((await outcomeOf(() => encode('t5', prompt, { dialect, layout }))).code).toMatch(
        /^(ok|ERR_ARGUMENT)$/,
      );
  });

  test('T5 without a length takes it whole, and can be stopped', async () => {
    const signal = AbortSignal.timeout(300);
    const prompt = 'the quick brown fox jumps, '.repeat(3704);
    const started = performance.now();
    const { code } = await outcomeOf(() => encoders.get('t5')!.encode(prompt, { signal }));
    expect(code).toMatch(/^(ERR_CANCELLED|ok)$/);
    expect(performance.now() - started).toBeLessThan(15_000);
  });
});
