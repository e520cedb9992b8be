/** The ops in double precision at sampled outputs, and the error against them. */

import type { OpPrecision } from '../src/runtime/ops.js';

/** FP32 rounding. */
export const eps = 2 ** -24;

/** Bits of the significand, the hidden one included, and the smallest normal exponent. */
const sixteenBitFormats = { fp16: [11, -14], bf16: [8, -126] } as const;

/** The nearest number of a 16-bit precision, ties to even; other precisions keep the value. */
export function roundTo(precision: OpPrecision, value: number): number {
  if (precision !== 'fp16' && precision !== 'bf16') return value;
  if (value === 0 || !Number.isFinite(value)) return value;
  const [bits, smallest] = sixteenBitFormats[precision];
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), smallest);
  const step = 2 ** (exponent + 1 - bits);
  const steps = value / step;
  const below = Math.floor(steps);
  const rest = steps - below;
  return step * (rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below);
}

export const rounded = (precision: OpPrecision, values: ArrayLike<number>): Float64Array =>
  Float64Array.from(values, (value) => roundTo(precision, value));

/** `count` of the numbers below `end`, evenly spread, first and last included. */
export function spread(end: number, count: number): number[] {
  if (end <= count) return Array.from({ length: end }, (_, i) => i);
  return Array.from({ length: count }, (_, i) => Math.floor((i * (end - 1)) / (count - 1)));
}

/** Places of a two-dimensional output. */
export interface Places {
  readonly rows: readonly number[];
  readonly cols: readonly number[];
}

/** The values at those places, row by row, out of [.., columns]. */
export function pick(values: ArrayLike<number>, columns: number, { rows, cols }: Places): number[] {
  return rows.flatMap((row) => cols.map((col) => values[row * columns + col]!));
}

/** ‖got − expected‖ / ‖expected‖; NaN if anything is NaN. */
export function relativeError(got: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (got.length !== expected.length) return NaN;
  let error = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    error += (got[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return error === 0 ? 0 : Math.sqrt(error / norm);
}

/** out[i, j] of x [.., k] · w [.., k]ᵀ at the given rows and columns. */
export function matmulAt(
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  k: number,
  { rows, cols }: Places,
): Float64Array {
  const out = new Float64Array(rows.length * cols.length);
  for (const [i, row] of rows.entries())
    for (const [j, col] of cols.entries()) {
      let sum = 0;
      for (let c = 0; c < k; c++) sum += x[row * k + c]! * w[col * k + c]!;
      out[i * cols.length + j] = sum;
    }
  return out;
}

export interface AttentionInputs {
  /** All [tokens, heads · headDim]. */
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly tokens: number;
  readonly heads: number;
  readonly headDim: number;
  readonly scale: number;
  readonly causal: boolean;
  /** [buckets, heads] of a bidirectional T5 with 128 as its largest distance. */
  readonly biasTable?: Float32Array | undefined;
  /** Rounds what meets v: exp(score − largest). Default: not at all. */
  readonly precision?: OpPrecision | undefined;
}

export const t5Buckets = 32;
export const t5MaxDistance = 128;

/** Output row `query` of head `head`, [headDim]. */
export function attentionRow(a: AttentionInputs, head: number, query: number): Float64Array {
  const columns = a.heads * a.headDim;
  const at = (token: number) => token * columns + head * a.headDim;
  const keys = a.causal ? query + 1 : a.tokens;
  const scores = Array.from({ length: keys }, (_, key) => {
    let dot = 0;
    for (let c = 0; c < a.headDim; c++) dot += a.q[at(query) + c]! * a.k[at(key) + c]!;
    return dot * a.scale + (a.biasTable?.[t5Bucket(key - query) * a.heads + head] ?? 0);
  });
  const peak = Math.max(...scores);
  const exact = scores.map((score) => Math.exp(score - peak));
  const total = exact.reduce((sum, weight) => sum + weight, 0);
  const weights = exact.map((weight) => roundTo(a.precision ?? 'fp32', weight));
  const out = new Float64Array(a.headDim);
  for (const [key, weight] of weights.entries())
    for (let c = 0; c < a.headDim; c++) out[c]! += (weight / total) * a.v[at(key) + c]!;
  return out;
}

/** arXiv:1910.10683 §2.1, logarithm in float32 as the reference implementation has it. */
export function t5Bucket(distance: number): number {
  const half = t5Buckets / 2;
  const exact = half / 2;
  const offset = distance > 0 ? half : 0;
  const n = Math.abs(distance);
  if (n < exact) return offset + n;
  const ratio = Math.fround(
    Math.fround(Math.log(Math.fround(n / exact))) / Math.fround(Math.log(t5MaxDistance / exact)),
  );
  return offset + Math.min(half - 1, exact + Math.floor(Math.fround(ratio * (half - exact))));
}

/** One row of a norm: x / sqrt(mean(x²) + e) · weight, and with a bias (x − mean) / sqrt(variance + e) · weight + bias. */
export function normRow(
  x: Float32Array,
  weight: ArrayLike<number>,
  bias: ArrayLike<number> | undefined,
  e: number,
): Float64Array {
  const mean = bias ? x.reduce((sum, value) => sum + value, 0) / x.length : 0;
  const square = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  return Float64Array.from(x, (value, c) => {
    return ((value - mean) / Math.sqrt(square + e)) * weight[c]! + (bias?.[c] ?? 0);
  });
}

/** One row of a modulated norm: (x − mean) / sqrt(variance + e) · (1 + scale) + shift. */
export function modulatedRow(
  x: Float32Array,
  { shift, scale }: { shift: Float32Array; scale: Float32Array },
  e: number,
): Float64Array {
  const factors = Float64Array.from(scale, (value) => 1 + value);
  return normRow(x, factors, shift, e);
}

/** The columns of one group over all rows, (x − mean) / sqrt(variance + e) · weight + bias; [rows, columns of a group]. */
export function groupNormGroup(
  x: Float32Array,
  { cols, group, groups }: { cols: number; group: number; groups: number },
  { weight, bias }: { weight: Float32Array; bias: Float32Array },
  e: number,
): Float64Array {
  const width = cols / groups;
  const rows = x.length / cols;
  const at = (i: number): number => Math.floor(i / width) * cols + group * width + (i % width);
  let mean = 0;
  for (let i = 0; i < rows * width; i++) mean += x[at(i)]! / (rows * width);
  let square = 0;
  for (let i = 0; i < rows * width; i++) square += (x[at(i)]! - mean) ** 2 / (rows * width);
  return Float64Array.from({ length: rows * width }, (_, i) => {
    const column = group * width + (i % width);
    return ((x[at(i)]! - mean) / Math.sqrt(square + e)) * weight[column]! + bias[column]!;
  });
}
