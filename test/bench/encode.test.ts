/** `kotoba bench encode` on a tiny file, beside a program that only speaks the protocol. No figure of ours is asserted. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { formatResult, runEncodeBench } from '../../bench/encode.js';
import { precisionsOf } from '../../bench/own_process.js';
import { TARGETS } from '../support/devices.js';

/** Takes 10 s for every run, and its states are zeros. */
const speaker = `
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
const say = (answer) => console.log(JSON.stringify(answer));
const option = (name) => process.argv[process.argv.indexOf('--' + name) + 1];
const batch = process.argv.includes('--batch') ? Number(option('batch')) : 1;
say({ event: 'ready', load_seconds: 1, rss_peak: 1, description: 'a speaker', versions: { speaker: '1' } });
for await (const line of createInterface({ input: process.stdin })) {
  const [event, argument] = line.split(' ');
  if (event === 'quit') break;
  if (event === 'dump') writeFileSync(argument, new Float32Array(batch * 77 * 128));
  say(event === 'dump' ? { event, path: argument }
    : { event, tokens: Number(argument), seconds: 10, cpu_seconds: 5, rms: 0, non_finite: 0, rss_peak: 2, device_peak: 3 });
}`;

let folder: string;
let peer: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'kotoba-encode-bench-'));
  process.env['KOTOBA_BENCH_DIR'] = folder;
  const script = join(folder, 'speaker.mjs');
  writeFileSync(script, speaker);
  peer = `${execPath} ${script}`;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const tiny = { files: ['clip_l_f32'], size: 'tiny', runs: 1, precisions: [] } as const;

test('ours and a peer on the same ids, of several prompts at once', async () => {
  const lines: string[] = [];
  const log = (line: string) => void lines.push(line);
  const report = await runEncodeBench({ ...tiny, threads: [1], batches: [1, 3], peer, log });
  expect(report).toMatchObject({ what: 'encode', device: 'cpu', notRun: [], versions: { speaker: '1' } });
  expect(report.gpu).toBeUndefined();
  expect(report.results.map((r) => [r.contender, r.batch])).toEqual([
    ['fp32', 1],
    ['peer', 1],
    ['fp32', 3],
    ['peer', 3],
  ]);
  for (const r of report.results) {
    expect(r).toMatchObject({ file: 'clip_l_f32', tokens: 77, threads: 1 });
    if (r.contender === 'peer') {
      expect(r).toMatchObject({
        seconds: { median: 10 },
        description: 'a speaker',
        devicePeak: 3,
        relativeError: 1,
      });
    } else {
      expect(r.relativeError).toBe(0);
      expect(r.timesPeer).toBe(10 / r.seconds!.median);
    }
  }
  expect(lines).toEqual(report.results.map(formatResult));
}, 120_000);

test('a deadline that has passed leaves out every case, and names it', async () => {
  const report = await runEncodeBench({ ...tiny, threads: [1], deadline: -1 });
  expect(report.results).toEqual([]);
  expect(report.notRun).toEqual(['clip_l_f32 1 × 77 tokens']);
});

test.skipIf(!TARGETS.includes('cuda-sim'))(
  'cuda-sim: everything runs and is compared, and no time is told',
  async () => {
    const report = await runEncodeBench({ ...tiny, device: 'cuda-sim', precisions: ['bf16'] });
    expect(report.gpu).toMatchObject({ simulated: true });
    const [result] = report.results;
    expect(result).toMatchObject({ contender: 'bf16', threads: 0, relativeError: 0 });
    for (const name of ['seconds', 'gflops', 'loadSeconds', 'timesPeer'] as const)
      expect(result![name], name).toBeUndefined();
    expect(formatResult(result!)).toContain('simulated, not a speed');
  },
  120_000,
);

test('the precisions of a device', () => {
  expect(precisionsOf('cpu')).toEqual(['fp32', 'int8']);
  expect(precisionsOf('cpu', ['int8'])).toEqual(['fp32', 'int8']);
  expect(precisionsOf('cuda')).toEqual(['fp32', 'bf16', 'fp16']);
  expect(precisionsOf('cuda:1', ['bf16'])).toEqual(['bf16']);
});
