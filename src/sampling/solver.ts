/** What a solver is: a generator that walks the noise levels and yields after every step. */
import { moveTowards, State, copy, type Algebra, type Denoiser, type NoiseSource } from './algebra.js';
import { isFlow, type NoiseLevels } from './noise_level.js';

export interface SolverOptions {
  /** Share of fresh noise in each step: 0 none, 1 the whole ancestral or SDE step. */
  readonly eta?: number;
  /** Factor on the standard deviation of fresh noise. */
  readonly sNoise?: number;
  /** Noise added before each step, spread over the steps (arXiv:2206.00364, algorithm 2); eps and v models. */
  readonly sChurn?: number;
  /** Churn acts where sTmin ≤ σ ≤ sTmax. */
  readonly sTmin?: number;
  readonly sTmax?: number;
  /**
   * How `lms` takes a last step to σ = 0: by the multistep formula (k-diffusion) or by the denoised prediction
   * (ComfyUI). The pictures differ by about 1e-3. By default the former for eps and v, the latter for flow.
   */
  readonly lastStep?: 'multistep' | 'denoised';
}

/** One sampling problem, ready for a solver: everything checked, every option set. */
export interface SolverRun<V extends Disposable> {
  readonly algebra: Algebra<V>;
  readonly denoise: Denoiser<V>;
  /** Fresh noise; may only be called by solvers that say so in the table. */
  readonly noise: NoiseSource<V>;
  /** Start, at noise level sigmas[0]. Borrowed. */
  readonly x: V;
  /** steps + 1 levels, strictly descending; usually ends at 0. */
  readonly sigmas: readonly number[];
  readonly model: NoiseLevels;
  readonly options: Required<SolverOptions>;
}

/** After a step. The vectors are borrowed until the generator is resumed. */
export interface SamplingStep<V> {
  /** 0 … steps − 1 */
  readonly step: number;
  readonly steps: number;
  readonly sigma: number;
  readonly sigmaNext: number;
  /** At level sigmaNext. */
  readonly x: V;
  /** The step's first prediction of the clean latent: what a preview shows. */
  readonly denoised: V;
}

/** Returns the final vector, which the caller owns. Stopping early disposes of everything the solver holds. */
export type Sampling<V> = Generator<SamplingStep<V>, V, void>;

export interface Interval {
  readonly step: number;
  readonly steps: number;
  readonly sigma: number;
  readonly sigmaNext: number;
}

/** The steps of a run: [σ0, σ1], [σ1, σ2], … */
export function* intervals(sigmas: readonly number[]): Generator<Interval, void, void> {
  const steps = sigmas.length - 1;
  for (let step = 0; step < steps; step++)
    yield { step, steps, sigma: sigmas[step]!, sigmaNext: sigmas[step + 1]! };
}

/**
 * λ(σ) of a pure-noise start of a flow is −∞, so solvers that compute in λ begin a hair later, at 0.01 % of the
 * sampling (for shift 3: σ = 0.99997). The start vector stays as it is.
 */
export function sigmasWithFiniteSnr(run: Pick<SolverRun<Disposable>, 'sigmas' | 'model'>): readonly number[] {
  const [first, ...rest] = run.sigmas;
  return isFlow(run.model) && first! >= 1 ? [run.model.percentToSigma(1e-4), ...rest] : run.sigmas;
}

export function startState<V extends Disposable>(run: SolverRun<V>): State<V> {
  return new State(copy(run.algebra, run.x));
}

/** x ← scale · x + up · sNoise · noise, nothing if there is no noise to add. */
export function addNoise<V extends Disposable>(
  run: SolverRun<V>,
  x: State<V>,
  { sigma, sigmaNext }: Pick<Interval, 'sigma' | 'sigmaNext'>,
  { scale, up }: { readonly scale: number; readonly up: number },
): void {
  if (up === 0) return;
  using noise = run.noise(sigma, sigmaNext);
  x.replace(
    run.algebra.combine([
      [scale, x.current],
      [up * run.options.sNoise, noise],
    ]),
  );
}

/** x ← Euler's step from σ to ratio · σ along (x − denoised)/σ. */
export function eulerStep<V extends Disposable>(
  run: SolverRun<V>,
  x: State<V>,
  denoised: V,
  ratio: number,
): void {
  x.replace(moveTowards(run.algebra, x.current, denoised, ratio));
}

/** Moves x from `sigma` to `sigmaNext` > 0; `denoised` is the prediction at x. */
export type Step = <V extends Disposable>(
  run: SolverRun<V>,
  x: State<V>,
  denoised: V,
  sigma: number,
  sigmaNext: number,
) => void;

export const firstOrderStep: Step = (run, x, denoised, sigma, sigmaNext) =>
  eulerStep(run, x, denoised, sigmaNext / sigma);

/** A step that may end at 0, where every solver takes the prediction itself. */
export function stepTo<V extends Disposable>(
  step: Step,
  run: SolverRun<V>,
  x: State<V>,
  denoised: V,
  { from, to }: { readonly from: number; readonly to: number },
): void {
  if (to === 0) eulerStep(run, x, denoised, 0);
  else step(run, x, denoised, from, to);
}
