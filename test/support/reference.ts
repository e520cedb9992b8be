/** Plain double-precision references of the ops, and a seeded normal generator. */

/** Deterministic N(0, 1) values (mulberry32 + Box-Muller). */
export function normal(count: number, seed: number): Float32Array {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

/** Largest |a - b|; NaN if anything is NaN, so that a NaN fails every bound. */
export function maxAbsDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return NaN;
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= worst)) worst = d;
    if (Number.isNaN(worst)) return NaN;
  }
  return worst;
}

/** ‖a − b‖ / ‖b‖ */
export function relativeL2(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return NaN;
  let error = 0;
  let norm = 0;
  for (let i = 0; i < a.length; i++) {
    error += (a[i]! - b[i]!) ** 2;
    norm += b[i]! ** 2;
  }
  return Math.sqrt(error / norm);
}

/** out [m, n] = x [m, k] · w [n, k]ᵀ */
export function matmul(
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  m: number,
  n: number,
  k: number,
): Float64Array {
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let c = 0; c < k; c++) sum += x[i * k + c]! * w[j * k + c]!;
      out[i * n + j] = sum;
    }
  return out;
}

/** Abramowitz-Stegun is too coarse: a series below 3, the continued fraction above; error < 1e-15. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a < 3) {
    let term = a;
    let sum = a;
    for (let n = 1; Math.abs(term) > 1e-18 * sum && n < 200; n++) {
      term *= (-a * a) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let f = 0;
  for (let n = 60; n > 0; n--) f = n / 2 / (a + f);
  return Math.sign(x) * (1 - Math.exp(-a * a) / (Math.sqrt(Math.PI) * (a + f)));
}

export const activations = {
  none: (x: number) => x,
  gelu_tanh: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu_erf: (x: number) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  quick_gelu: (x: number) => x / (1 + Math.exp(-1.702 * x)),
  silu: (x: number) => x / (1 + Math.exp(-x)),
};

export interface AttentionShape {
  batch: number;
  heads: number;
  queries: number;
  keys: number;
  headDim: number;
  scale: number;
  causal?: boolean;
  keyMask?: Int32Array;
  /** bias(head, key - query) */
  bias?: (head: number, distance: number) => number;
}

/** q [batch · queries, heads · headDim]; k, v [batch · keys, heads · headDim] */
export function attention(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: ArrayLike<number>,
  s: AttentionShape,
): Float64Array {
  const d = s.heads * s.headDim;
  const out = new Float64Array(s.batch * s.queries * d);
  for (let b = 0; b < s.batch; b++)
    for (let h = 0; h < s.heads; h++)
      for (let i = 0; i < s.queries; i++) {
        const qAt = (b * s.queries + i) * d + h * s.headDim;
        const scores = Array.from({ length: s.keys }, (_, j) => {
          if (s.causal && j > i) return -Infinity;
          const kAt = (b * s.keys + j) * d + h * s.headDim;
          let dot = 0;
          for (let c = 0; c < s.headDim; c++) dot += q[qAt + c]! * k[kAt + c]!;
          const masked = s.keyMask && s.keyMask[b * s.keys + j] === 0 ? -3.4028234663852886e38 : 0;
          return dot * s.scale + (s.bias?.(h, j - i) ?? 0) + masked;
        });
        const peak = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - peak));
        const total = weights.reduce((a, w) => a + w, 0);
        for (let j = 0; j < s.keys; j++)
          for (let c = 0; c < s.headDim; c++)
            out[qAt + c]! += (weights[j]! / total) * v[(b * s.keys + j) * d + h * s.headDim + c]!;
      }
  return out;
}

/** T5's bidirectional bucket of key - query, arXiv:1910.10683 §2.1, with the logarithm in float32 as HF has it. */
export function t5Bucket(distance: number, buckets: number, maxDistance: number): number {
  const half = buckets / 2;
  const offset = distance > 0 ? half : 0;
  const n = Math.abs(distance);
  const exact = half / 2;
  if (n < exact) return offset + n;
  const log = Math.fround(
    Math.fround(Math.log(Math.fround(n / exact))) / Math.fround(Math.log(maxDistance / exact)),
  );
  return offset + Math.min(half - 1, exact + Math.floor(Math.fround(log * (half - exact))));
}
