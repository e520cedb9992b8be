/**
 * DEIS, arXiv:2204.13902 ("tAB-DEIS", order 3): x ← x + Σ c_j·ε_j, c_j = ∫ w(t)·ℓ_j(t) dt with ℓ_j the Lagrange
 * polynomials in the time t of a variance-preserving SDE whose σ runs from 80 to 0.002 as t runs from 1 to 0.001,
 * and w = dσ/dt.
 */
import { History, type Term } from '../algebra.js';
import { eulerStep, intervals, startState } from '../solver.js';
import type { Sampling, SolverRun } from '../solver.js';
import { lagrange, slopeOf } from './multistep.js';

const kOrder = 3;
const kSigmaMin = 0.002;
const kSigmaMax = 80;
const kTimeMin = 1e-3;
/** The reference sums this many points; an exact integral would give pictures that differ by 1e-3. */
const kPoints = 10_000;

// ln(1 + σ²) = slope · t²/2 + start · t through both ends.
const kLogMin = Math.log(kSigmaMin ** 2 + 1);
const kLogMax = Math.log(kSigmaMax ** 2 + 1);
const kBetaSlope = (2 * (kLogMin / kTimeMin - kLogMax)) / (kTimeMin - 1);
const kBetaStart = kLogMax - 0.5 * kBetaSlope;

export function* deis<V extends Disposable>(run: SolverRun<V>): Sampling<V> {
  using x = startState(run);
  using slopes = new History<V>(kOrder);
  const times = run.sigmas.map(timeOfSigma);
  for (const at of intervals(run.sigmas)) {
    using denoised = run.denoise(x.current, at.sigma);
    slopes.push(slopeOf(run, x.current, denoised, at.sigma));
    if (slopes.length === 1 || at.sigmaNext === 0) eulerStep(run, x, denoised, at.sigmaNext / at.sigma);
    else {
      const weights = deisWeights(times, at.step, slopes.length);
      const terms = weights.map((weight, age): Term<V> => [weight, slopes.at(age)]);
      x.replace(run.algebra.combine([[1, x.current], ...terms]));
    }
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}

function timeOfSigma(sigma: number): number {
  return (Math.sqrt(kBetaStart ** 2 + 2 * kBetaSlope * Math.log(sigma ** 2 + 1)) - kBetaStart) / kBetaSlope;
}

/** Weights of the slopes, newest first, for the step from times[step] to the next. */
function deisWeights(times: readonly number[], step: number, order: number): number[] {
  const nodes = Array.from({ length: order }, (_, age) => times[step - age]!);
  const from = times[step]!;
  const span = times[step + 1]! - from;
  const weights = new Array<number>(order).fill(0);
  for (let i = 0; i < kPoints; i++) {
    const t = from + (span * i) / (kPoints - 1);
    const density = slopeDensity(t) * (span / kPoints);
    for (let j = 0; j < order; j++) weights[j]! += density * lagrange(nodes, j, t);
  }
  return weights;
}

/** dσ/dt = −½ (d ln ᾱ/dt)/√(ᾱ(1 − ᾱ)) with ᾱ = 1/(1 + σ²) = exp(−slope · t²/2 − start · t). */
function slopeDensity(t: number): number {
  const alpha = Math.exp(-0.5 * t * t * kBetaSlope - t * kBetaStart);
  return (0.5 * (t * kBetaSlope + kBetaStart)) / Math.sqrt(alpha * (1 - alpha));
}
