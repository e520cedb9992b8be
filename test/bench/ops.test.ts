/** `kotoba bench ops`: a small case of every op runs, is checked and reported. No figure is asserted. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { printOpsReport, runOpsBench } from '../../bench/ops.js';
import { caseName, selectCases, weightTypes, type OpsCase } from '../../bench/ops_cases.js';

const small: OpsCase[] = [
  { op: 'linear', m: 3, n: 40, k: 256, type: 'Q4_K', precision: 'fp32' },
  { op: 'linear', m: 5, n: 33, k: 64, type: 'F16', precision: 'int8' },
  { op: 'attention', network: 't5', heads: 2, headDim: 16, tokens: 70, mask: 't5' },
  { op: 'attention', network: 'clip', heads: 2, headDim: 16, tokens: 9, mask: 'causal' },
  { op: 'rms_norm', rows: 5, cols: 300 },
  { op: 'layer_norm', rows: 5, cols: 300 },
  { op: 'decode', type: 'IQ1_M', rows: 4, cols: 256 },
  { op: 'embedding', type: 'Q8_0', ids: 6, vocabulary: 50, cols: 64 },
];

test('one small case of every op is checked, timed, printed and written', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kotoba-ops-'));
  const json = join(folder, 'deep', 'ops.json');
  try {
    const lines: string[] = [];
    const log = (line: string) => lines.push(line);
    const report = await runOpsBench({ cases: small, threads: [1, 2], seconds: 0.005, json, log });
    expect(report.wrong).toEqual([]);
    expect(report.results.map((result) => result.name)).toEqual([...small, ...small].map(caseName));
    for (const { name, times, gbytes } of report.results) {
      expect(times[0]?.name, name).toBe('kotoba');
      expect(times[0]!.wall.count).toBeGreaterThanOrEqual(4);
      expect(gbytes).toBeGreaterThan(0);
    }
    expect(JSON.parse(readFileSync(json, 'utf8'))).toEqual(JSON.parse(JSON.stringify(report)));
    const again: string[] = [];
    printOpsReport(report, (line) => again.push(line));
    expect(again).toEqual(lines);
    for (const each of small)
      expect(lines.filter((line) => line.startsWith(`${caseName(each)} `)).length).toBe(2);
    for (const peer of report.peers)
      expect(lines.some((line) => line.includes(peer.version ?? peer.missing!))).toBe(true);
    const compared = new Set(report.summary.map((group) => group.peer));
    const there = report.peers.filter((peer) => peer.version !== undefined).map((peer) => peer.name);
    expect([...compared]).toEqual(expect.arrayContaining(there));
    if (there.length === 0) console.log('ops.test: no peer here, only ours was run');
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 120_000);

test('every weight type has a generator whose values a linear can be checked with', async () => {
  const cases = weightTypes.map((type): OpsCase => ({
    op: 'linear',
    m: 2,
    n: 3,
    k: 256,
    type,
    precision: 'fp32',
  }));
  const { wrong, results } = await runOpsBench({ cases, threads: [1], seconds: 0.001 });
  expect(wrong).toEqual([]);
  for (const { name, checks } of results) expect(checks[0]!.error, name).not.toBeNaN();
}, 120_000);

test('the filter reads names that begin with the op', () => {
  const chosen = selectCases({ filter: /^linear 77x3072x768 Q4_K/ }).map(caseName);
  expect(chosen).toEqual(['linear 77x3072x768 Q4_K fp32', 'linear 77x3072x768 Q4_K int8']);
  const types = selectCases({ types: ['Q5_K'], precisions: ['int8'] }).filter((c) => 'type' in c);
  expect(new Set(types.map((c) => c.type))).toEqual(new Set(['Q5_K']));
  expect(types.every((c) => c.op !== 'linear' || c.precision === 'int8')).toBe(true);
  const all = selectCases().map(caseName);
  expect(new Set(all).size).toBe(all.length);
  expect(all.filter((name) => name.startsWith('decode')).length).toBe(weightTypes.length);
});

test('a filter that leaves nothing and an abort are said', async () => {
  await expect(runOpsBench({ filter: /no such op/ })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  await expect(runOpsBench({ cases: small, threads: [1], signal: AbortSignal.abort() })).rejects.toThrow(
    /abort/i,
  );
});
