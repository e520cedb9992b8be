/** What a solver needs of a latent: linear combinations, nothing else. Device tensors and plain arrays both have them. */

/** One weight and the vector it multiplies. */
export type Term<V> = readonly [coefficient: number, vector: V];

export interface Algebra<V extends Disposable> {
  /** Σ coefficient · vector as a new vector, which the caller owns. There is at least one term. */
  combine(terms: readonly Term<V>[]): V;
}

/** The prediction D(x, σ) of the clean latent in `x`, which has noise level `sigma`. The caller owns the result. */
export type Denoiser<V> = (x: V, sigma: number) => V;

/** Fresh N(0, 1) noise for the step from `sigma` down to `sigmaNext`. The caller owns the result. */
export type NoiseSource<V> = (sigma: number, sigmaNext: number) => V;

/** An owned vector that a loop replaces step by step. */
export class State<V extends Disposable> implements Disposable {
  #value: V | undefined;

  constructor(value: V) {
    this.#value = value;
  }

  get current(): V {
    return this.#value!;
  }

  replace(next: V): void {
    const last = this.#value;
    this.#value = next;
    last?.[Symbol.dispose]();
  }

  /** Hands the vector to the caller. */
  release(): V {
    const value = this.#value!;
    this.#value = undefined;
    return value;
  }

  [Symbol.dispose](): void {
    this.#value?.[Symbol.dispose]();
    this.#value = undefined;
  }
}

/** The last `limit` owned vectors of a multistep method, newest first. */
export class History<V extends Disposable> implements Disposable {
  readonly #limit: number;
  #vectors: V[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  get length(): number {
    return this.#vectors.length;
  }

  /** Takes ownership of `newest`, forgets the oldest, and returns `newest` as borrowed. */
  push(newest: V): V {
    this.#vectors.unshift(newest);
    if (this.#vectors.length > this.#limit) this.#vectors.pop()![Symbol.dispose]();
    return newest;
  }

  /** @param age 0 is the newest */
  at(age: number): V {
    return this.#vectors[age]!;
  }

  [Symbol.dispose](): void {
    for (const vector of this.#vectors) vector[Symbol.dispose]();
    this.#vectors = [];
  }
}

export function copy<V extends Disposable>(algebra: Algebra<V>, x: V): V {
  return algebra.combine([[1, x]]);
}

/** ratio · x + (1 − ratio) · denoised: Euler's step of dx/dσ = (x − D)/σ from σ to ratio · σ. */
export function moveTowards<V extends Disposable>(algebra: Algebra<V>, x: V, denoised: V, ratio: number): V {
  if (ratio === 0) return copy(algebra, denoised);
  return algebra.combine([
    [ratio, x],
    [1 - ratio, denoised],
  ]);
}
