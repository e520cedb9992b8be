import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  PHASES,
  formatGenerateResult,
  runGenerateBench,
  type GenerateBenchOptions,
} from '../../bench/generate.js';
import { makeImageModel } from '../../bench/image_files.js';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';

/** The smallest program that speaks the protocol: grey pictures, and what is wrong by the name of the first argument. */
const speaker = `
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
const say = (answer) => console.log(JSON.stringify(answer));
const fault = process.argv[2];
const option = (name) => process.argv[process.argv.indexOf('--' + name) + 1];
if (option('kind') !== 'generate') throw new Error('no such kind');
say({ event: 'ready', rss_peak: 1 });
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'quit') break;
  const path = line.slice('run '.length);
  if (fault === 'refuses') { say({ event: 'error', message: 'no such prompt: ' + option('prompt') }); continue; }
  const pixels = fault === 'small' ? 1 : option('width') * option('height');
  writeFileSync(path, new Uint8Array(3 * pixels).fill(128));
  const run = { event: 'run', path, seconds: 10, load_seconds: 1, encode_seconds: 2, sample_seconds: 3,
    decode_seconds: 4, cpu_seconds: 5, rss_peak: 1000, sigmas: option('sigmas') };
  if (fault === 'checkpoint') {
    if (!option('checkpoint').endsWith('.safetensors') || option('cfg') !== '2') throw new Error('not that file');
    run.step_seconds = [0.5, 0.75];
  }
  if (fault === 'vague') delete run.sample_seconds;
  say(run);
}`;

let directory: string;
let tiny: GenerateBenchOptions;
let peer: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'kotoba-generate-test-'));
  const script = join(directory, 'speaker.mjs');
  writeFileSync(script, speaker);
  peer = `${execPath} ${script}`;
  tiny = { files: ['flux_q4_0'], fileSize: 'tiny', directory, width: 64, height: 48, threads: [1], runs: 1 };
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test('tiny files make a picture with something on it', async () => {
  const { model, prompt } = makeImageModel('flux_q4_0', { size: 'tiny', directory });
  await using pipeline = await ImagePipeline.load(model, { threads: 1 });
  const { pictures } = await pipeline.generate(prompt, { width: 64, height: 48, steps: 2, seed: 1 });
  const { rgb } = pictures[0]!.picture;
  const mean = rgb.reduce((sum, v) => sum + v, 0) / rgb.length;
  const spread = Math.sqrt(rgb.reduce((sum, v) => sum + (v - mean) ** 2, 0) / rgb.length);
  expect(spread).toBeGreaterThan(20);
  // Clipped to black or white, a channel shows no difference any more.
  expect(rgb.filter((v) => v === 0 || v === 255).length).toBeLessThan(rgb.length / 4);
});

test('the report: every phase of every contender, errors against fp32, ratios to the peer', async () => {
  const lines: string[] = [];
  const log = (line: string) => void lines.push(line);
  const report = await runGenerateBench({ ...tiny, steps: 2, peer: `${peer} fine`, log });
  expect(report).toMatchObject({ what: 'generate', instructions: expect.stringMatching(/^\w+$/) });
  expect(JSON.parse(JSON.stringify(report))).toEqual(report); // no NaN or Infinity, which JSON has not
  expect(report.results.map((r) => r.contender)).toEqual(['fp32', 'int8', 'peer']);
  const [fp32, int8, other] = report.results;
  for (const result of report.results) {
    expect(result).toMatchObject({ file: 'flux_q4_0', width: 64, height: 48, steps: 2, threads: 1 });
    for (const phase of PHASES) expect(result.seconds![phase].count, phase).toBe(1);
    expect(result.bytesUsed).toBe(fp32!.bytesUsed);
    expect(formatGenerateResult(result)).toContain(result.contender);
  }
  expect(lines).toEqual(report.results.map(formatGenerateResult));
  expect(fp32!.bytesUsed).toBeGreaterThan(1e6);
  expect(fp32!.rssPeak).toBeGreaterThan(1e7);
  expect(fp32!.gflops!.sample).toBeGreaterThan(0);
  expect(fp32!.secondsPerStep).toBeCloseTo(fp32!.seconds!.sample.median / 2, 9);
  expect(fp32).toMatchObject({ relativeError: 0, timesPeer: { total: 10 / fp32!.seconds!.total.median } });
  expect(int8!.relativeError).toBeLessThan(0.2);
  expect(int8!.psnr).toBeGreaterThan(25);
  expect(other).toMatchObject({ seconds: { sample: { median: 3 } }, secondsPerStep: 1.5, rssPeak: 1000 });
  expect(other!.relativeError).toBeGreaterThan(0.5);
  expect(other!.timesPeer).toBeUndefined();
});

test('a checkpoint: the peer is given the one file and the guidance, steps are timed without the first', async () => {
  const sd1 = { ...tiny, files: ['sd1_f16'] as const, height: 64, steps: 3, cfg: 2, precisions: [] };
  const { results } = await runGenerateBench({ ...sd1, peer: `${peer} checkpoint` });
  expect(results.map((r) => r.contender)).toEqual(['fp32', 'peer']);
  const [own, other] = results;
  expect(own).toMatchObject({ file: 'sd1_f16', steps: 3, cfg: 2, laterSteps: { count: 2 } });
  expect(own!.laterSteps!.median).toBeLessThan(own!.seconds!.sample.median);
  expect(other).toMatchObject({ cfg: 2, laterSteps: { median: 0.625, count: 2 } });
  const line = formatGenerateResult(other!);
  for (const part of ['cfg 2 ', '1.00 s a step', 'after the first 0.625 s']) expect(line).toContain(part);
});

describe('what a peer does wrong is a coded error that says what', () => {
  test.each([
    ['refuses', 'no such prompt: A cat asleep on a red chair'],
    ['vague', "expected the seconds of 'sample', received undefined"],
    ['small', 'expected a picture of 9216 bytes, received 3'],
  ])('%s', async (fault, message) => {
    await expect(runGenerateBench({ ...tiny, precisions: [], peer: `${peer} ${fault}` })).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringContaining(message) }),
    );
  });

  test('sizes that our own pipeline refuses', async () => {
    await expect(runGenerateBench({ ...tiny, width: 60, precisions: [] })).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringContaining('multiple of 16') }),
    );
  });
});
