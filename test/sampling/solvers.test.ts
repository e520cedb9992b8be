/** What holds for every solver: no leaks, exact on easy problems, refusals. */
import { afterEach, describe, expect, test } from 'vitest';
import {
  fluxDev,
  makeSigmas,
  sample,
  scaledLinear,
  sd3,
  SOLVERS,
  type SampleRequest,
  type SamplingStep,
  type SigmaModel,
} from '../../src/sampling/index.js';
import { maxAbsDifference, normal, relativeL2 } from '../support/reference.js';
import {
  analyticDenoised,
  analyticFlowDenoised,
  counted,
  double,
  finish,
  HostVector,
  type Counted,
} from './host_vectors.js';

const names = Object.keys(SOLVERS);
const families: readonly (readonly [string, SigmaModel])[] = [
  ['eps', scaledLinear()],
  ['flow', fluxDev()],
];
const combinations = names.flatMap((solver) =>
  families.map(([family, model]) => ({ solver, family, model })),
);

/** Everything off that is random, where the solver can. */
const quiet = (solver: string): object =>
  SOLVERS[solver as keyof typeof SOLVERS].noise === 'eta' ? { eta: 0 } : {};
const sigmasOf = (model: SigmaModel, steps: number): number[] =>
  makeSigmas({ schedule: 'simple', model, steps, discardPenultimate: false });

function calls(model: SigmaModel): Counted {
  const formula = model.prediction === 'flow' ? analyticFlowDenoised : analyticDenoised;
  return counted(double, formula, (k) => normal(16, 100 + k));
}

function start(solver: string, model: SigmaModel, steps: number): SampleRequest<HostVector> & Disposable {
  const sigmas = sigmasOf(model, steps);
  const x = double.of(normal(16, 1).map((value) => value * sigmas[0]!));
  const { denoise, noise } = calls(model);
  return {
    ...{ solver, algebra: double, denoise, noise, x, sigmas, model },
    [Symbol.dispose]: () => x[Symbol.dispose](),
  };
}

afterEach(() => expect(HostVector.living, 'vectors still alive').toBe(0));

describe.each(combinations)('$solver on $family', ({ solver, model }) => {
  test('a whole run leaves only its result alive; the start is untouched', () => {
    using request = start(solver, model, 6);
    const before = [...request.x.values];
    const sampling = sample(request);
    const seen: SamplingStep<HostVector>[] = [];
    using out = finish(sampling, (step) => seen.push({ ...step }));
    expect(HostVector.living).toBe(2);
    expect(out.values.every(Number.isFinite)).toBe(true);
    expect([...request.x.values]).toEqual(before);
    expect(seen.map(({ step, steps }) => [step, steps])).toEqual([0, 1, 2, 3, 4, 5].map((i) => [i, 6]));
    expect(seen.at(-1)!.sigmaNext).toBe(0);
  });

  test('stopping after any step leaves nothing', () => {
    for (let stop = 0; stop < 5; stop++) {
      using request = start(solver, model, 5);
      for (const { step } of sample(request)) if (step === stop) break;
      expect(HostVector.living, `stopped at ${stop}`).toBe(1);
    }
    using request = start(solver, model, 5);
    sample(request); // never started
    expect(HostVector.living).toBe(1);
  });

  test('a denoiser or a noise source that fails, at any call, leaves nothing', () => {
    for (let failing = 0; failing < 8; failing++) {
      using request = start(solver, model, 3);
      let k = 0;
      const count =
        <A extends unknown[]>(f: (...args: A) => HostVector) =>
        (...args: A) => {
          if (k++ === failing) throw new Error('planned failure');
          return f(...args);
        };
      const sampling = sample({ ...request, denoise: count(request.denoise), noise: count(request.noise!) });
      try {
        finish(sampling)[Symbol.dispose]();
      } catch (error) {
        expect((error as Error).message).toBe('planned failure');
      }
      expect(HostVector.living, `failing call ${failing}`).toBe(1);
    }
  });

  test('one and two steps', () => {
    for (const steps of [1, 2]) {
      using request = start(solver, model, steps);
      using out = finish(sample(request));
      expect(out.values.every(Number.isFinite), `${steps} steps`).toBe(true);
    }
  });

  test('a denoiser that knows the picture is believed, whatever the start', () => {
    // UniPC stops at σ = 0.001, so what is left of the start is 0.001/σ0 of it.
    const picture = normal(16, 5);
    using request = start(solver, model, 8);
    using out = finish(sample({ ...request, denoise: () => double.of(picture) }));
    expect(maxAbsDifference(out.values, picture)).toBeLessThan(solver.startsWith('uni_pc') ? 5e-3 : 1e-12);
  });

  test('the same run twice is the same, bit for bit', () => {
    const results = [0, 1].map(() => {
      using request = start(solver, model, 4);
      using out = finish(sample(request));
      return [...out.values];
    });
    expect(results[0]).toEqual(results[1]);
  });
});

describe('accuracy without noise', () => {
  const converging = combinations.filter(({ solver }) => solver !== 'lcm');
  test.each(converging)('$solver on $family converges to the ODE', ({ solver, model }) => {
    const solve = (name: string, steps: number): Float64Array => {
      using request = start(name, model, steps);
      // Down to a level where the ODE is still smooth, so that the error is the method's.
      const end = model.prediction === 'flow' ? 0.1 : 0.5;
      const sigmas = request.sigmas.map(
        (_, i) => request.sigmas[0]! * (end / request.sigmas[0]!) ** (i / steps),
      );
      using out = finish(sample({ ...request, sigmas, options: quiet(name) }));
      return Float64Array.from(out.values);
    };
    const truth = solve('heun', 900);
    const coarse = relativeL2(solve(solver, 20), truth);
    const fine = relativeL2(solve(solver, 80), truth);
    // Four times the steps: at least first order. Euler, the worst, is within 5 % at 80 steps.
    expect(fine).toBeLessThan(Math.max(coarse / 2.5, 5e-3));
    expect(fine).toBeLessThan(0.05);
  });
});

test.each(names)('%s evaluates as often as the table says', (solver) => {
  const { evaluations } = SOLVERS[solver as keyof typeof SOLVERS];
  using request = start(solver, scaledLinear(), 5);
  const counted = calls(scaledLinear());
  finish(sample({ ...request, denoise: counted.denoise }))[Symbol.dispose]();
  // The step to 0 takes one; PLMS's first step takes two.
  expect(counted.evaluations).toBe(evaluations * 4 + 1 + (solver === 'plms' ? 1 : 0));
});

describe('churn', () => {
  test.each(['euler', 'heun', 'dpm_2'])(
    '%s: raises the level by at most √2 − 1, within sTmin … sTmax',
    (solver) => {
      for (const [sChurn, factor] of [
        [0.3, 1.1],
        [30, Math.SQRT2],
      ] as const) {
        using request = start(solver, scaledLinear(), 3);
        const counted = calls(scaledLinear());
        const sampling = sample({
          ...{ ...request, noise: counted.noise, sigmas: [10, 5, 1, 0] },
          options: { sChurn, sTmin: 2, sTmax: 8 },
          denoise: (x, sigma) => (levels.push(sigma), counted.denoise(x, sigma)),
        });
        const levels: number[] = [];
        const first: number[] = [];
        finish(sampling, () => first.push(levels.splice(0)[0]!))[Symbol.dispose]();
        expect(first).toEqual([10, expect.closeTo(5 * factor, 12), 1]);
        expect(counted.draws.length, 'noise is drawn in every step').toBe(3);
      }
    },
  );
});

describe('refusals', () => {
  const refused = (change: Partial<SampleRequest<HostVector>>, message: RegExp): void => {
    using request = start('euler', scaledLinear(), 3);
    expect(() => sample({ ...request, ...change })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
    );
  };

  test('an unknown sampler lists the choices', () => {
    refused({ solver: 'eular' }, /unknown sampler 'eular'. Choices: euler, euler_ancestral, .*deis/);
    refused({ solver: 'constructor' }, /unknown sampler/);
  });

  test.each<[string, number[], RegExp]>([
    ['none', [], /at least 1 step/],
    ['one', [1], /at least 1 step, got 0/],
    ['not a number', [1, NaN], /sigmas\[1\] is NaN/],
    ['infinite', [Infinity, 1], /sigmas\[0\] is Infinity/],
    ['negative', [1, -0.5], /sigmas\[1\] is -0.5/],
    ['level twice', [1, 0.5, 0.5, 0], /sigmas\[2\] = 0.5 is not below/],
    ['ascending', [0, 1], /must descend/],
  ])('levels: %s', (_, sigmas, message) => refused({ sigmas }, message));

  test('levels above 1 for a flow', () => refused({ sigmas: [2, 0], model: sd3() }, /at most 1/));

  test('a random solver without noise, unless its noise is off', () => {
    using request = start('euler_ancestral', scaledLinear(), 2);
    const { noise: _, ...silent } = request;
    for (const solver of ['euler_ancestral', 'dpmpp_sde', 'lcm'])
      expect(() => sample({ ...silent, solver })).toThrow(/draws fresh noise/);
    expect(() => sample({ ...silent, solver: 'euler', options: { sChurn: 1 } })).toThrow(/draws fresh noise/);
    for (const solver of names.filter((name) => SOLVERS[name as keyof typeof SOLVERS].noise !== 'always')) {
      finish(sample({ ...silent, solver, options: quiet(solver) }))[Symbol.dispose]();
    }
  });

  test('options: strangers, negative, and what a flow does not allow', () => {
    refused({ options: { eta: 0.5 } }, /'euler' has no option 'eta'. It takes: sChurn, sTmin, sTmax, sNoise/);
    refused({ solver: 'deis', options: { eta: 0.5 } }, /takes: none/);
    refused({ options: { sChurn: -1 } }, /sChurn is -1/);
    refused({ solver: 'ddim', options: { eta: NaN } }, /eta is NaN/);
    refused({ solver: 'ddim', options: { eta: 1.5 }, model: sd3(), sigmas: [1, 0] }, /at most 1 for a flow/);
    refused({ options: { sChurn: 1 }, model: sd3(), sigmas: [1, 0] }, /only eps and v models allow/);
  });
});
