/**
 * UniPC, arXiv:2302.04867: a multistep predictor, and a corrector of the same order that uses the evaluation the next
 * step needs anyway. Order 3 in data prediction, λ = −ln σ; bh1: B(h) = −h, bh2: B(h) = e^(−h) − 1.
 * In the coordinates x/α the same formulas serve eps, v and flow models. One evaluation a step.
 */
import { copy, History, State, type Term } from '../algebra.js';
import { intervals, startState } from '../solver.js';
import type { Sampling, SolverRun } from '../solver.js';

const kOrder = 3;
/** λ at σ = 0 is infinite: the last step ends here, as in ComfyUI. */
const kSigmaEnd = 1e-3;

type Variant = (minusH: number) => number;

export const uniPcBh1 = <V extends Disposable>(run: SolverRun<V>): Sampling<V> =>
  uniPc(run, (minusH) => minusH);
export const uniPcBh2 = <V extends Disposable>(run: SolverRun<V>): Sampling<V> => uniPc(run, Math.expm1);

/** `x` is the predicted state; `anchor` the corrected one at the beginning of the last step. */
function* uniPc<V extends Disposable>(run: SolverRun<V>, variant: Variant): Sampling<V> {
  const sigmas = run.sigmas.map((sigma) => (sigma === 0 ? kSigmaEnd : sigma));
  const steps = sigmas.length - 1;
  using x = startState(run);
  using anchor = new State(copy(run.algebra, run.x));
  using predictions = new History<V>(kOrder + 1);
  for (const at of intervals(run.sigmas)) {
    const denoised = predictions.push(run.denoise(x.current, sigmas[at.step]!));
    if (at.step > 0) {
      const weights = uniPcWeights(sigmas, at.step, orderOf(at.step, steps), variant);
      // The newest prediction, which the predictor did not have, comes first.
      x.replace(moveAlong(run, anchor.current, weights.ratio, predictions, weights.corrector));
    }
    anchor.replace(copy(run.algebra, x.current));
    const weights = uniPcWeights(sigmas, at.step + 1, orderOf(at.step + 1, steps), variant);
    x.replace(moveAlong(run, anchor.current, weights.ratio, predictions, weights.predictor));
    yield { ...at, x: x.current, denoised };
  }
  return x.release();
}

/** The order of the step to level `i`: rises while the history fills, falls at the end, where high orders overshoot. */
function orderOf(i: number, steps: number): number {
  const highest = Math.max(1, Math.min(kOrder, steps - 1));
  return i < highest ? i : Math.min(highest, steps + 1 - i);
}

function moveAlong<V extends Disposable>(
  run: SolverRun<V>,
  x: V,
  ratio: number,
  predictions: History<V>,
  weights: readonly number[],
): V {
  const terms = weights.map((weight, age): Term<V> => [weight, predictions.at(age)]);
  return run.algebra.combine([[ratio, x], ...terms]);
}

interface UniPcWeights {
  /** σ_i / σ_(i−1) */
  readonly ratio: number;
  /** On D_(i−1), D_(i−2), … */
  readonly predictor: readonly number[];
  /** On D_i, D_(i−1), … */
  readonly corrector: readonly number[];
}

/** Weights of the step from level i − 1 to level i. */
function uniPcWeights(sigmas: readonly number[], i: number, order: number, variant: Variant): UniPcWeights {
  const lambda = (j: number): number => -Math.log(sigmas[j]!);
  const h = lambda(i) - lambda(i - 1);
  const ratio = sigmas[i]! / sigmas[i - 1]!;
  const scale = -variant(-h);
  // Where the earlier predictions lie, in units of h from level i − 1; the new level lies at 1.
  const places = Array.from({ length: order - 1 }, (_, k) => (lambda(i - 2 - k) - lambda(i - 1)) / h);
  const moments = uniPcMoments(-h, order, variant(-h));
  const rhoPredictor = order === 2 ? [0.5] : solveVandermonde(places, moments.slice(0, -1));
  const rhoCorrector = order === 1 ? [0.5] : solveVandermonde([...places, 1], moments);

  // Σ rho_k (D_(i−2−k) − D_(i−1))/place_k, written as weights on the predictions themselves.
  const onEarlier = (rho: readonly number[]): number[] => places.map((place, k) => (scale * rho[k]!) / place);
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
  const predicted = onEarlier(rhoPredictor);
  const corrected = onEarlier(rhoCorrector);
  const onNew = scale * rhoCorrector[order - 1]!;
  return {
    ratio,
    predictor: [1 - ratio - sum(predicted), ...predicted],
    corrector: [onNew, 1 - ratio - sum(corrected) - onNew, ...corrected],
  };
}

/** k! · φ_(k+1)(z) · z / B for k = 1 … order, with φ_1(z) = (e^z − 1)/z and φ_(k+1)(z) = (φ_k(z) − 1/k!)/z. */
function uniPcMoments(z: number, order: number, b: number): number[] {
  const moments: number[] = [];
  let factorial = 1;
  let phi = Math.expm1(z) / z - 1;
  for (let k = 1; k <= order; k++) {
    moments.push((phi * factorial) / b);
    factorial *= k + 1;
    phi = phi / z - 1 / factorial;
  }
  return moments;
}

/** Solves Σ_j places[j]^row · y[j] = rhs[row] by elimination; at most 3 × 3 with distinct places. */
function solveVandermonde(places: readonly number[], rhs: readonly number[]): number[] {
  const n = places.length;
  const rows = rhs.map((value, row) => [...places.map((place) => place ** row), value]);
  for (let pivot = 0; pivot < n; pivot++) {
    let best = pivot;
    for (let row = pivot + 1; row < n; row++)
      if (Math.abs(rows[row]![pivot]!) > Math.abs(rows[best]![pivot]!)) best = row;
    [rows[pivot], rows[best]] = [rows[best]!, rows[pivot]!];
    for (let row = 0; row < n; row++) {
      if (row === pivot) continue;
      const factor = rows[row]![pivot]! / rows[pivot]![pivot]!;
      for (let column = pivot; column <= n; column++) rows[row]![column]! -= factor * rows[pivot]![column]!;
    }
  }
  return rows.map((row, j) => row[n]! / row[j]!);
}
