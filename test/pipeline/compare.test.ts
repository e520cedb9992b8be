/** The comparison itself, on pictures whose distances are known beforehand. */
import { describe, expect, test } from 'vitest';
import { compareEncoders, type CompareColumn, type CompareProgress } from '../../src/pipeline/compare.js';
import { chosenEncoders } from '../../src/pipeline/conditioning/encoder_widths.js';
import { compareGrid } from '../../src/pipeline/compare_grid.js';
import { seedNoise } from '../../src/pipeline/compare_noise.js';
import { fakePipeline } from '../support/fake_pipeline.js';

const column = (path: string): CompareColumn => ({ label: path, encoders: { t5: { path } } });
const steps: Readonly<Record<string, number>> = { a: 0, b: 3, c: 20 };
const encoderStep = (path: string): number => steps[path] ?? 0;

describe('distances', () => {
  test('from the first column, at the same prompt and seed', async () => {
    const pipeline = fakePipeline({ seedStep: 4, encoderStep });
    const result = await compareEncoders(pipeline, {
      prompts: ['one', 'another'],
      seeds: [1, 2, 5],
      columns: ['a', 'b', 'c'].map(column),
    });
    expect(result.rows.map(({ prompt, seed }) => [prompt, seed])).toEqual([
      ['one', 1n],
      ['one', 2n],
      ['one', 5n],
      ['another', 1n],
      ['another', 2n],
      ['another', 5n],
    ]);
    for (const { cells } of result.rows)
      expect(cells.map(({ distance }) => Math.round(distance.mae * 1000) / 1000)).toEqual([0, 3, 20]);
    // seeds 1, 2 and 5: neighbours differ by 4 and 12 in each of three columns
    expect(result.seedNoise.map((noise) => noise?.median.mae)).toEqual([8, 8]);
    expect(result.seedNoise.map((noise) => noise?.pairs)).toEqual([6, 6]);
    for (const { cells } of result.rows)
      expect(cells.map(({ belowSeedNoise }) => belowSeedNoise)).toEqual([true, true, false]);
  });

  test('a file compared with itself is exactly 0', async () => {
    const result = await compareEncoders(fakePipeline(), {
      prompts: ['one'],
      columns: [column('a'), column('a')],
    });
    const [, same] = result.rows[0]!.cells;
    expect(same!.distance).toEqual({ mae: 0, psnr: Infinity, ssim: 1 });
    expect(same!.conditioning).toEqual({
      t5: { relativeL2: 0, worstCosine: 1 },
      clip_l: { relativeL2: 0, worstCosine: 1 },
    });
  });

  test('a small thing that appears is no noise, however little it changes the mean', async () => {
    const pipeline = fakePipeline({ seedStep: 20, boxed: (path) => path === 'b' });
    const result = await compareEncoders(pipeline, {
      prompts: ['one'],
      seeds: [1, 2],
      columns: ['a', 'b'].map(column),
    });
    const [, boxed] = result.rows[0]!.cells;
    expect(boxed!.distance.mae).toBeLessThan(result.seedNoise[0]!.median.mae);
    expect(boxed!.belowSeedNoise).toBe(false);
  });

  test('of embeddings: none where the lengths differ', async () => {
    const pipeline = fakePipeline({ encoderStep, tokens: (path) => (path === 'b' ? 4 : 3) });
    const result = await compareEncoders(pipeline, {
      prompts: ['one'],
      columns: ['a', 'b', 'c'].map(column),
    });
    const [, b, c] = result.rows[0]!.cells;
    expect(b!.conditioning.t5).toBe(null);
    expect(c!.conditioning.t5!.relativeL2).toBeCloseTo(20, 5);
    expect(c!.conditioning.clip_l!.relativeL2).toBe(0);
  });
});

describe('work', () => {
  test('encodes are distinct encoder × prompt, not cells; an encoder’s cells come together', async () => {
    const pipeline = fakePipeline();
    const result = await compareEncoders(pipeline, {
      prompts: ['one', 'another'],
      seeds: [1, 2, 3],
      columns: [column('a'), column('b'), column('a')],
    });
    expect(result.pictures).toBe(18);
    expect(result.encodes).toBe(2 * 2 + 2); // two T5s and one CLIP, two prompts
    const paths = pipeline.calls.map(({ options }) => chosenEncoders({}, options.encoders).t5!.path);
    expect(paths.join('')).toBe('a'.repeat(6) + 'b'.repeat(6) + 'a'.repeat(6));
  });

  test('one seed: one picture more of the reference for each prompt, shown nowhere', async () => {
    const pipeline = fakePipeline({ seedStep: 5 });
    const options = { prompts: ['one', 'another'], seeds: [7], columns: [column('a'), column('b')] };
    const result = await compareEncoders(pipeline, options);
    expect(pipeline.calls.map(({ options: { seed } }) => seed)).toEqual([7n, 8n, 7n, 8n, 7n, 7n]);
    expect(result.rows.map(({ seed }) => seed)).toEqual([7n, 7n]);
    expect(result.seedNoise[0]).toMatchObject({ median: { mae: 5 }, pairs: 1 });
    const without = await compareEncoders(fakePipeline(), { ...options, seedNoise: 'given' });
    expect(without.pictures).toBe(4);
    expect(without.seedNoise).toEqual([null, null]);
    expect(without.rows[0]!.cells[1]!.belowSeedNoise).toBe(null);
  });

  test('the sampler’s options reach every cell', async () => {
    const pipeline = fakePipeline();
    const columns = [column('a'), column('b')];
    await compareEncoders(pipeline, { prompts: ['one'], columns, steps: 9, sampler: 'heun', cfg: 2 });
    for (const { options } of pipeline.calls)
      expect(options).toMatchObject({ steps: 9, sampler: 'heun', cfg: 2 });
  });

  test('progress counts pictures and names the cell', async () => {
    const job = compareEncoders(fakePipeline(), { prompts: ['one'], columns: [column('a'), column('b')] });
    const seen: CompareProgress[] = [];
    for await (const progress of job.progress()) seen.push(progress);
    await job;
    expect(new Set(seen.map(({ total }) => total))).toEqual(new Set([3]));
    expect(seen.map(({ done }) => done)).toEqual([...seen.map(({ done }) => done)].sort());
    expect(seen.at(-1)).toMatchObject({
      done: 2,
      column: { label: 'b' },
      generate: { detail: 'step 1 of 2' },
    });
  });

  test('an abort ends it after the picture under way', async () => {
    const abort = new AbortController();
    const pipeline = fakePipeline();
    const job = compareEncoders(pipeline, {
      prompts: ['one'],
      seeds: [1, 2, 3],
      columns: [column('a'), column('b')],
      signal: abort.signal,
    });
    abort.abort(new Error('enough'));
    await expect(job.result).rejects.toThrow('enough');
    expect(pipeline.calls.length).toBe(1);
  });
});

describe('what is refused', () => {
  const columns = [column('a')];
  test.each([
    ['no prompt', { prompts: [], columns }, /at least one prompt/],
    ['no column', { prompts: ['x'], columns: [] }, /column/],
    ['no seed', { prompts: ['x'], columns, seeds: [] }, /seed/],
    ['half a seed', { prompts: ['x'], columns, seeds: [0.5] }, /whole numbers.*0\.5/],
    ['a seed twice', { prompts: ['x'], columns, seeds: [1, 1n] }, /1 twice/],
  ])('%s', async (_, options, message) => {
    await expect(compareEncoders(fakePipeline(), options).result).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(message) as string,
    });
  });
});

describe('the grid', () => {
  test('has a place for every cell, larger with every axis', async () => {
    const draw = async (prompts: string[], seeds: number[], paths: string[]) =>
      compareGrid(await compareEncoders(fakePipeline(), { prompts, seeds, columns: paths.map(column) }));
    const small = await draw(['one'], [1], ['a', 'b']);
    const wide = await draw(['one'], [1], ['a', 'b', 'c']);
    const seeds = await draw(['one'], [1, 2], ['a', 'b']);
    expect(wide.width - small.width, 'an encoder is a column').toBeGreaterThanOrEqual(160);
    expect(seeds.height - small.height, 'a seed is a row').toBeGreaterThanOrEqual(160);
    const both = await draw(['one', 'two'], [1, 2], ['a', 'b']);
    expect(both.width - small.width, 'with several prompts seeds are columns').toBeGreaterThanOrEqual(
      2 * 160,
    );
    expect(both.height - small.height, 'and prompts rows').toBeLessThan(2 * 250);
    const many = await draw(['one', 'two'], [1, 2, 3, 4], ['a', 'b']);
    expect(many.height - small.height, 'as long as they fit').toBeGreaterThanOrEqual(7 * 160);
  });

  test('of very large pictures stays of a size that can be opened', async () => {
    const pipeline = fakePipeline({ side: 640 });
    const result = await compareEncoders(pipeline, { prompts: ['one'], columns: [column('a'), column('a')] });
    const whole = compareGrid(result);
    expect(whole.width).toBeGreaterThan(2 * 640);
    const reduced = compareGrid(result, { mostPixels: 2 * 320 * 320 });
    expect(reduced.width).toBeGreaterThan(2 * 320);
    expect(reduced.width).toBeLessThan(2 * 400);
  });
});

test('seed noise needs two seeds, and takes neighbours', async () => {
  const grey = (value: number) => ({ width: 16, height: 16, rgb: new Uint8Array(768).fill(value) });
  expect(await seedNoise([[grey(1)], [grey(2)]])).toBe(null);
  const noise = await seedNoise([[grey(0), grey(1), grey(3), grey(3)]]);
  expect(noise).toMatchObject({ pairs: 3, median: { mae: 1 } });
  expect(await seedNoise([[grey(5), grey(5)]])).toMatchObject({
    median: { mae: 0, psnr: Infinity, ssim: 1 },
  });
});
