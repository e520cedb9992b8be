/**
 * DPM-Solver++ for the diffusion SDE (arXiv:2211.01095 §5 and its authors' SDE solvers), in λ = ln(α/σ), h = λNext − λ:
 *   x ← (σNext/σ)e^(−ηh)·x + αNext(1 − e^(−(1+η)h))·D̃ + σNext·√(1 − e^(−2ηh))·noise
 * Flow models begin at 0.01 % of the sampling, since pure noise has no finite λ.
 */
import { History, type State, type Term } from '../algebra.js';
import {
  explodingAncestralStep,
  halfLogSnr,
  isFlow,
  sigmaOfHalfLogSnr,
  signalScale,
} from '../noise_level.js';
import { addNoise, eulerStep, intervals, sigmasWithFiniteSnr, startState } from '../solver.js';
import type { Interval, Sampling, SolverRun } from '../solver.js';

/** Two evaluations a step: at σ and half way in λ; the second serves the whole step. */
export function* dpmppSde<V extends Disposable>(run: SolverRun<V>): Sampling<V> {
  const flow = isFlow(run.model);
  using x = startState(run);
  for (const at of intervals(sigmasWithFiniteSnr(run))) {
    using denoised = run.denoise(x.current, at.sigma);
    if (at.sigmaNext === 0) eulerStep(run, x, denoised, 0);
    else {
      const lambdaMid = (halfLogSnr(flow, at.sigma) + halfLogSnr(flow, at.sigmaNext)) / 2;
      const half = { sigma: at.sigma, sigmaNext: sigmaOfHalfLogSnr(flow, lambdaMid) };
      using mid = startState({ ...run, x: x.current });
      stochasticStep(run, mid, denoised, half);
      using midDenoised = run.denoise(mid.current, half.sigmaNext);
      stochasticStep(run, x, midDenoised, at);
    }
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}

/** One ancestral step in coordinates x/α, where the noise level is σ/α = e^(−λ). */
function stochasticStep<V extends Disposable>(
  run: SolverRun<V>,
  x: State<V>,
  denoised: V,
  at: Pick<Interval, 'sigma' | 'sigmaNext'>,
): void {
  const flow = isFlow(run.model);
  const alpha = signalScale(flow, at.sigma);
  const alphaNext = signalScale(flow, at.sigmaNext);
  const level = at.sigma / alpha;
  const { eta } = run.options;
  const { down, up } = explodingAncestralStep(level, at.sigmaNext / alphaNext, eta);
  x.replace(
    run.algebra.combine([
      [((alphaNext / alpha) * down) / level, x.current],
      [alphaNext * (1 - down / level), denoised],
    ]),
  );
  addNoise(run, x, at, { scale: 1, up: alphaNext * up });
}

/** The parts of a multistep SDE step that do not depend on the order. */
interface SdeStep extends Interval {
  /** λNext − λ */
  readonly h: number;
  /** (1 + eta) · h */
  readonly hEta: number;
  readonly alphaNext: number;
}

function sdeStep(flow: boolean, eta: number, at: Interval): SdeStep {
  const h = halfLogSnr(flow, at.sigmaNext) - halfLogSnr(flow, at.sigma);
  return { ...at, h, hEta: (1 + eta) * h, alphaNext: signalScale(flow, at.sigmaNext) };
}

/** x ← first-order step + `correction` (terms in the predictions) + noise. */
function multistepStep<V extends Disposable>(
  run: SolverRun<V>,
  x: State<V>,
  at: SdeStep,
  denoised: V,
  correction: readonly Term<V>[],
): void {
  const { eta } = run.options;
  x.replace(
    run.algebra.combine([
      [(at.sigmaNext / at.sigma) * Math.exp(-at.h * eta), x.current],
      [-at.alphaNext * Math.expm1(-at.hEta), denoised],
      ...correction,
    ]),
  );
  addNoise(run, x, at, { scale: 1, up: at.sigmaNext * Math.sqrt(-Math.expm1(-2 * at.h * eta)) });
}

/** How the second-order term weighs D − D_last: e^(−x) − 1 + … at x = (1 + eta)h. */
type SecondOrder = (hEta: number) => number;
const midpoint: SecondOrder = (hEta) => -Math.expm1(-hEta) / 2;
const heun: SecondOrder = (hEta) => Math.expm1(-hEta) / hEta + 1;

/** DPM-Solver++(2M) SDE, with the midpoint rule. One evaluation a step. */
export const dpmpp2mSde = <V extends Disposable>(run: SolverRun<V>): Sampling<V> =>
  secondOrder(run, midpoint);

/** The same with Heun's rule. */
export const dpmpp2mSdeHeun = <V extends Disposable>(run: SolverRun<V>): Sampling<V> =>
  secondOrder(run, heun);

function* secondOrder<V extends Disposable>(run: SolverRun<V>, rule: SecondOrder): Sampling<V> {
  using x = startState(run);
  using predictions = new History<V>(2);
  let lastH = 0;
  for (const at of intervals(sigmasWithFiniteSnr(run))) {
    const denoised = predictions.push(run.denoise(x.current, at.sigma));
    if (at.sigmaNext === 0) eulerStep(run, x, denoised, 0);
    else {
      const step = sdeStep(isFlow(run.model), run.options.eta, at);
      multistepStep(run, x, step, denoised, secondOrderTerms(predictions, step, lastH, rule));
      lastH = step.h;
    }
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}

/** αNext · rule · (D − D_last) · h/h_last */
function secondOrderTerms<V extends Disposable>(
  predictions: History<V>,
  { h, hEta, alphaNext }: SdeStep,
  lastH: number,
  rule: SecondOrder,
): Term<V>[] {
  if (predictions.length < 2) return [];
  const weight = (alphaNext * rule(hEta) * h) / lastH;
  return [
    [weight, predictions.at(0)],
    [-weight, predictions.at(1)],
  ];
}

/** DPM-Solver++(3M) SDE: third order once three predictions are at hand. One evaluation a step. */
export function* dpmpp3mSde<V extends Disposable>(run: SolverRun<V>): Sampling<V> {
  using x = startState(run);
  using predictions = new History<V>(3);
  let lastH: number[] = [];
  for (const at of intervals(sigmasWithFiniteSnr(run))) {
    const denoised = predictions.push(run.denoise(x.current, at.sigma));
    if (at.sigmaNext === 0) eulerStep(run, x, denoised, 0);
    else {
      const step = sdeStep(isFlow(run.model), run.options.eta, at);
      const correction =
        predictions.length < 3
          ? secondOrderTerms(predictions, step, lastH[0]!, heun)
          : thirdOrderTerms(predictions, step, lastH[0]!, lastH[1]!);
      multistepStep(run, x, step, denoised, correction);
      lastH = [step.h, ...lastH.slice(0, 1)];
    }
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}

/**
 * αNext(φ2·D′ − φ3·D″) with φ2 = (e^(−x) − 1)/x + 1, φ3 = φ2/x − 1/2 at x = (1 + eta)h, and D′, D″ from the last three
 * predictions by divided differences.
 */
function thirdOrderTerms<V extends Disposable>(
  predictions: History<V>,
  { h, hEta, alphaNext }: SdeStep,
  lastH: number,
  lastButOneH: number,
): Term<V>[] {
  const r0 = lastH / h;
  const r1 = lastButOneH / h;
  const phi2 = heun(hEta);
  const phi3 = phi2 / hEta - 0.5;
  // D′ = u + (u − w)·r0/(r0 + r1), D″ = (u − w)/(r0 + r1), u = (D − D1)/r0, w = (D1 − D2)/r1.
  const difference = (phi2 * r0 - phi3) / (r0 + r1);
  const newest = (alphaNext * (phi2 + difference)) / r0;
  const oldest = (alphaNext * difference) / r1;
  return [
    [newest, predictions.at(0)],
    [-newest - oldest, predictions.at(1)],
    [oldest, predictions.at(2)],
  ];
}
