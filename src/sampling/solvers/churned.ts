/**
 * The solvers of arXiv:2206.00364, algorithm 2, on dx/dσ = (x − D(x, σ))/σ: before each step "churn" may raise the
 * noise level from σ to σ̂ = σ(1 + γ), γ = min(sChurn/steps, √2 − 1); then Euler, Heun or midpoint from σ̂ to the next.
 */
import { moveTowards, type State } from '../algebra.js';
import { firstOrderStep, intervals, startState, stepTo } from '../solver.js';
import type { Interval, Sampling, SolverRun, Step } from '../solver.js';

/** Raises x to σ̂ and returns σ̂. With churn, noise is drawn in every step, so that the stream does not depend on sTmin. */
function churn<V extends Disposable>(run: SolverRun<V>, x: State<V>, at: Interval): number {
  const { sChurn, sTmin, sTmax, sNoise } = run.options;
  if (sChurn === 0) return at.sigma;
  using noise = run.noise(at.sigma, at.sigmaNext);
  if (at.sigma < sTmin || at.sigma > sTmax) return at.sigma;
  const sigmaHat = at.sigma * (1 + Math.min(sChurn / at.steps, Math.SQRT2 - 1));
  const added = Math.sqrt(sigmaHat ** 2 - at.sigma ** 2) * sNoise;
  x.replace(
    run.algebra.combine([
      [1, x.current],
      [added, noise],
    ]),
  );
  return sigmaHat;
}

/** The loop of all three. */
function* churned<V extends Disposable>(run: SolverRun<V>, step: Step): Sampling<V> {
  using x = startState(run);
  for (const at of intervals(run.sigmas)) {
    const from = churn(run, x, at);
    using denoised = run.denoise(x.current, from);
    stepTo(step, run, x, denoised, { from, to: at.sigmaNext });
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}

/** Euler: x ← x + (σNext − σ̂)(x − D)/σ̂. One evaluation a step. BFL's sampler for Flux is this one without churn. */
export const euler = <V extends Disposable>(run: SolverRun<V>): Sampling<V> => churned(run, firstOrderStep);

/** Heun: Euler's step, then the mean of both ends' slopes. Two evaluations a step, one in a step to 0. */
export const heun = <V extends Disposable>(run: SolverRun<V>): Sampling<V> => churned(run, heunStep);

/** DPM-Solver-2 in σ (arXiv:2206.00927): the slope at √(σ̂ · σNext) for the whole step. Two evaluations a step. */
export const dpm2 = <V extends Disposable>(run: SolverRun<V>): Sampling<V> => churned(run, midpointStep);

function heunStep<V extends Disposable>(
  run: SolverRun<V>,
  x: State<V>,
  denoised: V,
  sigma: number,
  sigmaNext: number,
): void {
  using end = moveTowards(run.algebra, x.current, denoised, sigmaNext / sigma);
  using endDenoised = run.denoise(end, sigmaNext);
  const half = (sigmaNext - sigma) / 2;
  x.replace(
    run.algebra.combine([
      [1 + half / sigma, x.current],
      [-half / sigma, denoised],
      [half / sigmaNext, end],
      [-half / sigmaNext, endDenoised],
    ]),
  );
}

/** x ← x + (σNext − σ)(m − D(m))/σm with m the Euler step to σm = √(σ · σNext). */
export function midpointStep<V extends Disposable>(
  run: SolverRun<V>,
  x: State<V>,
  denoised: V,
  sigma: number,
  sigmaNext: number,
): void {
  const sigmaMid = Math.sqrt(sigma * sigmaNext);
  using mid = moveTowards(run.algebra, x.current, denoised, sigmaMid / sigma);
  using midDenoised = run.denoise(mid, sigmaMid);
  const slope = (sigmaNext - sigma) / sigmaMid;
  x.replace(
    run.algebra.combine([
      [1, x.current],
      [slope, mid],
      [-slope, midDenoised],
    ]),
  );
}
