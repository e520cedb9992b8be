/** Every stored trajectory of the solvers we have: x and denoised at every step, the result, calls and noise intervals. */
import { afterEach, describe, expect, test } from 'vitest';
import {
  fluxSchnell,
  sample,
  scaledLinear,
  sd3,
  SOLVERS,
  type NoiseLevels,
  type SolverName,
  type SolverOptions,
} from '../../src/sampling/index.js';
import { maxAbsDifference, relativeL2 } from '../support/reference.js';
import { goldenJson, GoldenNumbers } from './golden_numbers.js';
import {
  analyticDenoised,
  analyticFlowDenoised,
  counted,
  double,
  finish,
  HostVector,
  single,
} from './host_vectors.js';

interface IndexEntry {
  readonly nfe?: number;
  readonly noise_calls?: number;
  readonly noise_intervals?: readonly (readonly [number, number])[];
  readonly same_as?: string;
}

const file = new GoldenNumbers('diffusion/samplers/trajectories.safetensors');
const index = goldenJson('diffusion/samplers/trajectories.index.json') as Record<string, IndexEntry>;
const noiseRows = file.get('noise');
const unitStart = file.get('x_init_unit').values;

/** The golden README's tolerances: double and single precision, relative L2. */
const kDouble = 1e-9;
const kSingle = 1e-4;

/** Golden names that are one of our solvers with options. */
const VARIANTS: Record<string, readonly [SolverName, SolverOptions]> = {
  'euler_ancestral_eta0.5': ['euler_ancestral', { eta: 0.5, sNoise: 1.1 }],
  euler_churn: ['euler', { sChurn: 4, sNoise: 1.003 }],
  dpmpp_2m_sde_eta0: ['dpmpp_2m_sde', { eta: 0 }],
};

/** Solvers the golden files hold and we do not have. */
const LEFT_OUT = new Set(
  `heunpp2 ddpm ipndm ipndm_v res_multistep res_multistep_ancestral gradient_estimation er_sde seeds_2 seeds_3
   sa_solver dpm_fast dpm_adaptive`.split(/\s+/),
);

interface Case {
  readonly tag: string;
  readonly solver: SolverName;
  readonly options: SolverOptions;
  readonly model: NoiseLevels;
}

const tags = [
  ...new Set(file.names.filter((name) => name.endsWith('.out')).map((name) => name.slice(0, -4))),
];
const solverOf = (tag: string): string => tag.split('.').slice(2).join('.');
const kAndComfy = tags.filter((tag) => /^(k|comfy|comfyflow)\./.test(tag));

function caseOf(tag: string): Case {
  const name = solverOf(tag);
  const [solver, options] = VARIANTS[name] ?? [name as SolverName, {}];
  const comfyLms = tag.startsWith('comfy.') && solver === 'lms';
  return {
    tag,
    solver,
    options: comfyLms ? { lastStep: 'denoised' } : options,
    model: tag.startsWith('comfyflow.') ? sd3(3) : scaledLinear(),
  };
}

const cases = kAndComfy.filter((tag) => !LEFT_OUT.has(solverOf(tag))).map(caseOf);

function run({ tag, solver, options, model }: Case, algebra = double, bound = kDouble): void {
  const formula = model.prediction === 'flow' ? analyticFlowDenoised : analyticDenoised;
  const calls = counted(algebra, formula, (k) => noiseRows.row(k));
  const sigmas = [...file.get(`${tag}.sigmas`).values];
  const start = file.has(`${tag}.x_in`)
    ? file.get(`${tag}.x_in`).values
    : unitStart.map((v) => v * sigmas[0]!);
  using x = algebra.of(start);
  const sampling = sample({
    solver,
    algebra,
    denoise: calls.denoise,
    noise: calls.noise,
    x,
    sigmas,
    model,
    options,
  });
  const stored = file.has(`${tag}.x`)
    ? { x: file.get(`${tag}.x`), denoised: file.get(`${tag}.denoised`) }
    : undefined;

  using out = finish(sampling, ({ step, denoised, x: after }) => {
    if (!stored) return;
    const where = `${tag} step ${step}`;
    expect(relativeL2(denoised.values, stored.denoised.row(step)), `${where} denoised`).toBeLessThan(bound);
    // Churn is part of the stored x of the next step, so its rows are not the state between the steps.
    if (options.sChurn === undefined)
      expect(relativeL2(after.values, stored.x.row(step + 1)), `${where} x`).toBeLessThan(bound);
  });
  expect(relativeL2(out.values, file.get(`${tag}.out`).values), `${tag} out`).toBeLessThan(bound);

  const { nfe, noise_calls: noiseCalls, noise_intervals: intervals } = index[tag]!;
  expect(calls.evaluations, `${tag} evaluations`).toBe(nfe);
  if (noiseCalls !== undefined) expect(calls.draws.length, `${tag} draws`).toBe(noiseCalls);
  if (intervals) expect(maxAbsDifference(calls.draws.flat(), intervals.flat())).toBeLessThan(1e-5);
}

afterEach(() => expect(HostVector.living, 'vectors still alive').toBe(0));

describe('k-diffusion and ComfyUI', () => {
  test.each(cases)('$tag in double precision', (c) => run(c));
  test.each(cases)('$tag in single precision', (c) => run(c, single, kSingle));

  test('every solver of the table has a trajectory', () => {
    const seen = new Set<string>(cases.map(({ solver }) => solver));
    const elsewhere = new Set(['ddim', 'plms']); // below
    expect(Object.keys(SOLVERS).filter((name) => !seen.has(name) && !elsewhere.has(name))).toEqual([]);
  });

  test('what is left out is in the files and is no solver of ours', () => {
    const stored = new Set(kAndComfy.map(solverOf));
    expect([...LEFT_OUT].filter((name) => !stored.has(name) || Object.hasOwn(SOLVERS, name))).toEqual([]);
  });

  test('ComfyUI names that the files call equal to k-diffusion are solved by the same entry', () => {
    const same = Object.entries(index).filter(([, { same_as: other }]) => other !== undefined);
    expect(same.length).toBeGreaterThan(0);
    for (const [tag, { same_as: other }] of same) expect(solverOf(tag)).toBe(solverOf(other!));
  });
});

describe('BFL', () => {
  test.each(tags.filter((tag) => tag.startsWith('flux.')))('%s', (tag) => {
    const stored = file.get(`${tag}.x`);
    const sigmas = [...file.get(`${tag}.sigmas`).values];
    const { denoise } = counted(double, analyticFlowDenoised, () => []);
    using x = double.of(stored.row(0));
    const sampling = sample({ solver: 'euler', algebra: double, denoise, x, sigmas, model: fluxSchnell() });
    using out = finish(sampling, ({ step, x: after }) =>
      expect(relativeL2(after.values, stored.row(step + 1))).toBeLessThan(kDouble),
    );
    expect(relativeL2(out.values, file.get(`${tag}.out`).values)).toBeLessThan(kDouble);
  });
});

describe('CompVis, whose x is ours/√(1 + σ²)', () => {
  const alphaBars = scaledLinear().table.map((sigma) => 1 / (1 + sigma * sigma));
  const levels = (steps: number): number[] => {
    const times = [0, ...Array.from({ length: steps }, (_, i) => 1 + (1000 / steps) * i)];
    return times.map((t) => Math.sqrt((1 - alphaBars[t]!) / alphaBars[t]!)).reverse();
  };
  const toCompVis = (x: ArrayLike<number>, sigma: number): Float64Array =>
    Float64Array.from(x, (value) => value / Math.sqrt(1 + sigma * sigma));

  test.each(tags.filter((tag) => tag.startsWith('compvis.')))('%s', (tag) => {
    const [, solver, steps] = /^compvis\.(ddim|plms)(\d+)/.exec(tag)!;
    const sigmas = levels(Number(steps));
    const options = tag.endsWith('eta1') ? { eta: 1 } : {}; // ddim's default is 0
    const calls = counted(double, analyticDenoised, (k) => noiseRows.row(k));
    using x = double.of(unitStart.map((value) => value * Math.sqrt(1 + sigmas[0]! ** 2)));
    const sampling = sample({
      ...{ solver: solver!, algebra: double, denoise: calls.denoise, noise: calls.noise, x, sigmas, options },
      model: scaledLinear(),
    });
    using out = finish(sampling, ({ step, x: after, denoised, sigmaNext }) => {
      if (!file.has(`${tag}.x`)) return;
      expect(relativeL2(denoised.values, file.get(`${tag}.pred_x0`).row(step))).toBeLessThan(kDouble);
      expect(relativeL2(toCompVis(after.values, sigmaNext), file.get(`${tag}.x`).row(step + 1))).toBeLessThan(
        kDouble,
      );
    });
    const stored = file.get(`${tag}.out`).values;
    expect(relativeL2(toCompVis(out.values, sigmas.at(-1)!), stored)).toBeLessThan(kDouble);
    if (solver === 'plms') expect(calls.evaluations).toBe(Number(steps) + 1);
  });
});
