/** The solvers by name, as data, and `sample`, which checks a problem and starts one. */
import { KotobaError } from '../errors.js';
import type { Algebra, Denoiser, NoiseSource } from './algebra.js';
import { isFlow, type NoiseLevels } from './noise_level.js';
import type { Sampling, SolverOptions, SolverRun } from './solver.js';
import { dpm2Ancestral, dpmpp2sAncestral, eulerAncestral } from './solvers/ancestral.js';
import { dpm2, euler, heun } from './solvers/churned.js';
import { deis } from './solvers/deis.js';
import { lcm } from './solvers/lcm.js';
import { dpmpp2m, lms, plms } from './solvers/multistep.js';
import { dpmpp2mSde, dpmpp2mSdeHeun, dpmpp3mSde, dpmppSde } from './solvers/sde.js';
import { uniPcBh1, uniPcBh2 } from './solvers/uni_pc.js';

export interface Solver {
  readonly run: <V extends Disposable>(run: SolverRun<V>) => Sampling<V>;
  /** Paper and a line to choose by. */
  readonly summary: string;
  readonly options: readonly (keyof SolverOptions)[];
  readonly defaults?: SolverOptions;
  /** When fresh noise is drawn: never, if the named option is above 0, or in every step. */
  readonly noise: 'never' | 'eta' | 'sChurn' | 'always';
  /** Evaluations of the denoiser in a step; a step to σ = 0 takes one. */
  readonly evaluations: 1 | 2;
  /** ComfyUI makes one level more and drops the last before 0 (`makeSigmas`' discardPenultimate). */
  readonly discardPenultimate: boolean;
}

const kChurn = ['sChurn', 'sTmin', 'sTmax', 'sNoise'] as const;
const kAncestral = ['eta', 'sNoise'] as const;
const plain = { evaluations: 1, discardPenultimate: false } as const;
const churned = { ...plain, options: kChurn, noise: 'sChurn' } as const;
const ancestral = { ...plain, options: kAncestral, noise: 'eta' } as const;
const deterministic = { ...plain, options: [], noise: 'never' } as const;

const table = {
  euler: { ...churned, run: euler, summary: 'arXiv:2206.00364; BFL’s own for Flux' },
  euler_ancestral: { ...ancestral, run: eulerAncestral, summary: 'Euler with fresh noise (DDPM)' },
  heun: { ...churned, run: heun, evaluations: 2, summary: 'arXiv:2206.00364, second order' },
  dpm_2: {
    ...churned,
    run: dpm2,
    evaluations: 2,
    discardPenultimate: true,
    summary: 'arXiv:2206.00927, midpoint in ln σ',
  },
  dpm_2_ancestral: {
    ...ancestral,
    run: dpm2Ancestral,
    evaluations: 2,
    discardPenultimate: true,
    summary: 'dpm_2 with fresh noise',
  },
  lms: { ...deterministic, run: lms, options: ['lastStep'], summary: 'linear multistep, order 4' },
  dpmpp_2s_ancestral: {
    ...ancestral,
    run: dpmpp2sAncestral,
    evaluations: 2,
    summary: 'arXiv:2211.01095 (2S) with fresh noise',
  },
  dpmpp_sde: {
    ...ancestral,
    run: dpmppSde,
    evaluations: 2,
    summary: 'DPM-Solver++ for the SDE; wants BrownianNoise',
  },
  dpmpp_2m: { ...deterministic, run: dpmpp2m, summary: 'arXiv:2211.01095 (2M): good in 20 steps' },
  dpmpp_2m_sde: { ...ancestral, run: dpmpp2mSde, summary: 'DPM-Solver++(2M) for the SDE, midpoint' },
  dpmpp_2m_sde_heun: { ...ancestral, run: dpmpp2mSdeHeun, summary: 'DPM-Solver++(2M) for the SDE, Heun' },
  dpmpp_3m_sde: { ...ancestral, run: dpmpp3mSde, summary: 'DPM-Solver++(3M) for the SDE' },
  lcm: {
    ...plain,
    run: lcm,
    options: ['sNoise'],
    noise: 'always',
    summary: 'arXiv:2310.04378, for models distilled for it',
  },
  ddim: { ...ancestral, run: eulerAncestral, defaults: { eta: 0 }, summary: 'arXiv:2010.02502; eta 1: DDPM' },
  plms: { ...deterministic, run: plms, summary: 'arXiv:2202.09778, linear multistep for even steps' },
  uni_pc: {
    ...deterministic,
    run: uniPcBh1,
    discardPenultimate: true,
    summary: 'arXiv:2302.04867, order 3, B(h) = h',
  },
  uni_pc_bh2: {
    ...deterministic,
    run: uniPcBh2,
    discardPenultimate: true,
    summary: 'arXiv:2302.04867, order 3, B(h) = e^h − 1',
  },
  deis: { ...deterministic, run: deis, summary: 'arXiv:2204.13902, order 3' },
} as const satisfies Record<string, Solver>;

export type SolverName = keyof typeof table;
export const SOLVERS: Readonly<Record<SolverName, Solver>> = table;

export function solverNamed(name: string): Solver {
  if (Object.hasOwn(SOLVERS, name)) return SOLVERS[name as SolverName];
  throw new KotobaError(
    'ERR_ARGUMENT',
    `unknown sampler '${name}'. Choices: ${Object.keys(SOLVERS).join(', ')}.`,
  );
}

export interface SampleRequest<V extends Disposable> {
  readonly solver: string;
  readonly algebra: Algebra<V>;
  readonly denoise: Denoiser<V>;
  /** Start at noise level sigmas[0]; borrowed. */
  readonly x: V;
  /** steps + 1 levels, strictly descending. */
  readonly sigmas: readonly number[];
  readonly model: NoiseLevels;
  /** Needed by solvers that draw fresh noise. */
  readonly noise?: NoiseSource<V>;
  readonly options?: SolverOptions;
}

/** Checks at once, computes as the generator is asked for steps. */
export function sample<V extends Disposable>(request: SampleRequest<V>): Sampling<V> {
  const solver = solverNamed(request.solver);
  checkSigmas(request.sigmas, request.model);
  const options = resolveOptions(request, solver);
  const { algebra, denoise, x, sigmas, model } = request;
  const drawsNoise = solver.noise === 'always' || (solver.noise !== 'never' && options[solver.noise] > 0);
  if (drawsNoise && !request.noise)
    throw argumentError(`sampler '${request.solver}' draws fresh noise: give it a noise source`);
  const noise = request.noise ?? (() => unexpectedDraw(request.solver));
  return solver.run({ algebra, denoise, noise, x, sigmas, model, options });
}

const argumentError = (message: string): KotobaError => new KotobaError('ERR_ARGUMENT', message);

function unexpectedDraw(solver: string): never {
  throw argumentError(`sampler '${solver}' drew noise although its table entry says it does not`);
}

function checkSigmas(sigmas: readonly number[], model: NoiseLevels): void {
  if (sigmas.length < 2) throw argumentError(`sampling needs at least 1 step, got ${sigmas.length - 1}`);
  for (const [i, sigma] of sigmas.entries()) {
    if (!Number.isFinite(sigma) || sigma < 0)
      throw argumentError(`sigmas[${i}] is ${sigma}: expected a finite level of at least 0`);
    if (i > 0 && sigma >= sigmas[i - 1]!)
      throw argumentError(
        `sigmas[${i}] = ${sigma} is not below sigmas[${i - 1}] = ${sigmas[i - 1]}: levels must descend`,
      );
  }
  if (isFlow(model) && sigmas[0]! > 1)
    throw argumentError(`sigmas[0] is ${sigmas[0]}: a flow model's levels are at most 1`);
}

function resolveOptions<V extends Disposable>(
  { solver: name, options: given = {}, model }: SampleRequest<V>,
  solver: Solver,
): Required<SolverOptions> {
  const stranger = (Object.keys(given) as (keyof SolverOptions)[]).find(
    (key) => !solver.options.includes(key),
  );
  if (stranger !== undefined)
    throw argumentError(
      `sampler '${name}' has no option '${stranger}'. It takes: ${solver.options.join(', ') || 'none'}.`,
    );
  const lastStep = isFlow(model) ? 'denoised' : 'multistep';
  const options = {
    ...{ eta: 1, sNoise: 1, sChurn: 0, sTmin: 0, sTmax: Infinity, lastStep },
    ...solver.defaults,
    ...given,
  } as Required<SolverOptions>;
  for (const key of ['eta', 'sNoise', 'sChurn', 'sTmin', 'sTmax'] as const)
    if (!(options[key] >= 0))
      throw argumentError(`${key} is ${options[key]}: expected a number of at least 0`);
  if (isFlow(model) && options.eta > 1)
    throw argumentError(`eta is ${options.eta}: expected at most 1 for a flow model`);
  if (isFlow(model) && options.sChurn > 0)
    throw argumentError('sChurn raises the noise level, which only eps and v models allow');
  return options;
}
