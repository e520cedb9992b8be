import { describe, expect, test } from 'vitest';
import {
  BREAK,
  formatWeight,
  isBreak,
  parsePrompt,
  printPrompt,
  type WeightedText,
} from '../../src/text/index.js';
import { golden } from '../support/golden.js';
import { randomText, readJson, seeded, tokenizerGolden } from './samples.js';

type Expected = readonly WeightedText[] | { readonly error: string };

interface Case {
  readonly prompt: string;
  readonly a1111: Expected;
  readonly comfyui: Expected;
}

function check({ prompt, a1111, comfyui }: Case): void {
  for (const [dialect, expected] of [
    ['a1111', a1111],
    ['comfyui', comfyui],
  ] as const) {
    if ('error' in expected) {
      expect(() => parsePrompt(prompt, dialect), prompt).toThrow(
        expect.objectContaining({ code: 'ERR_ARGUMENT' }),
      );
    } else {
      expect(parsePrompt(prompt, dialect), `${dialect}: ${prompt}`).toEqual(expected);
    }
  }
}

const weights = tokenizerGolden('prompt_weights.json');

test.skipIf(!weights)(
  `40 prompts, both dialects${weights ? '' : ' (skipped: ../shared/golden/tokenizers is absent)'}`,
  () => {
    const { prompts } = readJson<{ prompts: Case[] }>(weights!);
    expect(prompts).toHaveLength(40);
    prompts.forEach(check);
  },
);

test('golden/diffusion/pipeline prompt_parse', () => {
  const { prompt_parse } = readJson<{ prompt_parse: { prompt: string; comfy: Expected; a1111: Expected }[] }>(
    golden('diffusion/pipeline/pipeline.json'),
  );
  expect(prompt_parse).toHaveLength(15);
  for (const { prompt, comfy, a1111 } of prompt_parse) check({ prompt, a1111, comfyui: comfy });
});

test('plain is text, whatever it holds', () => {
  expect(parsePrompt('(a:1.2) BREAK [b] \\(', 'plain')).toEqual([['(a:1.2) BREAK [b] \\(', 1]]);
});

describe('a1111', () => {
  test('BREAK is a word of its own, and only a neutral one breaks', () => {
    const parsed = parsePrompt('a  BREAK\nb (c BREAK d:1.2) BREAKFAST _BREAK éBREAK', 'a1111');
    expect(parsed.filter(isBreak)).toEqual([BREAK]);
    expect(parsed).toContainEqual(['BREAK', -1.2]);
    expect(parsed.at(-1)![0]).toBe(' BREAKFAST _BREAK éBREAK');
  });

  test.each(['(x:1.2.3)', '(x:.)', '(x:+)'])('%s is no number', (prompt) => {
    if (prompt === '(x:+)') expect(parsePrompt(prompt, 'a1111')).toEqual([['x:+', 1.1]]);
    else expect(() => parsePrompt(prompt, 'a1111')).toThrow(/expected a number but received/);
  });
});

describe('comfyui', () => {
  test('after an unmatched bracket, as many opening ones are text', () => {
    expect(parsePrompt(') (a) ((b:1.3))', 'comfyui')).toEqual([
      [') (a) (', 1],
      ['b', 1.3],
      [')', 1],
    ]);
  });

  test('any Python number is a weight, but a non-finite one is an error', () => {
    expect(parsePrompt('(a: 1_0.5e-1 )', 'comfyui')).toEqual([['a', 1.05]]);
    expect(() => parsePrompt('(a:inf)', 'comfyui')).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
  });
});

describe.each(['a1111', 'comfyui'] as const)('%s: properties', (dialect) => {
  const parse = (prompt: string): WeightedText[] | string => {
    try {
      return parsePrompt(prompt, dialect);
    } catch (error) {
      return (error as { code: string }).code;
    }
  };

  test('any text parses or is ERR_ARGUMENT, and what parses prints to a prompt that parses alike', () => {
    const random = seeded(dialect.length);
    let parsed = 0;
    for (let i = 0; i < 5000; i++) {
      const prompt = randomText(random, 30).replaceAll('\0', '');
      const result = parse(prompt);
      if (typeof result === 'string') expect(result, prompt).toBe('ERR_ARGUMENT');
      else {
        parsed++;
        expect(parsePrompt(printPrompt(result, dialect), dialect), JSON.stringify(prompt)).toEqual(result);
      }
    }
    expect(parsed).toBeGreaterThan(4500);
  });

  test.each([
    ['('.repeat(100_000)],
    [')'.repeat(100_000)],
    ['['.repeat(100_000)],
    ['('.repeat(50_000) + ')'.repeat(50_000)],
    ['(a'.repeat(33_000) + ')'.repeat(33_000)],
    ['(:1'.repeat(33_000)],
    [':1'.repeat(50_000)],
    [`a${' '.repeat(100_000)}BREAK`],
    ['\\'.repeat(100_000)],
    ['(a:1.1)'.repeat(14_000)],
  ])('100,000 characters, case %$: a result or ERR_ARGUMENT, in linear time', (prompt) => {
    const start = process.cpuUsage();
    const result = parse(prompt);
    if (typeof result === 'string') expect(result).toBe('ERR_ARGUMENT');
    expect(process.cpuUsage(start).user / 1e6).toBeLessThan(3);
  });
});

test.each([
  [1.1, '1.1'],
  [1e-7, '0.0000001'],
  [-2.5e-8, '-0.000000025'],
  [1.5e22, '15000000000000000000000'],
  [-1, '-1'],
])('formatWeight(%d)', (weight, text) => {
  expect(formatWeight(weight)).toBe(text);
  expect(Number(text)).toBe(weight);
});
