/** Reports as files, the page of plots and the table of goals made from them. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { goalRows, goalsMarkdown } from '../../bench/goals.js';
import type { OpsReport } from '../../bench/ops.js';
import type { OpsResult } from '../../bench/ops_run.js';
import { makePage } from '../../bench/plots/page.js';
import { escapeText, linearScale, logScale } from '../../bench/plots/svg.js';
import { checkReport, readReport, type BenchReport } from '../../bench/report_file.js';

const results = resolve(import.meta.dirname, '../../bench/results');
const paths = readdirSync(results).map((name) => join(results, name));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'kotoba-report-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const flat = (median: number) => ({ median, p5: median * 0.9, p95: median * 1.1, count: 4 });
const side = (name: string, wall: number, ratio: number) => ({
  name,
  wall: flat(wall),
  cpu: flat(1),
  reps: 1,
  wallRatio: flat(ratio),
  cpuRatio: flat(1),
});
const timed = (name: string, peers: Readonly<Record<string, number>>, error = 1): OpsResult => ({
  name,
  group: 'linear <&> "group"',
  threads: 0,
  checks: [
    { side: 'kotoba', error, bound: 2 },
    ...Object.keys(peers).map((peer) => ({ side: peer, error: 1, bound: 2 })),
  ],
  times: [
    side('kotoba', 10, 1),
    ...Object.entries(peers).map(([peer, ratio]) => side(peer, 10 * ratio, ratio)),
  ],
  gflops: 1000,
  gbytes: 100,
});
const gpuReport = (members: readonly OpsResult[], simulated = false): BenchReport =>
  ({
    what: 'ops',
    date: '2026-11-22T12:00:00.000Z',
    commit: 'abc',
    cpu: 'a CPU',
    instructions: 'sm_90',
    gpu: { description: 'a <GPU>', capability: '9.0', memory: 1, simulated },
    ceilings: { copyGbytes: 4000, matmulTflops: { bf16: 700 } },
    results: members,
    summary: [],
    wrong: [],
    notRun: [],
  }) as unknown as OpsReport;

describe('reading', () => {
  test.each(paths)('%s is a report', (path) => {
    expect(readReport(path).results.length).toBeGreaterThan(0);
  });

  test('what is no report says which member is wrong', () => {
    const good = {
      what: 'ops',
      date: '',
      commit: '',
      cpu: '',
      results: [{ name: 'a', group: 'b', threads: 1 }],
    };
    for (const [value, message] of [
      [[], 'the file: expected an object'],
      [{ what: 'lunch' }, 'what: expected one of ops, encode, generate, got "lunch"'],
      [{ ...good, results: 3 }, 'results: expected array, got 3'],
      [good, 'results[0].checks: expected array, got undefined'],
      [{ ...good, what: 'encode' }, 'results[0].file: expected string'],
    ] as const)
      expect(() => checkReport(value)).toThrow(message);
    const path = join(folder, 'broken.json');
    writeFileSync(path, '{"what": ');
    expect(() => readReport(path)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(() => readReport(join(folder, 'none'))).toThrow(
      expect.objectContaining({ code: 'ERR_FILE_READ' }),
    );
  });
});

describe('the page', () => {
  const pages = [...paths.map((path) => [path.split('/').at(-1)!, [readReport(path)]] as const)];
  pages.push(['a GPU', [gpuReport([timed('linear 1x2x3 F16 fp16', { 'torch.matmul': 0.5 })])]]);
  pages.push(['nothing', [gpuReport([])]]);

  test.each(pages)(
    '%s: holds everything itself, is well formed, and has no number that is none',
    (_, reports) => {
      const page = makePage(reports);
      expect(page).not.toMatch(/https?:|src=|<script|@import|url\(/);
      expect(page).not.toMatch(/NaN|Infinity|undefined|\[object/);
      const open: string[] = [];
      for (const [, close, tag, rest] of page.matchAll(/<(\/?)([a-z][a-z0-9]*)([^>]*)>/g)) {
        if (rest!.endsWith('/') || tag === 'meta') continue;
        if (close) expect(open.pop()).toBe(tag);
        else open.push(tag!);
      }
      expect(open).toEqual([]);
    },
  );

  test('text is escaped, and every ratio is drawn', () => {
    const page = makePage([gpuReport([timed('linear 1x2x3 F16 fp16', { 'torch.matmul': 0.5 })])]);
    expect(page).toContain('a &#60;GPU&#62;');
    expect(page).not.toContain('<GPU>');
    expect(page).toContain('linear 1x2x3 F16 fp16: 0.5 × torch.matmul [0.45, 0.55]');
    expect(escapeText(`<&"'>`)).toBe('&#60;&#38;&#34;&#39;&#62;');
  });

  test('scales put values where they belong', () => {
    const log = logScale([1, 100], 0, 100);
    expect(log.at(10)).toBeCloseTo(50);
    expect(log.ticks).toContain(10);
    const linear = linearScale(10, 0, 105);
    expect(linear.at(10)).toBeCloseTo(100);
    expect(linear.ticks.slice(0, 3)).toEqual([0, 2, 4]);
    for (const value of logScale([], 0, 100).ticks) expect(value).toBeGreaterThan(0);
  });
});

describe('the goals', () => {
  const row = (reports: readonly BenchReport[], what: RegExp) =>
    goalRows(reports).find((each) => what.test(each.what))!;

  test('are met or missed by the case that decides', () => {
    const dense = [
      timed('linear 512x4096x4096 F16 fp16', { 'torch.matmul': 1.2 }),
      timed('linear 77x4096x4096 BF16 bf16', { 'torch.matmul': 0.9 }),
      timed('linear 77x4096x4096 BF16 bf16 gelu', { 'torch.matmul': 3 }),
      timed('linear 512x4096x4096 Q4_K fp16', { 'torch.matmul': 0.1, 'torch dequantise + matmul': 2.5 }),
    ];
    const reports = [gpuReport(dense)];
    expect(row(reports, /^FP16 and BF16/)).toMatchObject({ measured: '1.04 × (2 cases)', isMet: true });
    expect(goalRows(reports)[1]).toMatchObject({
      measured: '0.90 × (linear 77x4096x4096 BF16 bf16)',
      isMet: false,
    });
    expect(row(reports, /fused epilogue/)).toMatchObject({ isMet: true });
    expect(row(reports, /any type, M = 512/)).toMatchObject({ isMet: false });
    expect(row(reports, /K-quants/)).toMatchObject({ isMet: true });
    expect(row(reports, /^T5-XXL FP16, 512 tokens, batch 8/)).toEqual({
      section: '5',
      what: 'T5-XXL FP16, 512 tokens, batch 8',
      goal: '≤ 58 ms',
    });
  });

  test('the fastest SDPA counts, and our own kernel without bias', () => {
    const name = 'attention t5 64x64 512 tokens bf16';
    const without = {
      ...timed(name.replace('tokens', 'tokens without bias'), {}),
      times: [side('kotoba', 9, 1)],
    };
    const reports = [
      gpuReport([timed(name, { 'SDPA math': 3, 'SDPA efficient': 1.1, 'torch eager': 4 }), without]),
    ];
    expect(row(reports, /fastest SDPA with the bias/)).toMatchObject({ isMet: false });
    expect(row(reports, /to our own without bias/)).toMatchObject({
      isMet: false,
      measured: expect.stringContaining('0.90 ×'),
    });
    expect(row(reports, /to eager PyTorch/)).toMatchObject({ isMet: true });
  });

  test('errors count, a NaN is missed, and a simulated device measures nothing', () => {
    const fp32 = 'linear 4096x4096x4096 F32 fp32';
    expect(row([gpuReport([timed(fp32, { 'torch.matmul': 4 }, 1.5)])], /largest error/)).toMatchObject({
      isMet: false,
    });
    expect(row([gpuReport([timed(fp32, { 'torch.matmul': NaN })])], /SGEMM$/)).toMatchObject({
      isMet: false,
    });
    const simulated = goalRows([gpuReport([timed(fp32, { 'torch.matmul': 4 })], true)]);
    expect(simulated.every((each) => each.measured === undefined)).toBe(true);
  });

  test('reports of a CPU leave every goal unmeasured, and say so in the table', () => {
    const lines = goalsMarkdown(paths.map(readReport));
    expect(lines.slice(2).every((line) => line.includes('| not measured |'))).toBe(true);
    expect(lines.length).toBe(goalRows([]).length + 2);
  });
});
