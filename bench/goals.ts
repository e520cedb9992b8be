/**
 * The goals that KERNELS.md sets for a GPU, as data, and what reports measured of each: rows for the README and the page
 * of plots. A goal that no report has a figure for says so; nothing counts that a simulated device ran.
 */
import type { EncodeReport, EncodeResult } from './encode.js';
import type { GenerateReport } from './generate.js';
import type { OpsReport } from './ops.js';
import { geomean } from './ops_print.js';
import type { OpsResult } from './ops_run.js';
import type { BenchReport } from './report_file.js';

export interface GoalRow {
  /** Of KERNELS.md. */
  readonly section: string;
  readonly what: string;
  readonly goal: string;
  /** Absent: no report has it. */
  readonly measured?: string | undefined;
  readonly isMet?: boolean | undefined;
}

interface Goal {
  readonly section: string;
  readonly what: string;
  readonly wanted: { readonly atLeast: number } | { readonly atMost: number };
  /** × (default), ms or s */
  readonly unit?: '×' | 'ms' | 's';
  readonly measure: (found: Found) => Measured | undefined;
}

interface Measured {
  readonly value: number;
  /** Of what, where it is the worst or best of several. */
  readonly of?: string | undefined;
}

interface Found {
  readonly ops: readonly OpsResult[];
  readonly encode: readonly EncodeResult[];
  readonly generate: readonly GenerateReport[];
}

const MATMUL = 'torch.matmul';
const EXPANDED = 'torch dequantise + matmul';
const K_QUANTS = /^linear 512x.* Q\d_K (fp16|bf16)$/;

const GOALS: readonly Goal[] = [
  {
    section: '1',
    what: 'FP16 and BF16 products, mean over our shapes, to torch.matmul',
    wanted: { atLeast: 1.02 },
    measure: ({ ops }) => mean(ratios(ops, denseName, MATMUL)),
  },
  {
    section: '1',
    what: 'the same, worst shape',
    wanted: { atLeast: 0.95 },
    measure: ({ ops }) => worst(ratios(ops, denseName, MATMUL)),
  },
  {
    section: '1',
    what: "with fused epilogue, mean, to PyTorch's separate ops",
    wanted: { atLeast: 1.15 },
    measure: ({ ops }) => mean(ratios(ops, /^linear .*(fp16|bf16) (gelu|gated|residual)$/, MATMUL)),
  },
  {
    section: '2',
    what: 'FP32 products from 4096³ up, worst, to SGEMM',
    wanted: { atLeast: 3.5 },
    measure: ({ ops }) => worst(ratios(ops, /^linear (4096x4096x4096|8192x8192x8192) F32 fp32$/, MATMUL)),
  },
  {
    section: '2',
    what: "FP32 products, largest error, to SGEMM's",
    wanted: { atMost: 1 },
    measure: ({ ops }) => largest(errorRatios(ops, /^linear .* F32 fp32$/, MATMUL)),
  },
  {
    section: '3',
    what: 'attention of Flux, 24 × 128, 4608 tokens, to the fastest SDPA',
    wanted: { atLeast: 1 },
    measure: ({ ops }) => worst(ratios(ops, /^attention flux 24x128 4608 tokens (fp16|bf16)$/, /^SDPA/)),
  },
  {
    section: '3',
    what: 'attention of T5, 64 × 64, 512 tokens, to the fastest SDPA with the bias given',
    wanted: { atLeast: 1.12 },
    measure: ({ ops }) => worst(ratios(ops, t5Name, /^SDPA/)),
  },
  {
    section: '3',
    what: 'the same, to our own without bias',
    wanted: { atLeast: 0.95 },
    measure: ({ ops }) => worst(withoutBias(ops)),
  },
  {
    section: '3',
    what: 'the same, to eager PyTorch',
    wanted: { atLeast: 2 },
    measure: ({ ops }) => worst(ratios(ops, t5Name, 'torch eager')),
  },
  ...(
    [
      ['Q4_K, M = 1, 8192²', /^linear 1x8192x8192 Q4_K/, 2.8],
      ['Q8_0, M = 1, 8192²', /^linear 1x8192x8192 Q8_0/, 1.6],
      ['Q4_K, M = 16', /^linear 16x\S+ Q4_K/, 2.5],
      ['Q4_K, M = 77', /^linear 77x\S+ Q4_K/, 1.6],
      ['any type, M = 512', quantisedName(512), 0.9],
      ['any type, M = 4608', quantisedName(4608), 0.93],
    ] as const
  ).map(([what, name, atLeast]): Goal => ({
    section: '4',
    what: `${what}, worst, to torch.matmul on the expanded weights`,
    wanted: { atLeast },
    measure: ({ ops }) => worst(ratios(ops, name, MATMUL)),
  })),
  {
    section: '4',
    what: 'M = 512, other types, worst, to PyTorch-level dequantisation and product',
    wanted: { atLeast: 1.5 },
    measure: ({ ops }) =>
      worst(
        ratios(
          ops.filter(({ name }) => !K_QUANTS.test(name)),
          quantisedName(512),
          EXPANDED,
        ),
      ),
  },
  {
    section: '4',
    what: 'the same, K-quants',
    wanted: { atLeast: 2 },
    measure: ({ ops }) => worst(ratios(ops, K_QUANTS, EXPANDED)),
  },
  {
    section: '4',
    what: 'dequantise kernel, every type, worst, to a copy of as many bytes',
    wanted: { atLeast: 0.9 },
    measure: ({ ops }) => worst(ratios(ops, /^decode /, 'copy')),
  },
  ...(
    [
      [1, 8],
      [8, 58],
      [64, 460],
    ] as const
  ).map(([batch, atMost]): Goal => ({
    section: '5',
    what: `T5-XXL FP16, 512 tokens, batch ${batch}`,
    wanted: { atMost },
    unit: 'ms',
    measure: ({ encode }) =>
      least(t5Runs(encode, batch).map((r) => [r.seconds!.median * 1000, r.contender] as const)),
  })),
  {
    section: '5',
    what: 'the same, worst batch, to transformers',
    wanted: { atLeast: 2 },
    measure: ({ encode }) => worst(timesTransformers(encode)),
  },
  {
    section: '5',
    what: 'Flux.1-schnell 1024², 4 steps, words to picture',
    wanted: { atMost: 0.5 },
    unit: 's',
    measure: ({ generate }) => least(schnellTotals(generate)),
  },
  {
    section: '5',
    what: 'a step of Flux at 1024², to torch.compile',
    wanted: { atLeast: 1.3 },
    measure: ({ generate }) => largest(stepRatios(generate)),
  },
];

function quantisedName(m: number): RegExp {
  return new RegExp(`^linear ${m}x\\S+ (?!F32|F16|BF16|F64)\\S+ (fp16|bf16)$`);
}

const denseName = /^linear \S+ (F16 fp16|BF16 bf16)$/;
const t5Name = /^attention t5 64x64 512 tokens (fp16|bf16)$/;

type Named = readonly (readonly [value: number, of: string])[];

/** Peer's time / ours; of several peers that match, the fastest's. */
function ratios(ops: readonly OpsResult[], name: RegExp, peer: string | RegExp): Named {
  return ops.flatMap((result): Named => {
    if (!name.test(result.name)) return [];
    const sides = result.times
      .slice(1)
      .filter((side) => (typeof peer === 'string' ? side.name === peer : peer.test(side.name)));
    return sides.length ? [[Math.min(...sides.map((side) => side.wallRatio.median)), result.name]] : [];
  });
}

/** Our error / the peer's. */
function errorRatios(ops: readonly OpsResult[], name: RegExp, peer: string): Named {
  return ops.flatMap((result): Named => {
    const theirs = result.checks.find((check) => check.side === peer);
    if (!name.test(result.name) || !theirs) return [];
    return [[result.checks[0]!.error / theirs.error, result.name]];
  });
}

function withoutBias(ops: readonly OpsResult[]): Named {
  return ops.flatMap((result): Named => {
    if (!t5Name.test(result.name) || !result.times[0]) return [];
    const other = ops.find((each) => each.name === result.name.replace('tokens', 'tokens without bias'));
    return other?.times[0] ? [[other.times[0].wall.median / result.times[0].wall.median, result.name]] : [];
  });
}

function t5Runs(encode: readonly EncodeResult[], batch: number): EncodeResult[] {
  const isOurs = (r: EncodeResult): boolean => r.contender === 'fp16' || r.contender === 'bf16';
  return encode.filter(
    (r) => /^t5_f16/.test(r.file) && r.tokens === 512 && (r.batch ?? 1) === batch && isOurs(r) && r.seconds,
  );
}

function timesTransformers(encode: readonly EncodeResult[]): Named {
  return [1, 8, 64].flatMap((batch): Named => {
    const runs = t5Runs(encode, batch).flatMap((r) => r.timesPeer ?? []);
    return runs.length ? [[Math.max(...runs), `batch ${batch}`]] : [];
  });
}

function schnellTotals(generate: readonly GenerateReport[]): Named {
  return generate.flatMap(({ results }) =>
    results
      .filter((r) => r.file !== 'small' && r.width === 1024 && r.height === 1024 && r.steps === 4 && r.loaded)
      .flatMap((r): Named => (r.seconds ? [[r.seconds.total.median, `${r.file} ${r.contender}`]] : [])),
  );
}

function stepRatios(generate: readonly GenerateReport[]): Named {
  return generate.flatMap(({ stepPeers }) =>
    (stepPeers ?? [])
      .filter((peer) => peer.name === 'torch.compile' && peer.width === 1024 && peer.height === 1024)
      .flatMap((peer) =>
        Object.entries(peer.timesPeer ?? {}).map(([ours, ratio]) => [ratio, `${peer.file} ${ours}`] as const),
      ),
  );
}

const mean = (values: Named): Measured | undefined =>
  values.length
    ? { value: geomean(values.map(([value]) => value)), of: `${values.length} cases` }
    : undefined;
const worst = (values: Named): Measured | undefined => extreme(values, (a, b) => a < b);
const least = worst;
const largest = (values: Named): Measured | undefined => extreme(values, (a, b) => a > b);

/** A NaN is taken, and stays: it must not look like a figure. */
function extreme(values: Named, isMore: (a: number, b: number) => boolean): Measured | undefined {
  if (values.length === 0) return undefined;
  const [value, of] = values.reduce((best, each) =>
    Number.isNaN(best[0]) || isMore(best[0], each[0]) ? best : each,
  );
  return { value, of };
}

/** All goals in their order, with what the reports of real GPUs measured. */
export function goalRows(reports: readonly BenchReport[]): GoalRow[] {
  const real = reports.filter((report) => report.gpu && !report.gpu.simulated);
  const found: Found = {
    ops: real
      .filter((report): report is OpsReport => report.what === 'ops')
      .flatMap((report) => report.results),
    encode: real
      .filter((report): report is EncodeReport => report.what === 'encode')
      .flatMap((report) => report.results),
    generate: real.filter((report): report is GenerateReport => report.what === 'generate'),
  };
  return GOALS.map((goal) => goalRow(goal, found));
}

function goalRow({ section, what, wanted, unit = '×', measure }: Goal, found: Found): GoalRow {
  const isLeast = 'atLeast' in wanted;
  const text = (value: number): string => `${value.toFixed(value < 10 ? 2 : 0)} ${unit}`;
  const goal = `${isLeast ? '≥' : '≤'} ${text(isLeast ? wanted.atLeast : wanted.atMost)}`;
  const measured = measure(found);
  if (!measured) return { section, what, goal };
  const { value, of } = measured;
  const isMet = isLeast ? value >= wanted.atLeast : value <= wanted.atMost;
  return { section, what, goal, measured: `${text(value)}${of ? ` (${of})` : ''}`, isMet };
}

/** Rows of a Markdown table for the README. */
export function goalsMarkdown(reports: readonly BenchReport[]): string[] {
  const state = (row: GoalRow): string => (row.isMet === undefined ? '' : row.isMet ? 'met' : '**missed**');
  return [
    '| KERNELS § | what | goal | measured | |',
    '| --- | --- | --- | --- | --- |',
    ...goalRows(reports).map(
      (row) =>
        `| ${row.section} | ${row.what} | ${row.goal} | ${row.measured ?? 'not measured'} | ${state(row)} |`,
    ),
  ];
}
