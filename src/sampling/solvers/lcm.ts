/**
 * Latent consistency sampling, arXiv:2310.04378: take the prediction, noise it anew to the next level,
 * x ← α(σNext)·D + σNext·noise.
 */
import { signalScale, isFlow } from '../noise_level.js';
import { addNoise, eulerStep, intervals, startState } from '../solver.js';
import type { Sampling, SolverRun } from '../solver.js';

export function* lcm<V extends Disposable>(run: SolverRun<V>): Sampling<V> {
  using x = startState(run);
  for (const at of intervals(run.sigmas)) {
    using denoised = run.denoise(x.current, at.sigma);
    eulerStep(run, x, denoised, 0);
    addNoise(run, x, at, { scale: signalScale(isFlow(run.model), at.sigmaNext), up: at.sigmaNext });
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}
