/** What a linear has to give at sampled places, in double precision, and how far off it may be. */
import type { LinearCase } from './ops_cases.js';
import { eps, matmulAt, relativeError, rounded, type Places } from './ops_reference.js';

export interface LinearInputs {
  /** [m, k] */
  readonly x: Float32Array;
  /** [sampled columns, k], decoded */
  readonly w: Float32Array;
  /** [n] */
  readonly bias?: Float32Array | undefined;
  /** [m, n] of a gated unit, [n] of a modulated block */
  readonly multiply?: Float32Array | undefined;
  /** [m, n] */
  readonly add?: Float32Array | undefined;
}

export interface LinearExpectation {
  readonly values: Float64Array;
  /** Of ours. */
  readonly bound: number;
  /** Of a peer that rounds after every step, and may keep its residual in 16 bits. */
  readonly peerBound: number;
}

/** Of int8 on normal values: 1/127 of a block's largest value, as a step, and the same for float weights. */
const int8Bound = 0.012;
/** c · eps · sqrt(k) relative to the result's size, c = 4: FP32 accumulation in any order. */
const fp32Bound = (k: number): number => 4 * eps * Math.sqrt(k);
/** Half a step of the last bit. */
const sixteenBitEps = { fp16: 2 ** -11, bf16: 2 ** -8 } as const;

/**
 * In 16 bits the bound is twice the error of the plain computation (KERNELS §7): x and w rounded once, exact sums, the
 * result rounded once.
 */
export function expectedLinear(c: LinearCase, inputs: LinearInputs, places: Places): LinearExpectation {
  const { k, precision } = c;
  const values = outputs(c, inputs, inputs.w, places);
  if (precision === 'int8') return { values, bound: int8Bound, peerBound: int8Bound };
  const sums = fp32Bound(k);
  if (precision === 'fp32') return { values, bound: sums, peerBound: sums };
  const plain = outputs(c, inputs, rounded(precision, inputs.w), places);
  const stored = c.epilogue === 'residual' ? plain : rounded(precision, plain);
  const bound = 2 * relativeError(stored, values) + sums;
  return { values, bound, peerBound: Math.max(bound, 8 * sixteenBitEps[precision]) };
}

function outputs(c: LinearCase, inputs: LinearInputs, w: ArrayLike<number>, places: Places): Float64Array {
  const { n, k, epilogue } = c;
  const { rows, cols } = places;
  const products = matmulAt(inputs.x, w, k, { rows, cols: cols.map((_, i) => i) });
  if (epilogue === undefined) return products;
  return products.map((product, i) => {
    const [row, col] = [rows[Math.floor(i / cols.length)]!, cols[i % cols.length]!];
    const sum = product + (inputs.bias?.[col] ?? 0);
    const active = epilogue === 'residual' ? sum : geluTanh(sum);
    const factor = inputs.multiply?.[epilogue === 'gated' ? row * n + col : col] ?? 1;
    return active * factor + (inputs.add?.[row * n + col] ?? 0);
  });
}

/** arXiv:1606.08415, the tanh form. */
function geluTanh(x: number): number {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}
