/** Pictures under way when something ends: a request, a pipeline, a device, a thread, the process. */
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { seededRandom } from '../../bench/fuzz/mutate.js';
import {
  Device,
  ImagePipeline,
  SHIPPED_T5,
  shippedModel,
  type GenerateJob,
  type GenerateOptions,
  type Picture,
} from '../../src/index.js';
import { outcomeOf } from './scratch.js';

vi.setConfig({ testTimeout: 240_000 }); // seconds on a quiet machine

const kScripts = join(dirname(fileURLToPath(import.meta.url)), 'image_scripts.mts');
const SMALL: GenerateOptions = { seed: 1, width: 32, height: 32, steps: 2 };

const unhandled: unknown[] = [];
const note = (reason: unknown): unknown => unhandled.push(reason);
beforeAll(() => void process.on('unhandledRejection', note));
afterAll(() => {
  process.off('unhandledRejection', note);
  expect(unhandled).toEqual([]);
});

async function draw(pipeline: ImagePipeline, options = SMALL, prompt = 'a red circle'): Promise<Picture> {
  return (await pipeline.generate(prompt, options)).pictures[0]!.picture;
}

async function abortAfter(job: GenerateJob, states: number, controller: AbortController): Promise<void> {
  let seen = 0;
  for await (const _ of job.progress()) if (seen++ === states) controller.abort();
  controller.abort();
}

describe.each(['keep', 'lean'] as const)('%s', (residency) => {
  test('aborted at random moments: cancelled or done, and the next picture is the same', async () => {
    await using pipeline = await ImagePipeline.load(shippedModel(), { residency, threads: 2 });
    const expected = await draw(pipeline);
    const options = { ...SMALL, width: 64, height: 64, steps: 4, count: 2, preview: true };
    const started = performance.now();
    await draw(pipeline, options, 'how long');
    const whole = performance.now() - started;
    const random = seededRandom(3);
    const codes: Record<string, number> = {};
    for (let i = 0; i < 60; i++) {
      const controller = new AbortController();
      const job = pipeline.generate(`a red circle ${i}`, { ...options, signal: controller.signal });
      // Half of them by the clock, half by how far it is.
      if (i % 2) setTimeout(() => controller.abort(), random() * whole);
      else void abortAfter(job, Math.floor(random() * 24), controller);
      const { code } = await outcomeOf(() => job.result);
      codes[code] = (codes[code] ?? 0) + 1;
      if (i % 10 === 9) expect(await draw(pipeline), `after ${i + 1}`).toEqual(expected);
    }
    expect(Object.keys(codes).sort().join()).toMatch(/^ERR_CANCELLED(,ok)?$/);
    expect(codes['ERR_CANCELLED']).toBeGreaterThan(10);
  });

  test('requests at once, each with other encoders, some aborted', async () => {
    await using pipeline = await ImagePipeline.load(shippedModel(), { residency, threads: 2 });
    const t5s = [
      SHIPPED_T5.t5(),
      SHIPPED_T5['flan-t5'](),
      { ...SHIPPED_T5.t5(), precision: 'int8' as const },
    ];
    const alone: Picture[] = [];
    for (const t5 of t5s) alone.push(await draw(pipeline, { ...SMALL, encoders: { t5 } }, 'a blue star'));
    const controller = new AbortController();
    const jobs = Array.from({ length: 12 }, (_, i) => {
      const encoders = { t5: t5s[i % 3]! };
      const signal = i % 4 === 1 ? { signal: controller.signal } : {};
      return pipeline.generate('a blue star', { ...SMALL, encoders, ...signal }).result;
    });
    setTimeout(() => controller.abort(), 5);
    for (const [i, settled] of (await Promise.allSettled(jobs)).entries())
      if (settled.status === 'fulfilled')
        expect(settled.value.pictures[0]!.picture, `request ${i}`).toEqual(alone[i % 3]);
      else
        expect({ i, code: (settled.reason as { code: string }).code }).toMatchObject({
          code: 'ERR_CANCELLED',
        });
  });

  test('disposed while requests run and wait: they end, and no other begins', async () => {
    const pipeline = await ImagePipeline.load(shippedModel(), { residency, threads: 2 });
    const jobs = [1, 2, 3].map((seed) =>
      outcomeOf(() => pipeline.generate('a red circle', { ...SMALL, seed })),
    );
    await new Promise((resolve) => setTimeout(resolve, 5));
    const disposed = pipeline[Symbol.asyncDispose]();
    expect(await outcomeOf(() => pipeline.generate('late', SMALL))).toMatchObject({ code: 'ERR_DISPOSED' });
    for (const { code } of await Promise.all(jobs)) expect(code).toBe('ok');
    await disposed;
    await pipeline[Symbol.asyncDispose]();
  });

  test('aborted and disposed in one breath', async () => {
    for (let i = 0; i < 10; i++) {
      const pipeline = await ImagePipeline.load(shippedModel(), { residency, threads: 1 });
      const controller = new AbortController();
      const options = { ...SMALL, steps: 20, preview: true, signal: controller.signal };
      const outcome = outcomeOf(() => pipeline.generate(`a red circle ${i}`, options));
      await new Promise((resolve) => setTimeout(resolve, 8 * i));
      controller.abort();
      await pipeline[Symbol.asyncDispose]();
      expect((await outcome).code).toMatch(/^(ok|ERR_CANCELLED)$/);
    }
  });
});

describe('a device', () => {
  test('under two pipelines: both draw what each draws alone', async () => {
    await using device = Device.open('cpu', { threads: 2 });
    await using one = await ImagePipeline.load(shippedModel(), { device, residency: 'lean' });
    await using other = await ImagePipeline.load(shippedModel(), { device, precision: 'int8' });
    const expected = [await draw(one), await draw(other)];
    const prompts = ['a red circle', 'a red circle', 'a green ring', 'a red circle'];
    const both = prompts.flatMap((prompt) => [draw(one, SMALL, prompt), draw(other, SMALL, prompt)]);
    const drawn = await Promise.all(both);
    expect([drawn[0], drawn[1]]).toEqual(expected);
    expect([drawn[6], drawn[7]]).toEqual(expected);
    const late = draw(one, { ...SMALL, steps: 20 });
    await other[Symbol.asyncDispose]();
    expect((await late).width).toBe(32);
  });

  test('closed under a pipeline that samples: a coded error, soon', async () => {
    for (const delay of [0, 3, 10, 30, 60]) {
      const device = Device.open('cpu', { threads: 1 });
      const pipeline = await ImagePipeline.load(shippedModel(), { device });
      const job = outcomeOf(() => pipeline.generate('a red circle', { ...SMALL, steps: 500 }));
      await new Promise((resolve) => setTimeout(resolve, delay));
      device.close();
      expect((await job).code).toMatch(/^ERR_(DISPOSED|CANCELLED|DEVICE)$/);
      await pipeline[Symbol.asyncDispose]();
    }
  });
});

describe('in a process of its own', () => {
  function run(program: string) {
    const started = performance.now();
    const child = spawn(process.execPath, [
      '--unhandled-rejections=strict',
      '--import',
      'tsx',
      kScripts,
      program,
    ]);
    const text = { stdout: '', stderr: '' };
    child.stdout.on('data', (part) => (text.stdout += String(part)));
    child.stderr.on('data', (part) => (text.stderr += String(part)));
    return new Promise<{
      code: number | null;
      signal: string | null;
      stdout: string;
      stderr: string;
      seconds: number;
    }>((resolve) =>
      child.on('close', (code, signal) =>
        resolve({ ...text, code, signal, seconds: (performance.now() - started) / 1000 }),
      ),
    );
  }

  test.each<[string, number, string]>([
    ['exit', 7, ''],
    ['end', 0, ''],
    ['abandoned', 0, 'over\n'],
    ['parallel', 0, '1\n'],
    ['terminate', 0, 'true\n'],
  ])('%s', async (program, code, stdout) => {
    expect(await run(program)).toMatchObject({ code, signal: null, stdout, stderr: '' });
  });

  test('200 pictures with a flat resident set', async () => {
    const ended = await run('flat');
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const rss = JSON.parse(ended.stdout) as number[];
    const half = rss.slice(Math.ceil(rss.length / 2));
    expect(half.at(-1)! - half[0]!, `resident bytes ${rss.join(', ')}`).toBeLessThan(24 << 20);
  });
});
