/** Ends of all kinds: of handles, devices, worker threads and the process, with work still queued. */
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { TextEncoder } from '../../src/pipeline/text_encoder.js';
import { golden } from '../support/golden.js';

const folder = dirname(fileURLToPath(import.meta.url));
const FILE = golden('encoders/t5_tiny_gguf/model.f16.gguf');

interface Ended {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
  seconds: number;
}

function run(program: string, flags: string[] = []): Promise<Ended> {
  const started = performance.now();
  const child = spawn(process.execPath, [
    ...flags,
    '--import',
    'tsx',
    join(folder, 'scripts.mts'),
    program,
    FILE,
  ]);
  const ended = { stdout: '', stderr: '' };
  child.stdout.on('data', (text) => (ended.stdout += String(text)));
  child.stderr.on('data', (text) => (ended.stderr += String(text)));
  return new Promise((resolve) =>
    child.on('close', (code, signal) =>
      resolve({ ...ended, code, signal, seconds: (performance.now() - started) / 1000 }),
    ),
  );
}

describe('in a process of its own', () => {
  test('process.exit with work queued', async () => {
    const ended = await run('exit');
    expect(ended).toMatchObject({ code: 7, signal: null, stderr: '' });
    expect(ended.seconds).toBeLessThan(20); // the queued work takes minutes
  });

  test('a script that ends with work queued', async () => {
    const ended = await run('end');
    expect(ended).toMatchObject({ code: 0, signal: null, stderr: '' });
    expect(ended.seconds).toBeLessThan(20);
  });

  test('devices and tensors that are garbage-collected while they work', async () => {
    expect(await run('collect', ['--expose-gc'])).toMatchObject({
      code: 0,
      signal: null,
      stdout: 'collected\n',
    });
  });

  test('worker threads terminated mid-encode', async () => {
    expect(await run('terminate')).toMatchObject({ code: 0, signal: null, stdout: '64\n', stderr: '' });
  });

  test('worker threads and the main thread at once give the same result', async () => {
    expect(await run('parallel')).toMatchObject({ code: 0, signal: null, stdout: '1\n', stderr: '' });
  });

  test('10,000 encodes with a flat resident set', { timeout: 240_000 }, async () => {
    const ended = await run('flat');
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const rss = JSON.parse(ended.stdout) as number[];
    const half = rss.slice(Math.ceil(rss.length / 2));
    expect(half.at(-1)! - half[0]!, `resident bytes ${rss.join(', ')}`).toBeLessThan(24 << 20);
  });
});

describe('an encoder', () => {
  test('disposed twice, used afterwards', async () => {
    const encoder = await TextEncoder.load(FILE);
    await encoder[Symbol.asyncDispose]();
    await encoder[Symbol.asyncDispose]();
    await expect(encoder.encode('late')).rejects.toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  });

  test('disposed while it encodes: the job fails, nothing else does', async () => {
    const encoder = await TextEncoder.load(FILE);
    await encoder.tokenizer();
    const job = encoder.encode(Array.from({ length: 64 }, (_, i) => `prompt ${i} `.repeat(50)));
    const outcome = expect(job.result).rejects.toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    await new Promise((resolve) => setTimeout(resolve, 10));
    await encoder[Symbol.asyncDispose]();
    await outcome;
  });

  test('concurrent encodes take turns; one aborted does not touch the others', async () => {
    await using encoder = await TextEncoder.load(FILE);
    const controller = new AbortController();
    const jobs = Array.from(
      { length: 8 },
      (_, i) => encoder.encode(`prompt ${i}`, i === 3 ? { signal: controller.signal } : {}).result,
    );
    controller.abort();
    const settled = await Promise.allSettled(jobs);
    expect(settled.map((s) => s.status === 'fulfilled')).toEqual([1, 1, 1, 0, 1, 1, 1, 1].map(Boolean));
    expect((settled[3] as PromiseRejectedResult).reason).toMatchObject({ code: 'ERR_CANCELLED' });
  });

  test('progress runs to the end and the result is there', async () => {
    await using encoder = await TextEncoder.load(FILE);
    const job = encoder.encode(['one', 'two longer prompt']);
    const seen = [];
    for await (const step of job.progress()) seen.push(step.done / step.total);
    expect(seen.at(-1)).toBe(1);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect((await job).map((e) => e.width)).toEqual([64, 64]);
  });
});
