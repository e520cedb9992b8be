/**
 * Ancestral solvers: a deterministic step down to σdown < σNext, then fresh noise up to σNext (noise_level.ts).
 * For flow models the same with the signal's scale kept right, as ComfyUI's rectified-flow forms have it.
 */
import { moveTowards, type State } from '../algebra.js';
import { ancestralStep, halfLogSnr, isFlow, sigmaOfHalfLogSnr } from '../noise_level.js';
import { addNoise, eulerStep, firstOrderStep, intervals, startState, stepTo } from '../solver.js';
import type { Sampling, SolverRun, Step } from '../solver.js';
import { midpointStep } from './churned.js';

/** The loop of all three. */
function* ancestral<V extends Disposable>(run: SolverRun<V>, step: Step): Sampling<V> {
  using x = startState(run);
  for (const at of intervals(run.sigmas)) {
    using denoised = run.denoise(x.current, at.sigma);
    const split = ancestralStep(isFlow(run.model), at.sigma, at.sigmaNext, run.options.eta);
    stepTo(step, run, x, denoised, { from: at.sigma, to: split.down });
    addNoise(run, x, at, split);
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}

/**
 * Euler ancestral. In these coordinates DDIM (arXiv:2010.02502, eq. 12) is the same step: eta 0 deterministic DDIM,
 * eta 1 DDPM; so `ddim` is this loop with eta 0.
 */
export const eulerAncestral = <V extends Disposable>(run: SolverRun<V>): Sampling<V> =>
  ancestral(run, firstOrderStep);

/** DPM-Solver-2 (arXiv:2206.00927) down to σdown, then noise. Two evaluations a step, one in a step to 0. */
export const dpm2Ancestral = <V extends Disposable>(run: SolverRun<V>): Sampling<V> =>
  ancestral(run, midpointStep);

/** DPM-Solver++(2S), arXiv:2211.01095 algorithm 1: the prediction half way in λ serves the whole step. */
export const dpmpp2sAncestral = <V extends Disposable>(run: SolverRun<V>): Sampling<V> =>
  ancestral(run, singleStep);

function singleStep<V extends Disposable>(
  run: SolverRun<V>,
  x: State<V>,
  denoised: V,
  sigma: number,
  sigmaNext: number,
): void {
  const sigmaMid = halfWayInSnr(isFlow(run.model), sigma, sigmaNext);
  using mid = moveTowards(run.algebra, x.current, denoised, sigmaMid / sigma);
  using midDenoised = run.denoise(mid, sigmaMid);
  eulerStep(run, x, midDenoised, sigmaNext / sigma);
}

/** Pure noise of a flow has λ = −∞: half way from there is as near to it as ComfyUI goes, so that pictures agree. */
function halfWayInSnr(flow: boolean, sigma: number, sigmaNext: number): number {
  if (flow && sigma >= 1) return 0.9999;
  return sigmaOfHalfLogSnr(flow, (halfLogSnr(flow, sigma) + halfLogSnr(flow, sigmaNext)) / 2);
}
