/** The schedules by name, as data: which noise levels a sampling visits, from the model's highest down to 0. */
import { KotobaError } from '../errors.js';
import { betaQuantile } from './beta_quantile.js';
import { isFlow } from './noise_level.js';
import type { SigmaModel } from './sigma_model.js';

export interface ScheduleOptions {
  /** Exponent of `karras` (7) and `polyexponential` (1). */
  readonly rho?: number;
}

export interface Schedule {
  /** steps + 1 levels; a few schedules give more where the steps do not divide the table. */
  readonly sigmas: (model: SigmaModel, steps: number, options: ScheduleOptions) => number[];
  /** At a strength below 1, where that is not the end of a finer schedule. */
  readonly from?: (model: SigmaModel, steps: number, strength: number) => number[];
  readonly models: 'all' | 'flow' | 'eps and v';
  readonly summary: string;
}

/** count values from `from` to `to`; one value is `from`. */
function linspace(from: number, to: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) =>
    count === 1 ? from : i === count - 1 ? to : from + ((to - from) * i) / (count - 1),
  );
}

const toZero = (sigmas: readonly number[]): number[] => [...sigmas, 0];

/** A level this small counts as 0: the schedule must not visit both. */
const kAlmostZero = 1e-5;

/** Even timesteps from the highest level to the lowest (k-diffusion's `get_sigmas`, SD3.5's for flow). Flow models shift twice at the low end, as SD3 and ComfyUI do. */
function normal(model: SigmaModel, steps: number): number[] {
  const from = model.timestep(model.sigmaMax);
  const to = model.timestep(model.sigmaMin);
  if (model.sigma(to) <= kAlmostZero) return linspace(from, to, steps + 1).map((t) => model.sigma(t));
  return toZero(linspace(from, to, steps).map((t) => model.sigma(t)));
}

/** As `normal`, one step finer and without its last level (Stability's generative-models). */
function sgmUniform(model: SigmaModel, steps: number): number[] {
  const times = linspace(model.timestep(model.sigmaMax), model.timestep(model.sigmaMin), steps + 1);
  return toZero(times.slice(0, -1).map((t) => model.sigma(t)));
}

/** Even strides through the table from its end. */
function simple({ table }: SigmaModel, steps: number): number[] {
  const stride = table.length / steps;
  return toZero(Array.from({ length: steps }, (_, i) => table[table.length - 1 - Math.floor(i * stride)]!));
}

/** Whole strides through the table from its beginning; more steps than asked where they do not divide it. */
function ddimUniform({ table }: SigmaModel, steps: number): number[] {
  const first = 1;
  const startsAtZero = table[first]! <= kAlmostZero;
  const stride = Math.max(Math.floor(table.length / (startsAtZero ? steps + 1 : steps)), 1);
  const sigmas = startsAtZero ? [] : [0];
  for (let i = first; i < table.length; i += stride) sigmas.push(table[i]!);
  return sigmas.reverse();
}

const TURBO_LEVELS = 10;

/** Every tenth of the table from its end, as many as asked for: what adversarial distillation was trained at (arXiv:2311.17042). */
function sdTurbo(model: SigmaModel, steps: number): number[] {
  if (steps > TURBO_LEVELS)
    throw argumentError(`steps is ${steps}: the schedule sd_turbo has at most ${TURBO_LEVELS}`);
  return sdTurboFrom(model, steps, 1);
}

/** Of the levels it was trained at, those below the strength: ComfyUI's rule; where few are left, so many steps. */
function sdTurboFrom({ table }: SigmaModel, steps: number, strength: number): number[] {
  const stride = table.length / TURBO_LEVELS;
  const first = Math.min(TURBO_LEVELS - 1, TURBO_LEVELS - Math.floor(TURBO_LEVELS * strength));
  const count = Math.min(steps, TURBO_LEVELS - first);
  return toZero(Array.from({ length: count }, (_, i) => table[table.length - 1 - (first + i) * stride]!));
}

/** CompVis DDIM: ends at the table's first level, not at 0 (see `finalScale` in parameterization.ts). */
function ddim({ table }: SigmaModel, steps: number): number[] {
  const stride = Math.max(Math.floor(table.length / steps), 1);
  const sigmas = [table[0]!];
  for (let i = 1; i < table.length; i += stride) sigmas.push(table[i]!);
  return sigmas.reverse();
}

/** σ^(1/ρ) falls evenly, arXiv:2206.00364 eq. 5. */
function karras({ sigmaMin, sigmaMax }: SigmaModel, steps: number, { rho = 7 }: ScheduleOptions): number[] {
  return toZero(linspace(sigmaMax ** (1 / rho), sigmaMin ** (1 / rho), steps).map((root) => root ** rho));
}

/** ln σ falls as (1 − i/(n − 1))^ρ; `exponential` is ρ = 1. */
function polyexponential(
  { sigmaMin, sigmaMax }: SigmaModel,
  steps: number,
  { rho = 1 }: ScheduleOptions,
): number[] {
  const [low, high] = [Math.log(sigmaMin), Math.log(sigmaMax)];
  return toZero(linspace(1, 0, steps).map((ramp) => Math.exp(low + ramp ** rho * (high - low))));
}

/** Table entries at quantiles of Beta(0.6, 0.6): more steps at both ends, arXiv:2407.12173. Equal entries once. */
function beta({ table }: SigmaModel, steps: number): number[] {
  const entries = Array.from({ length: steps }, (_, i) =>
    roundHalfToEven(betaQuantile(1 - i / steps, 0.6, 0.6) * (table.length - 1)),
  );
  return toZero([...new Set(entries)].map((entry) => table[entry]!));
}

/** The middle quantile falls between two entries: ties go to the even one, whatever the last bit says. */
function roundHalfToEven(value: number): number {
  const low = Math.floor(value);
  const isTie = Math.abs(value - low - 0.5) < 1e-9 * Math.max(1, value);
  return isTie ? low + (low % 2) : Math.round(value);
}

const kThresholdNoise = 0.025;

/** Half the steps take off 2.5 % of the noise, evenly; the rest falls as a parabola (arXiv:2410.13720 §3.1). */
function linearQuadratic({ sigmaMax }: SigmaModel, steps: number): number[] {
  if (steps === 1) return [sigmaMax, 0];
  const linear = Math.floor(steps / 2);
  const quadratic = steps - linear;
  const slope = kThresholdNoise / linear;
  // removed(i) meets the line with its slope at i = linear, and is 1 at i = steps.
  const curvature = (1 - slope * steps) / quadratic ** 2;
  const removed = (i: number): number => slope * i + curvature * Math.max(0, i - linear) ** 2;
  return toZero(Array.from({ length: steps }, (_, i) => (1 - removed(i)) * sigmaMax));
}

/** arctan σ falls evenly: optimal for a Gaussian in Kullback–Leibler divergence (arXiv:2404.14507). */
function klOptimal({ sigmaMin, sigmaMax }: SigmaModel, steps: number): number[] {
  return toZero(linspace(Math.atan(sigmaMax), Math.atan(sigmaMin), steps).map(Math.tan));
}

/** The variance-preserving SDE with β from 0.1 to 20 (arXiv:2011.13456), t from 1 to 0.001. */
function vp(_model: SigmaModel, steps: number): number[] {
  return toZero(linspace(1, 1e-3, steps).map((t) => Math.sqrt(Math.expm1((19.9 * t * t) / 2 + 0.1 * t))));
}

/** BFL's for Flux: even times from 1 to 0, then the model's shift. */
function flux(model: SigmaModel, steps: number): number[] {
  const end = model.timestep(1);
  return toZero(
    linspace(end, 0, steps + 1)
      .slice(0, -1)
      .map((t) => model.sigma(t)),
  );
}

const table = {
  flux: {
    sigmas: flux,
    models: 'flow',
    summary: 'BFL’s for Flux.1: shifted by size for dev, even for schnell',
  },
  normal: { sigmas: normal, models: 'all', summary: 'even timesteps; SD3’s own' },
  simple: { sigmas: simple, models: 'all', summary: 'even strides through the table' },
  sgm_uniform: { sigmas: sgmUniform, models: 'all', summary: 'even timesteps, lowest left out' },
  karras: { sigmas: karras, models: 'all', summary: 'arXiv:2206.00364, rho 7' },
  exponential: {
    sigmas: (model, steps) => polyexponential(model, steps, {}),
    models: 'all',
    summary: 'even in ln σ',
  },
  polyexponential: {
    sigmas: polyexponential,
    models: 'all',
    summary: 'a power of even steps in ln σ, rho 1',
  },
  ddim_uniform: { sigmas: ddimUniform, models: 'all', summary: 'whole strides through the table' },
  ddim: { sigmas: ddim, models: 'eps and v', summary: 'CompVis DDIM and PLMS; ends at the lowest level' },
  sd_turbo: {
    sigmas: sdTurbo,
    from: sdTurboFrom,
    models: 'eps and v',
    summary: 'arXiv:2311.17042; at most 10 steps',
  },
  beta: { sigmas: beta, models: 'all', summary: 'arXiv:2407.12173, more steps at both ends' },
  linear_quadratic: { sigmas: linearQuadratic, models: 'all', summary: 'arXiv:2410.13720' },
  kl_optimal: { sigmas: klOptimal, models: 'all', summary: 'arXiv:2404.14507, even in arctan σ' },
  vp: { sigmas: vp, models: 'eps and v', summary: 'arXiv:2011.13456, of continuous VP models' },
} as const satisfies Record<string, Schedule>;

export type ScheduleName = keyof typeof table;
export const SCHEDULES: Readonly<Record<ScheduleName, Schedule>> = table;

const argumentError = (message: string): KotobaError => new KotobaError('ERR_ARGUMENT', message);

export function scheduleNamed(name: string): Schedule {
  if (Object.hasOwn(SCHEDULES, name)) return SCHEDULES[name as ScheduleName];
  throw argumentError(`unknown schedule '${name}'. Choices: ${Object.keys(SCHEDULES).join(', ')}.`);
}

export interface SigmasRequest extends ScheduleOptions {
  readonly schedule: string;
  readonly model: SigmaModel;
  readonly steps: number;
  /** Makes one level more and drops the last before 0: what ComfyUI does for some solvers. */
  readonly discardPenultimate?: boolean;
  /** Image to image: share of the noise that is put on the picture, above 0 up to 1 (the default: all). */
  readonly strength?: number;
  /**
   * What `steps` counts at strength below 1. 'taken' (ComfyUI): so many steps are taken, of a finer schedule.
   * 'whole' (BFL, SD3.5): so many make the whole schedule, of which the first are left out.
   */
  readonly stepsCount?: 'taken' | 'whole';
}

const kMostSteps = 10_000;

/** The levels to sample: strictly descending, first the level to noise to, last usually 0. */
export function makeSigmas(request: SigmasRequest): number[] {
  const { steps, strength = 1, stepsCount = 'taken' } = request;
  const schedule: Schedule = scheduleNamed(request.schedule);
  checkRequest(request, schedule, strength);
  if (strength === 1) return wholeSchedule(schedule, request, steps);
  if (stepsCount === 'taken') {
    if (schedule.from) return schedule.from(request.model, steps, strength);
    const whole = Math.floor(steps / strength);
    if (whole > kMostSteps)
      throw argumentError(
        `strength ${strength} with ${steps} steps is the end of a schedule of ${whole} steps, of at most ${kMostSteps}`,
      );
    return wholeSchedule(schedule, request, whole).slice(-(steps + 1));
  }
  // At least one step is left, however low the strength.
  const skipped = Math.min(Math.floor(steps * (1 - strength)), steps - 1);
  return wholeSchedule(schedule, request, steps).slice(skipped);
}

function wholeSchedule(schedule: Schedule, request: SigmasRequest, steps: number): number[] {
  const { model, discardPenultimate = false } = request;
  if (!discardPenultimate) return schedule.sigmas(model, steps, request);
  return schedule.sigmas(model, steps + 1, request).toSpliced(-2, 1);
}

function checkRequest(request: SigmasRequest, schedule: Schedule, strength: number): void {
  const { schedule: name, model, steps, rho } = request;
  if (!Number.isInteger(steps) || steps < 1 || steps > kMostSteps)
    throw argumentError(`steps is ${steps}: expected a whole number from 1 to ${kMostSteps}`);
  if (!(strength > 0 && strength <= 1))
    throw argumentError(`strength is ${strength}: expected above 0, up to 1`);
  if (rho !== undefined && !(rho > 0 && Number.isFinite(rho)))
    throw argumentError(`rho is ${rho}: expected a number above 0`);
  const kind = isFlow(model) ? 'flow' : 'eps and v';
  if (schedule.models !== 'all' && schedule.models !== kind) {
    const fitting = Object.entries(SCHEDULES).filter(([, { models }]) => models === 'all' || models === kind);
    const choices = fitting.map(([choice]) => choice).join(', ');
    throw argumentError(
      `schedule '${name}' is for ${schedule.models} models, not for ${kind}. Choices: ${choices}.`,
    );
  }
}
