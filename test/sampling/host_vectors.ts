/** Vectors in host memory that count the living and refuse use after dispose, and the golden README's denoisers. */
import type { Algebra, Denoiser, NoiseSource, Sampling, SamplingStep } from '../../src/sampling/index.js';

type Floats = Float64Array | Float32Array;

export class HostVector implements Disposable {
  static living = 0;
  #values: Floats | undefined;

  constructor(values: Floats) {
    this.#values = values;
    HostVector.living++;
  }

  get values(): Floats {
    if (!this.#values) throw new Error('vector used after dispose');
    return this.#values;
  }

  [Symbol.dispose](): void {
    if (!this.#values) throw new Error('vector disposed of twice');
    this.#values = undefined;
    HostVector.living--;
  }
}

export interface HostAlgebra extends Algebra<HostVector> {
  of(values: ArrayLike<number>): HostVector;
}

function hostAlgebra(allocate: (values: ArrayLike<number>) => Floats): HostAlgebra {
  const of = (values: ArrayLike<number>): HostVector => new HostVector(allocate(values));
  return {
    of,
    combine(terms) {
      const length = terms[0]![1].values.length;
      const sums = new Float64Array(length);
      for (const [coefficient, { values }] of terms)
        for (let i = 0; i < length; i++) sums[i]! += coefficient * values[i]!;
      return of(sums);
    },
  };
}

export const double = hostAlgebra((values) => Float64Array.from(values));
export const single = hostAlgebra((values) => Float32Array.from(values));

const bias = (i: number): number => (i - 7.5) / 8;

export function analyticDenoised(x: ArrayLike<number>, sigma: number): Float64Array {
  const variance = 1 + sigma * sigma;
  const scale = Math.sqrt(variance);
  return Float64Array.from(
    x,
    (value, i) => value / variance + ((0.5 * sigma) / scale) * Math.tanh(value / scale + bias(i)),
  );
}

export function analyticFlowDenoised(x: ArrayLike<number>, t: number): Float64Array {
  return Float64Array.from(x, (value, i) => {
    const velocity = Math.tanh(0.5 * value * (1 + t) + bias(i)) + 0.5 * value * t - 0.25 * bias(i);
    return value - t * velocity;
  });
}

export interface Counted {
  readonly denoise: Denoiser<HostVector>;
  readonly noise: NoiseSource<HostVector>;
  evaluations: number;
  readonly draws: [sigma: number, sigmaNext: number][];
}

/** A denoiser and a noise source that returns `rows` in order, both counting their calls. */
export function counted(
  algebra: HostAlgebra,
  formula: (x: ArrayLike<number>, sigma: number) => Float64Array,
  rows: (k: number) => ArrayLike<number>,
): Counted {
  const calls: Counted = {
    evaluations: 0,
    draws: [],
    denoise(x, sigma) {
      calls.evaluations++;
      return algebra.of(formula(x.values, sigma));
    },
    noise(sigma, sigmaNext) {
      calls.draws.push([sigma, sigmaNext]);
      return algebra.of(rows(calls.draws.length - 1));
    },
  };
  return calls;
}

/** Takes all steps; the result is the caller's. */
export function finish(
  sampling: Sampling<HostVector>,
  each: (step: SamplingStep<HostVector>) => void = () => {},
): HostVector {
  let turn = sampling.next();
  for (; !turn.done; turn = sampling.next()) each(turn.value);
  return turn.value;
}
