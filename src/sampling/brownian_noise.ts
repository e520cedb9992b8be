/**
 * Noise along one Brownian path in σ. `dpmpp_sde` asks for the increments over [σ, σMid] and over [σ, σNext], which
 * overlap: W(σ, σNext) = W(σ, σMid) + W(σMid, σNext), each scaled to variance 1. Of the other solvers' intervals none
 * overlap, so that fresh noise is the same thing.
 */
import { copy, type Algebra } from './algebra.js';

interface Increment<V> {
  readonly sigma: number;
  readonly sigmaNext: number;
  /** N(0, 1) */
  readonly unit: V;
}

export class BrownianNoise<V extends Disposable> implements Disposable {
  readonly #algebra: Algebra<V>;
  readonly #draw: () => V;
  #last: Increment<V> | undefined;

  /** @param draw fresh N(0, 1), owned by the caller */
  constructor(algebra: Algebra<V>, draw: () => V) {
    this.#algebra = algebra;
    this.#draw = draw;
  }

  /** The increment from `sigma` down to `sigmaNext`, scaled to variance 1. The caller owns it. */
  next(sigma: number, sigmaNext: number): V {
    const last = this.#last;
    const extendsLast = last !== undefined && last.sigma === sigma && last.sigmaNext > sigmaNext;
    const unit = extendsLast ? this.#extended(last, sigmaNext) : this.#draw();
    this[Symbol.dispose]();
    this.#last = { sigma, sigmaNext, unit };
    return copy(this.#algebra, unit);
  }

  #extended({ sigma, sigmaNext: middle, unit }: Increment<V>, sigmaNext: number): V {
    using fresh = this.#draw();
    const span = sigma - sigmaNext;
    return this.#algebra.combine([
      [Math.sqrt((sigma - middle) / span), unit],
      [Math.sqrt((middle - sigmaNext) / span), fresh],
    ]);
  }

  [Symbol.dispose](): void {
    this.#last?.unit[Symbol.dispose]();
    this.#last = undefined;
  }
}
