/** Every stored schedule, the models' tables, image-to-image subsets, and what is refused. */
import { describe, expect, test } from 'vitest';
import { KotobaError } from '../../src/errors.js';
import {
  fluxDev,
  fluxMu,
  fluxSchnell,
  makeSigmas,
  scaledLinear,
  SCHEDULES,
  sd3,
  type SigmaModel,
  type SigmasRequest,
} from '../../src/sampling/index.js';
import { betaQuantile, regularizedBeta } from '../../src/sampling/beta_quantile.js';
import { maxAbsDifference } from '../support/reference.js';
import { goldenJson, GoldenNumbers } from './golden_numbers.js';

const exact = new GoldenNumbers('diffusion/samplers/schedules.safetensors');
const official = new GoldenNumbers('diffusion/samplers/schedules_official_f32.safetensors');
const pipeline = new GoldenNumbers('diffusion/pipeline/pipeline.safetensors');

/** Largest |a − b|/|b|; a zero must be met exactly. NaN and other lengths fail. */
function worstRelative(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return NaN;
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const error = b[i] === 0 ? Math.abs(a[i]!) / 1e-300 : Math.abs(a[i]! / b[i]! - 1);
    if (!(error <= worst)) worst = error;
    if (Number.isNaN(worst)) return NaN;
  }
  return worst;
}

const MODELS: Record<string, SigmaModel> = {
  sd1: scaledLinear(),
  sd1_zsnr: scaledLinear({ prediction: 'v', zeroTerminalSnr: true }),
  sd3: sd3(),
  flux_dev: fluxDev(),
  flux_schnell: fluxSchnell(),
};

/** k-diffusion's names. */
const K_DIFFUSION: Record<string, Omit<SigmasRequest, 'steps'>> = {
  'fixed_0.1_10.karras': { schedule: 'karras', model: { ...MODELS['sd1']!, sigmaMin: 0.1, sigmaMax: 10 } },
  'sd1.discrete': { schedule: 'normal', model: MODELS['sd1']! },
  'sd1.exponential': { schedule: 'exponential', model: MODELS['sd1']! },
  'sd1.karras': { schedule: 'karras', model: MODELS['sd1']! },
  'sd1.karras_rho5': { schedule: 'karras', rho: 5, model: MODELS['sd1']! },
  'sd1.polyexponential': { schedule: 'polyexponential', model: MODELS['sd1']! },
  'sd1.polyexponential_rho2': { schedule: 'polyexponential', rho: 2, model: MODELS['sd1']! },
  vp: { schedule: 'vp', model: MODELS['sd1']! },
};

/** The request a golden tensor is the answer to; undefined for the tensors that are no schedules. */
function requestOf(name: string): SigmasRequest | undefined {
  const steps = Number(name.split('.').at(-1));
  const comfy = /^comfy\.(\w+)\.(\w+)\.\d+$/.exec(name);
  if (comfy) {
    const [, model, scheduler] = comfy as unknown as [string, string, string];
    const schedule = scheduler.replace('_discard_penultimate', '');
    return { schedule, model: MODELS[model]!, steps, discardPenultimate: schedule !== scheduler };
  }
  const kDiffusion = /^kdiff\.(.+)\.\d+$/.exec(name);
  if (kDiffusion) return { ...K_DIFFUSION[kDiffusion[1]!]!, steps };
  const stability = /^sd3infer\.shift(\d+)\.\d+$/.exec(name);
  if (stability) return { schedule: 'normal', model: sd3(Number(stability[1])), steps };
  const dev = /^flux\.dev\.(\d+)x(\d+)\.\d+$/.exec(name);
  if (dev) return { schedule: 'flux', model: fluxDev(fluxMu(Number(dev[1]), Number(dev[2]))), steps };
  if (/^flux\.schnell\.\d+$/.test(name)) return { schedule: 'flux', model: fluxSchnell(), steps };
  return undefined;
}

const requests = exact.names.flatMap((name) => {
  const request = requestOf(name);
  return request ? [{ name, request }] : [];
});

describe('schedules', () => {
  test.each(requests)('$name', ({ name, request }) => {
    const sigmas = makeSigmas(request);
    expect(worstRelative(sigmas, exact.get(name).values), 'against double').toBeLessThan(1e-9);
    // The official code in float32 rounds each operation: 1e-5 is the golden README's bound, where σ is not tiny.
    const rounded = official.get(name).values;
    expect(maxAbsDifference(sigmas, rounded) / rounded[0]!, 'against float32').toBeLessThan(1e-5);
  });

  test('every schedule of the table and every stored schedule is covered', () => {
    const covered = new Set(requests.map(({ request }) => request.schedule));
    expect(Object.keys(SCHEDULES).filter((name) => !covered.has(name))).toEqual(['ddim', 'sd_turbo']); // below
    const others = exact.names.filter((name) => !requestOf(name));
    expect(others.filter((name) => !/^sd1\.|^ddim_timesteps|table_first_last|^flux\.mu/.test(name))).toEqual(
      [],
    );
  });

  test.each(exact.names.filter((name) => name.startsWith('ddim_timesteps.')))('%s', (name) => {
    const model = scaledLinear();
    const times = [...exact.get(name).values].reverse();
    const expected = [...times.map((t) => model.table[t]!), model.table[0]!];
    expect(makeSigmas({ schedule: 'ddim', model, steps: Number(name.split('.')[1]) })).toEqual(expected);
  });
});

test('sd_turbo: timesteps 999, 899, …, as generative-models and ComfyUI have them', () => {
  const model = scaledLinear();
  const sigmas = makeSigmas({ schedule: 'sd_turbo', model, steps: 4 });
  expect(sigmas).toEqual([...[999, 899, 799, 699].map((t) => model.table[t]!), 0]);
  expect(() => makeSigmas({ schedule: 'sd_turbo', model, steps: 11 })).toThrow(/at most 10/);
  // From a picture: the levels below the strength, as many as there are.
  const from = (strength: number, steps: number) =>
    makeSigmas({ schedule: 'sd_turbo', model, steps, strength });
  const levels = (...times: number[]) => [...times.map((t) => model.table[t]!), 0];
  expect(from(0.5, 2)).toEqual(levels(499, 399));
  expect(from(0.3, 7)).toEqual(levels(299, 199, 99));
  expect(from(0.01, 4)).toEqual(levels(99));
});

describe('models', () => {
  test('scaled linear table', () => {
    const { table } = scaledLinear();
    expect(worstRelative(table, exact.get('sd1.sigmas').values)).toBeLessThan(1e-12);
    expect(worstRelative(table.map(Math.log), exact.get('sd1.log_sigmas').values)).toBeLessThan(1e-11);
    const alphaBar = table.map((sigma) => 1 / (1 + sigma * sigma));
    expect(worstRelative(alphaBar, exact.get('sd1.alphas_cumprod').values)).toBeLessThan(1e-12);
  });

  test('σ of fractional timesteps and back', () => {
    const model = scaledLinear();
    const levels = [...exact.get('sd1.t_to_sigma.in').values].map((t) => model.sigma(t));
    expect(worstRelative(levels, exact.get('sd1.t_to_sigma.out').values)).toBeLessThan(1e-12);
    const sigmas = [...exact.get('sd1.sigma_to_t.in').values];
    const times = sigmas.map((sigma) => model.timestep(sigma));
    expect(maxAbsDifference(times, exact.get('sd1.sigma_to_t.out').values)).toBeLessThan(1e-9);
    const whole = sigmas.map((sigma) => model.nearestTimestep(sigma));
    expect(whole).toEqual([...exact.get('sd1.sigma_to_t.quantized').values]);
  });

  test.each(['sd1', 'sd3', 'flux_dev', 'flux_schnell'])('ends of the table of %s', (name) => {
    const { table } = MODELS[name]!;
    const ends = [table[0]!, table[1]!, table.at(-2)!, table.at(-1)!];
    const stored = `comfy.${name}.table_first_last`;
    if (exact.has(stored)) expect(worstRelative(ends, exact.get(stored).values)).toBeLessThan(1e-12);
    else expect(name).toBe('sd1');
  });

  test.each(exact.names.filter((name) => name.startsWith('flux.mu.')))('%s', (name) => {
    const [width, height] = name.split('.')[2]!.split('x').map(Number) as [number, number];
    expect(fluxMu(width, height)).toBeCloseTo(exact.get(name).values[1]!, 14);
  });

  test('a flow begins at 1 and ends at 0; solvers in λ begin a hair later', () => {
    const model = sd3(3);
    expect([model.percentToSigma(0), model.percentToSigma(1)]).toEqual([1, 0]);
    expect(model.percentToSigma(1e-4)).toBe((3 * 0.9999) / (1 + 2 * 0.9999));
    const sd1 = scaledLinear();
    expect(sd1.percentToSigma(0.5)).toBe(sd1.sigma(499.5));
    expect([sd1.percentToSigma(0), sd1.percentToSigma(1)]).toEqual([Infinity, 0]);
  });

  test('the network is told the level in the model’s unit', () => {
    expect(sd3().timestep(0.25)).toBe(250);
    expect(fluxDev().nearestTimestep(0.25)).toBe(0.25);
  });
});

describe('the beta quantile', () => {
  test('inverts the distribution function', () => {
    for (const [a, b] of [
      [0.6, 0.6],
      [0.5, 0.5],
      [2, 5],
      [1, 1],
    ] as const)
      for (let i = 1; i < 200; i++)
        expect(regularizedBeta(betaQuantile(i / 200, a, b), a, b)).toBeCloseTo(i / 200, 12);
  });

  test('closed forms: arcsine and uniform distributions, and the ends', () => {
    for (let i = 1; i < 100; i++) {
      expect(betaQuantile(i / 100, 0.5, 0.5)).toBeCloseTo(Math.sin((Math.PI * i) / 200) ** 2, 13);
      expect(betaQuantile(i / 100, 1, 1)).toBeCloseTo(i / 100, 13);
    }
    expect([betaQuantile(0, 0.6, 0.6), betaQuantile(1, 0.6, 0.6), betaQuantile(0.5, 0.6, 0.6)]).toEqual([
      0, 1, 0.5,
    ]);
  });
});

describe('image to image', () => {
  test.each([
    [10, 0.35],
    [20, 0.6],
  ])('%d steps taken at strength %f, as ComfyUI', (steps, strength) => {
    const stored = pipeline.get(`img2img.comfy.sd1.normal.steps${steps}.denoise${strength}`).values;
    const sigmas = makeSigmas({ schedule: 'normal', model: scaledLinear(), steps, strength });
    expect(worstRelative(sigmas, stored)).toBeLessThan(1e-9);
  });

  test.each([
    [10, 0.35],
    [20, 0.6],
  ])('%d steps of which those at strength %f are left, as SD3.5', (steps, strength) => {
    const json = goldenJson('diffusion/pipeline/pipeline.json') as Record<string, number>;
    const first = json[`img2img.sd3infer.steps${steps}.denoise${strength}.first_index`]!;
    const whole = makeSigmas({ schedule: 'normal', model: sd3(), steps });
    expect(makeSigmas({ schedule: 'normal', model: sd3(), steps, strength, stepsCount: 'whole' })).toEqual(
      whole.slice(first),
    );
  });

  test('all steps are taken, or at least one, however low the strength', () => {
    const ask = { schedule: 'simple', model: sd3(), steps: 4 };
    expect(makeSigmas({ ...ask, strength: 0.01 }).length).toBe(5);
    expect(makeSigmas({ ...ask, strength: 1e-17, stepsCount: 'whole' }).length).toBe(2);
  });
});

describe('refusals', () => {
  const base = { schedule: 'normal', model: scaledLinear(), steps: 4 };
  test.each<[string, Partial<SigmasRequest>, RegExp]>([
    ['unknown name', { schedule: 'carras' }, /unknown schedule 'carras'.*flux, normal, .*kl_optimal/],
    ['a name of Object', { schedule: 'toString' }, /unknown schedule/],
    ['no steps', { steps: 0 }, /steps is 0/],
    ['negative steps', { steps: -3 }, /steps is -3/],
    ['half a step', { steps: 2.5 }, /steps is 2.5/],
    ['no number of steps', { steps: NaN }, /steps is NaN/],
    ['absurd steps', { steps: 1e9 }, /at most|to 10000/],
    ['strength 0', { strength: 0 }, /strength is 0/],
    ['strength above 1', { strength: 1.2 }, /strength is 1.2/],
    ['strength NaN', { strength: NaN }, /strength is NaN/],
    ['strength too small', { strength: 1e-12 }, /strength 1e-12/],
    ['rho 0', { rho: 0 }, /rho is 0/],
    ['a flow schedule for eps', { schedule: 'flux' }, /for flow models, not for eps and v/],
    ['an eps schedule for flow', { schedule: 'vp', model: sd3() }, /for eps and v models, not for flow/],
  ])('%s', (_, change, message) => {
    const ask = (): number[] => makeSigmas({ ...base, ...change });
    expect(ask).toThrow(KotobaError);
    expect(ask).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
    );
  });

  test.each<[string, () => unknown]>([
    ['shift 0', () => sd3(0)],
    ['mu NaN', () => fluxDev(NaN)],
    ['no width', () => fluxMu(0, 512)],
    ['endless height', () => fluxMu(512, Infinity)],
  ])('%s', (_, ask) => {
    expect(ask).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  });
});
