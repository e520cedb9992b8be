/** The parts of the ops bench that need no device: error measure, interleaving, ratios, lines. */
import { expect, test } from 'vitest';
import { gpuCases, simulatedCases } from '../../bench/gpu_cases.js';
import { isWrong } from '../../bench/ops_bench.js';
import { formatResult, formatSummary, geomean, summarizeGroups } from '../../bench/ops_print.js';
import { caseName, weightTypes } from '../../bench/ops_cases.js';
import {
  attentionRow,
  matmulAt,
  normRow,
  relativeError,
  roundTo,
  spread,
} from '../../bench/ops_reference.js';
import { timeSides, type SideTimes } from '../../bench/ops_time.js';
import type { OpsReport } from '../../bench/ops.js';
import type { OpsResult } from '../../bench/ops_run.js';
import { RandomWeights } from '../../bench/ops_weights.js';

test('a NaN, an infinity or a missing element fails every bound', () => {
  const expected = [1, 2, 3];
  expect(relativeError([1, 2, 3], expected)).toBe(0);
  expect(relativeError([1, 2, 4], expected)).toBeCloseTo(1 / Math.sqrt(14), 12);
  for (const got of [[NaN, 2, 3], [1, Infinity, 3], [1, 2], [1, 2, 3, 4], []]) {
    const error = relativeError(got, expected);
    expect(isWrong({ side: 'x', error, bound: 1e9 }), String(got)).toBe(true);
  }
  expect(isWrong({ side: 'x', error: 0, bound: 0 })).toBe(false);
});

test('samples include both ends', () => {
  expect(spread(3, 8)).toEqual([0, 1, 2]);
  expect(spread(100, 3)).toEqual([0, 49, 99]);
});

test('references, on paper', () => {
  const at = { rows: [1], cols: [0, 1] };
  expect([...matmulAt([0, 0, 1, 2], [3, 4, 5, 6], 2, at)]).toEqual([11, 17]);
  const rms = normRow(new Float32Array([3, 4]), new Float32Array([1, 2]), undefined, 0);
  expect([...rms]).toEqual([3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5)]);
  const layer = normRow(new Float32Array([1, 3]), new Float32Array([2, 2]), new Float32Array([0, 1]), 0);
  expect([...layer]).toEqual([-2, 3]);
  const one = { heads: 1, headDim: 1, scale: 1, causal: true, tokens: 2 };
  const inputs = { ...one, q: f32([0, 0]), k: f32([5, 7]), v: f32([2, 4]) };
  expect([...attentionRow(inputs, 0, 0)]).toEqual([2]);
  expect([...attentionRow(inputs, 0, 1)]).toEqual([3]); // equal scores
});

const f32 = (values: number[]) => new Float32Array(values);

test('F8_E4M3 values are normal: mean 0, deviation 1, rounded to 4 bits', () => {
  const bytes = new RandomWeights().stored('F8_E4M3', 1 << 16);
  const values = Array.from(bytes, (byte) => {
    const exponent = (byte >> 3) & 15;
    const mantissa = byte & 7;
    const size = exponent === 0 ? (mantissa / 8) * 2 ** -6 : (1 + mantissa / 8) * 2 ** (exponent - 7);
    return byte & 0x80 ? -size : size;
  });
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const variance = values.reduce((a, b) => a + b * b, 0) / values.length;
  expect(Math.abs(mean)).toBeLessThan(0.02);
  expect(Math.abs(variance - 1)).toBeLessThan(0.03);
});

test('sides take turns A B B A, and each repetition gets its own number', async () => {
  const calls: string[] = [];
  const side = (name: string) => ({
    name,
    run(first: number, reps: number) {
      calls.push(`${name}${first}+${reps}`);
      const end = performance.now() + 3; // longer than a sample: one repetition each
      while (performance.now() < end);
    },
  });
  const times = await timeSides([side('a'), side('b')], { seconds: 0.001 });
  const timed = calls.slice(4); // each side once to warm it up, once to see how long it takes
  expect(timed).toEqual(['a0+1', 'b0+1', 'b1+1', 'a1+1', 'a2+1', 'b2+1', 'b3+1', 'a3+1']);
  expect(times.map(({ name, reps }) => [name, reps])).toEqual([
    ['a', 1],
    ['b', 1],
  ]);
  expect(times[0]!.wallRatio).toMatchObject({ median: 1, p5: 1, p95: 1, count: 2 });
  expect(times[1]!.wall).toMatchObject({ count: 4 });
});

test('an abort ends the timing', async () => {
  const controller = new AbortController();
  const run = () => controller.abort();
  await expect(timeSides([{ name: 'a', run }], { seconds: 5, signal: controller.signal })).rejects.toThrow(
    /abort/i,
  );
});

const flat = (median: number) => ({ median, p5: median * 0.9, p95: median * 1.1, count: 4 });
const times = (name: string, wall: number, ratio: number): SideTimes => ({
  name,
  wall: flat(wall),
  cpu: flat(wall),
  reps: 1,
  wallRatio: flat(ratio),
  cpuRatio: flat(ratio / 2),
});
const result = (name: string, ratio: number): OpsResult => ({
  name,
  group: 'linear fp32 F32',
  threads: 1,
  checks: [{ side: 'kotoba', error: 1e-7, bound: 1e-6 }],
  times: [times('kotoba', 1234.5, 1), times('OpenBLAS', 1234.5 * ratio, ratio)],
  gflops: 123.4,
  gbytes: 1.5,
});

test('one line a case: µs, GFLOP/s, GB/s, × peer', () => {
  const words = formatResult(result('linear 2x2x2 F32 fp32', 1.25)).split(/\s{2,}/);
  expect(words).toEqual([
    'linear 2x2x2 F32 fp32',
    '1 thr',
    '1235 µs',
    '[1111, 1358]',
    '123 GFLOP/s',
    '1.50 GB/s',
    'error 1.0e-7',
    '1.25 (0.63) × OpenBLAS',
  ]);
});

test('a wrong result is not timed, and said', () => {
  const checks = [{ side: 'kotoba', error: NaN, bound: 1e-6 }];
  const line = formatResult({ ...result('linear', 1), checks, times: [] });
  expect(line).toMatch(/WRONG: kotoba is off by NaN, expected at most 1\.0e-6/);
});

test('the summary counts what was lost and names the worst', () => {
  const results = [result('a', 2), result('b', 0.5), result('c', 1)];
  const summary = summarizeGroups(results);
  expect(summary).toHaveLength(1);
  expect(summary[0]).toMatchObject({ cases: 3, losing: 1, worst: 0.5, worstCase: 'b', peer: 'OpenBLAS' });
  expect(summary[0]!.geomean).toBeCloseTo(1);
  expect(summary[0]!.cpuGeomean).toBeCloseTo(0.5);
  expect(geomean([2, NaN])).toBeNaN();
  const lines = formatSummary({ summary, wrong: ['d'], load: [1, 2] } as unknown as OpsReport);
  expect(lines.join('\n')).toMatch(/1\.00 \(0\.50\) × OpenBLAS +2 of 3 won +worst 0\.50: b\nWRONG: d/);
});

test('16-bit rounding is to the nearest, ties to even, as the formats have it', () => {
  const cases = [
    ['fp16', 1 + 2 ** -11, 1], // half way: even
    ['fp16', 1 + 3 * 2 ** -11, 1 + 2 ** -9],
    ['fp16', -(2 ** -24) * 1.5, -(2 ** -23)], // subnormal, half way: even
    ['fp16', 2 ** -26, 0],
    ['bf16', 1 + 2 ** -8, 1],
    ['bf16', 1 + 3 * 2 ** -8, 1 + 2 ** -6],
    ['fp32', 1 + 2 ** -20, 1 + 2 ** -20],
  ] as const;
  for (const [precision, value, expected] of cases)
    expect(roundTo(precision, value), `${precision} ${value}`).toBe(expected);
  expect(roundTo('fp16', NaN)).toBeNaN();
});

test("a GPU's cases: every goal's shapes are there, once each, and no int8", () => {
  const cases = gpuCases();
  const names = cases.map(caseName);
  expect(new Set(names).size).toBe(names.length);
  for (const name of [
    'linear 8192x8192x8192 F32 fp32',
    'linear 1x8192x8192 Q4_K fp16',
    'linear 512x4096x4096 IQ1_M fp16',
    'linear 4608x12288x3072 Q6_K fp16',
    'linear 4096x3072x12288 BF16 bf16 residual',
    'attention flux 24x128 4608 tokens bf16',
    'attention t5 64x64 512 tokens without bias fp16',
  ])
    expect(names).toContain(name);
  expect(cases.filter((each) => each.op === 'decode').length).toBe(weightTypes.length);
  expect(gpuCases({ precisions: ['int8'] }).some((each) => each.op === 'linear')).toBe(false);
  const tiny = simulatedCases().map(caseName);
  expect(new Set(tiny).size).toBe(tiny.length);
});
