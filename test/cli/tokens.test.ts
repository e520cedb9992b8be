/** `kotoba tokens`: the same ids as the tokenizers, and lines that show every border. */
import { describe, expect, test } from 'vitest';
import { golden } from '../support/golden.js';
import { writeRandomClip } from '../support/random_clip.js';
import { run, temporaryFolder } from './run.js';

const folder = temporaryFolder();
const spiece = golden('encoders/t5_tiny_gguf/spiece.model');

interface SplitJson {
  prompt: string;
  family: string;
  tokens: number;
  chunks: { ids: number[]; weights: number[]; pieces: string[]; contentLength: number; padding: number }[];
  truncated: { ids: number[] };
}

async function splits(...args: string[]): Promise<SplitJson[]> {
  const { code, json, stderr } = await run(['tokens', ...args, '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return (json() as { splits: SplitJson[] }).splits;
}

test('CLIP: words, joined pieces, padding', async () => {
  const { code, stdout } = await run(['tokens', 'A photorealistic  sparrow']);
  expect(code).toBe(0);
  expect(stdout).toContain('clip-l  4 tokens in 1 chunk, 77 with start, end and padding');
  expect(stdout).toContain('<|startoftext|> a photo·realistic sparrow <|endoftext|> +71×<|endoftext|>');
});

test('weights, chunks at BREAK, and the ids behind them', async () => {
  const args = ['a (sparrow on:1.3) BREAK [hand]', '--dialect', 'a1111'];
  const { stdout } = await run(['tokens', ...args]);
  expect(stdout).toMatch(/chunk 1: 3 of 75\n.* a sparrow on×1\.3 <\|endoftext\|>/);
  expect(stdout).toMatch(/chunk 2: 1 of 75\n.* hand×0\.909091 <\|endoftext\|>/);
  const [split] = await splits(...args);
  expect(split!.chunks.map(({ ids }) => ids.slice(0, 5))).toEqual([
    [49406, 320, 22888, 525, 49407],
    [49406, 2463, 49407, 49407, 49407],
  ]);
  expect(split!.chunks[0]!.weights.slice(0, 5)).toEqual([1, 1, 1.3, 1.3, 1]);
});

test('plain is the default: brackets are text', async () => {
  const [split] = await splits('(a:1.3)');
  expect(new Set(split!.chunks[0]!.weights)).toEqual(new Set([1]));
  expect(split!.tokens).toBeGreaterThan(3);
});

test('T5 from a file, from a GGUF, and its golden ids', async () => {
  const { readFileSync } = await import('node:fs');
  const expected = JSON.parse(
    readFileSync(golden('encoders/t5_tiny_gguf/tokenizer_expected.json'), 'utf8'),
  ) as Record<string, number[]> | { text: string; ids: number[] }[];
  const pairs = Array.isArray(expected)
    ? expected.map(({ text, ids }) => [text, ids] as const)
    : Object.entries(expected);
  const [text, ids] = pairs.find(([prompt]) => prompt.length > 5)!;
  const gguf = golden('encoders/t5_tiny_gguf/model.f32.gguf');
  for (const source of [
    ['--t5-tokenizer', spiece],
    ['--t5', gguf],
  ]) {
    const found = await splits(text, '--family', 't5', ...source);
    expect(found.map(({ family }) => family)).toEqual(['t5']);
    expect(found[0]!.chunks[0]!.ids).toEqual(ids);
  }
});

describe('what is cut', () => {
  test('is shown', async () => {
    const args = ['hello there', '--family', 't5', '--t5-tokenizer', spiece, '--t5-length', '3'];
    const [split] = await splits(...args);
    expect(split!.truncated.ids.length).toBeGreaterThan(0);
    expect((await run(['tokens', ...args])).stdout).toContain(
      `cut off: ${split!.truncated.ids.length} tokens`,
    );
  });

  test('is an error where asked', async () => {
    const args = ['word '.repeat(100), '--overflow', 'error'];
    expect(await run(['tokens', ...args])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('100 tokens') as string,
    });
  });
});

test('--ids: a line for each token', async () => {
  const { stdout } = await run(['tokens', 'a sparrow', '--ids', '--family', 'clip-g']);
  expect(stdout).toMatch(/ 2 +22888 +sparrow<\/w> +sparrow\n/);
  expect(stdout).toContain('and 73 times 0 !');
});

test('several prompts from stdin, each named; control characters shown', async () => {
  const { stdout } = await run(['tokens', '-'], { stdin: 'one\ntwo \x1b[2J\n' });
  expect(stdout).toContain('  one\n');
  expect(stdout).toContain('  two \\u001b[2J\n');
  expect(stdout).not.toContain('\x1b');
});

test('T5 without a vocabulary, an unknown family', async () => {
  expect(await run(['tokens', 'x', '--family', 't5'])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('ERR_TOKENIZER_MISSING') as string,
  });
  expect(await run(['tokens', 'x', '--family', 'bert'])).toMatchObject({ code: 2 });
});

describe('as a program reads prompts for a model', () => {
  const prompt = 'a (sparrow:1.3) on a hand BREAK soft light';
  const t5 = ['--t5-tokenizer', spiece];

  interface ContextJson {
    rows: number | null;
    clipRows: number;
    t5Rows: number | null;
    lost: Record<string, number>;
  }
  async function contexts(text: string, ...args: string[]): Promise<ContextJson[]> {
    const { json } = await run(['tokens', text, ...args, '--json']);
    return (json() as { contexts: ContextJson[] }).contexts;
  }

  test.each([
    ['sd1', 'clip-l'],
    ['sd2', 'clip-h'],
    ['sdxl', 'clip-l clip-g'],
    ['sdxl-refiner', 'clip-g'],
    ['sd3', 'clip-l clip-g t5'],
    ['flux-dev', 'clip-l t5'],
  ])('%s has %s', async (model, families) => {
    const given = families.includes('t5') ? t5 : [];
    expect((await splits(prompt, '--for', model, ...given)).map(({ family }) => family).join(' ')).toBe(
      families,
    );
  });

  test('weights, chunks and padding are the profile’s; what is asked for outranks it', async () => {
    const chunks = async (...args: string[]) => {
      const [split] = await splits(prompt, '--for', 'sdxl', ...args);
      return split!.chunks.map(({ weights }) => Math.max(...weights));
    };
    expect(await chunks('--profile', 'a1111')).toEqual([1.3, 1]);
    expect(await chunks()).toEqual([1.3]);
    expect(await chunks('--profile', 'diffusers')).toEqual([1]);
    expect(await chunks('--profile', 'diffusers', '--dialect', 'comfyui')).toEqual([1.3]);
    expect(await splits('word '.repeat(90), '--profile', 'bfl')).toMatchObject([
      { tokens: 75, truncated: { ids: { length: 15 } } },
    ]);
    expect(await splits('word '.repeat(90), '--profile', 'bfl', '--overflow', 'chunk')).toMatchObject([
      { tokens: 90, truncated: { ids: [] } },
    ]);
  });

  test('T5 lengths', async () => {
    const rows = async (...args: string[]) => (await contexts('a cat', ...t5, '--for', ...args))[0]!.t5Rows;
    expect(await rows('flux-dev')).toBe(512);
    expect(await rows('flux-schnell')).toBe(256);
    expect(await rows('flux-schnell', '--profile', 'diffusers')).toBe(512);
    expect(await rows('sd3', '--profile', 'diffusers')).toBe(256);
    expect(await rows('sd3', '--profile', 'diffusers', '--t5-length', '20')).toBe(20);
    expect((await contexts(prompt, ...t5, '--for', 'sd3', '--profile', 'a1111'))[0]).toMatchObject({
      rows: 308,
      clipRows: 154,
      t5Rows: 154,
    });
  });

  test('rows together, with Long-CLIP-L, without T5, and what has no effect', async () => {
    const long = 'word '.repeat(100);
    expect(await contexts(long, '--for', 'sdxl', '--family', 'long-clip-l')).toEqual([
      { prompt: long, rows: 154, clipRows: 154, t5Rows: 0, lost: {} },
    ]);
    expect(await contexts('a', '--for', 'sd3', '--profile', 'diffusers')).toMatchObject([
      { rows: 154, t5Rows: null },
    ]);
    expect(await contexts(long, '--for', 'flux-dev', '--profile', 'comfy')).toMatchObject([
      { rows: null, lost: { 'clip-l': 25 } },
    ]);
    const { stdout } = await run(['tokens', long, '--for', 'flux-dev', ...t5]);
    expect(stdout).toContain('together  512 rows attended to: t5 512\n');
    expect(stdout).toContain('  clip-l: only the vector of its first chunk is used\n');
    expect(stdout).toContain('  clip-l: 25 tokens without effect\n');
    const bare = await run(['tokens', 'a', '--for', 'sd3', '--profile', 'bfl']);
    expect(bare.stdout).toContain(
      '154 rows attended to: clip-l ⊕ clip-g 77\n  t5: none given, 77 rows of zeros',
    );
  });

  test('two prompts: each one’s encoders stand together', async () => {
    const found = await splits('one', 'two', '--for', 'sdxl');
    expect(found.map(({ prompt: text, family }) => `${text} ${family}`)).toEqual([
      'one clip-l',
      'one clip-g',
      'two clip-l',
      'two clip-g',
    ]);
    expect(await contexts('one', 'two', '--for', 'sdxl')).toHaveLength(2);
  });

  test('a file’s own vocabulary and length; an encoder that the model does not take', async () => {
    const path = await writeRandomClip(folder.join('long.safetensors'), { width: 8, positions: 120 });
    const [left] = await splits('a cat', '--for', 'sdxl', '--clip-l', path);
    expect([left!.family, left!.chunks[0]!.ids.length]).toEqual(['long-clip-l', 120]);
    const tiny = golden('encoders/clip_g_tiny/model.safetensors');
    expect(await run(['tokens', 'a', '--clip-g', tiny])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('ERR_TOKENIZER_MISSING') as string,
    });
    expect(await run(['tokens', 'a', '--for', 'sd1', '--clip-g', tiny])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('SD1 takes clip-l, got clip-g') as string,
    });
    expect(await run(['tokens', 'a', '--for', 'sd9'])).toMatchObject({ code: 2 });
  });
});

test('on a terminal every line fits it', async () => {
  const prompt = 'a sparrow on a hand, 雀が女の子の手に, photorealistic '.repeat(5);
  const { stdout } = await run(['tokens', prompt], { terminal: 70 });
  const lines = stdout.replace(/\x1b\[[\d;]*m/g, '').split('\n');
  const pieces = lines.filter((line) => line.startsWith('    ') && !/<0x/.test(line));
  expect(pieces.length).toBeGreaterThan(1);
  for (const line of pieces) expect(line.length).toBeLessThanOrEqual(70);
});
