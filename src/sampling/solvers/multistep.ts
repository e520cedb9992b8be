/** Solvers that reuse the predictions of earlier steps: one evaluation a step, no randomness. */
import { History, type Term } from '../algebra.js';
import { eulerStep, intervals, startState } from '../solver.js';
import type { Sampling, SolverRun } from '../solver.js';

const kLmsOrder = 4;

/** Linear multistep (Adams–Bashforth with uneven steps) of order 4 on dx/dσ = (x − D)/σ. */
export function* lms<V extends Disposable>(run: SolverRun<V>): Sampling<V> {
  using x = startState(run);
  using slopes = new History<V>(kLmsOrder);
  for (const at of intervals(run.sigmas)) {
    using denoised = run.denoise(x.current, at.sigma);
    slopes.push(slopeOf(run, x.current, denoised, at.sigma));
    if (at.sigmaNext === 0 && run.options.lastStep === 'denoised') eulerStep(run, x, denoised, 0);
    else {
      const weights = adamsWeights(run.sigmas, at.step, slopes.length);
      const terms = weights.map((weight, age): Term<V> => [weight, slopes.at(age)]);
      x.replace(run.algebra.combine([[1, x.current], ...terms]));
    }
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}

/** (x − D)/σ, which is also the noise ε the model sees in x. */
export function slopeOf<V extends Disposable>(run: SolverRun<V>, x: V, denoised: V, sigma: number): V {
  return run.algebra.combine([
    [1 / sigma, x],
    [-1 / sigma, denoised],
  ]);
}

/** ∫ over [σ_step, σ_step+1] of the Lagrange polynomials through the last `order` levels, newest first. */
function adamsWeights(sigmas: readonly number[], step: number, order: number): number[] {
  const nodes = Array.from({ length: order }, (_, age) => sigmas[step - age]!);
  const from = sigmas[step]!;
  const half = (sigmas[step + 1]! - from) / 2;
  // Two Gauss points integrate polynomials up to degree 3 exactly: enough for order 4.
  const points = [-1, 1].map((sign) => from + half + (sign * half) / Math.sqrt(3));
  return nodes.map((_, j) => half * points.reduce((sum, point) => sum + lagrange(nodes, j, point), 0));
}

/** The polynomial that is 1 at nodes[j] and 0 at the others, at `at`. */
export function lagrange(nodes: readonly number[], j: number, at: number): number {
  let value = 1;
  for (let k = 0; k < nodes.length; k++) if (k !== j) value *= (at - nodes[k]!) / (nodes[j]! - nodes[k]!);
  return value;
}

/**
 * DPM-Solver++(2M), arXiv:2211.01095 algorithm 2: x ← (σNext/σ)x + (1 − σNext/σ)·D̃ with D extrapolated half a step
 * ahead in λ = −ln σ, D̃ = (1 + 1/2r)D − (1/2r)D_last. On flow models the same in σ, as ComfyUI and SD3.5 have it.
 */
export function* dpmpp2m<V extends Disposable>(run: SolverRun<V>): Sampling<V> {
  using x = startState(run);
  using predictions = new History<V>(2);
  let lastStride = 0;
  for (const at of intervals(run.sigmas)) {
    const denoised = predictions.push(run.denoise(x.current, at.sigma));
    const ratio = at.sigmaNext / at.sigma;
    const stride = -Math.log(ratio);
    if (predictions.length === 1 || at.sigmaNext === 0) eulerStep(run, x, denoised, ratio);
    else {
      const ahead = stride / lastStride / 2;
      x.replace(
        run.algebra.combine([
          [ratio, x.current],
          [(1 - ratio) * (1 + ahead), denoised],
          [(ratio - 1) * ahead, predictions.at(1)],
        ]),
      );
    }
    lastStride = stride;
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}

/** Adams–Bashforth weights for even steps, by the number of slopes at hand, newest first. */
const kEvenAdams = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]];

/** PLMS (PNDM's linear multistep, arXiv:2202.09778): the first step is Heun's, so it costs one evaluation more. */
export function* plms<V extends Disposable>(run: SolverRun<V>): Sampling<V> {
  using x = startState(run);
  using slopes = new History<V>(kEvenAdams.length);
  for (const at of intervals(run.sigmas)) {
    using denoised = run.denoise(x.current, at.sigma);
    slopes.push(slopeOf(run, x.current, denoised, at.sigma));
    const stride = at.sigmaNext - at.sigma;
    if (at.step === 0 && at.sigmaNext > 0) {
      using end = run.algebra.combine([
        [1, x.current],
        [stride, slopes.at(0)],
      ]);
      using endDenoised = run.denoise(end, at.sigmaNext);
      using endSlope = slopeOf(run, end, endDenoised, at.sigmaNext);
      x.replace(
        run.algebra.combine([
          [1, x.current],
          [stride / 2, slopes.at(0)],
          [stride / 2, endSlope],
        ]),
      );
    } else {
      const weights = kEvenAdams[slopes.length - 1]!;
      const terms = weights.map((weight, age): Term<V> => [stride * weight, slopes.at(age)]);
      x.replace(run.algebra.combine([[1, x.current], ...terms]));
    }
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}
