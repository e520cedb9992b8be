/** Guidance and the formulas around the network, against the pipeline's golden data. */
import { afterEach, describe, expect, test } from 'vitest';
import {
  cfg,
  denoiserOf,
  fluxDev,
  guided,
  PARAMETERIZATIONS,
  scaledLinear,
  sd3,
  skipLayerGuidance,
  startLatent,
  type Denoiser,
} from '../../src/sampling/index.js';
import { relativeL2 } from '../support/reference.js';
import { GoldenNumbers } from './golden_numbers.js';
import { double, HostVector } from './host_vectors.js';

const file = new GoldenNumbers('diffusion/pipeline/pipeline.safetensors');
const kExact = 1e-12;
const valuesOf = (name: string): Float64Array => file.get(name).values;

afterEach(() => expect(HostVector.living, 'vectors still alive').toBe(0));

/** The stored tensors are batches of two, with a level each for the network and the first level for the start. */
function batch(name: string, i: number): Float64Array {
  const { values } = file.get(name);
  return values.subarray((i * values.length) / 2, ((i + 1) * values.length) / 2);
}

describe.each([0, 1])('batch entry %d', (i) => {
  test.each([
    ['eps', scaledLinear()],
    ['v', scaledLinear({ prediction: 'v' })],
    ['flow', sd3()],
  ] as const)('%s: the network’s input, and denoised from its output', (kind, model) => {
    const sigma = valuesOf(kind === 'flow' ? 'param.flow.sigma' : 'param.sigma')[i]!;
    let seen: Float64Array | undefined;
    let timestep = NaN;
    const denoise = denoiserOf({
      algebra: double,
      model,
      network: (input, t) => {
        seen = Float64Array.from(input.values);
        timestep = t;
        return double.of(batch('param.model_output', i));
      },
    });
    using x = double.of(batch('param.x', i));
    using denoised = denoise(x, sigma);
    expect(relativeL2(seen!, batch(`param.${kind}.input`, i))).toBeLessThan(kExact);
    expect(relativeL2(denoised.values, batch(`param.${kind}.denoised`, i))).toBeLessThan(kExact);
    expect(timestep).toBe(model.nearestTimestep(sigma));
  });

  test.each(['eps', 'v', 'flow'] as const)('%s: the start of a sampling', (prediction) => {
    const sigma = valuesOf(prediction === 'flow' ? 'param.flow.sigma' : 'param.sigma')[0]!;
    using noise = double.of(batch('param.x', i));
    using latent = double.of(batch('param.latent', i));
    using start = startLatent(double, { noise, latent, prediction, sigma });
    expect(relativeL2(start.values, batch(`param.${prediction}.noise_scaling`, i))).toBeLessThan(kExact);
  });

  test.each(['eps', 'v'] as const)('%s: the start with unit variance for the network', (prediction) => {
    const sigma = valuesOf('param.sigma')[0]!;
    using noise = double.of(batch('param.x', i));
    using latent = double.of(batch('param.latent', i));
    using start = startLatent(double, { noise, latent, prediction, sigma, noiseScale: 'unit' });
    expect(relativeL2(start.values, batch(`param.${prediction}.noise_scaling_max`, i))).toBeLessThan(kExact);
  });
});

test('text to image starts from scaled noise alone', () => {
  using noise = double.of([1, -2]);
  using flow = startLatent(double, { noise, prediction: 'flow', sigma: 1 });
  using eps = startLatent(double, { noise, prediction: 'eps', sigma: 3 });
  using unit = startLatent(double, { noise, prediction: 'eps', sigma: 3, noiseScale: 'unit' });
  expect([...flow.values]).toEqual([1, -2]);
  expect([...eps.values]).toEqual([3, -6]);
  expect(unit.values[0]).toBeCloseTo(Math.sqrt(10), 14);
});

test('k-diffusion feeds fractional timesteps, ComfyUI whole ones', () => {
  const seen: number[] = [];
  const network = (input: HostVector, t: number): HostVector => {
    seen.push(t);
    return double.of(input.values);
  };
  using x = double.of([1]);
  for (const timesteps of ['nearest', 'fractional'] as const) {
    using _ = denoiserOf({ algebra: double, model: scaledLinear(), network, timesteps })(x, 0.3);
  }
  expect(seen).toEqual([81, expect.closeTo(80.7502628057357, 8)]);
});

test('a flow network sees x itself, no copy', () => {
  using x = double.of([1]);
  let same = false;
  const network = (input: HostVector): HostVector => {
    same = input === x;
    return double.of([0]);
  };
  using _ = denoiserOf({ algebra: double, model: fluxDev(), network })(x, 0.5);
  expect(same).toBe(true);
});

test('what is left at a level above 0 is scaled back', () => {
  expect(PARAMETERIZATIONS.eps.finalScale(0.75)).toBe(0.8);
  expect(PARAMETERIZATIONS.flow.finalScale(0.75)).toBe(4);
});

describe('guidance', () => {
  const constant =
    (name: string): Denoiser<HostVector> =>
    () =>
      double.of(valuesOf(name));
  const never: Denoiser<HostVector> = () => {
    throw new Error('must not be run');
  };

  test.each([1, 3.5, 7.5])('CFG at %f', (scale) => {
    using x = double.of([0]);
    const uncond = scale === 1 ? never : constant('cfg.uncond');
    using out = cfg(double, constant('cfg.cond'), uncond, scale)(x, 1);
    expect(relativeL2(out.values, valuesOf(`cfg.out.${scale}`))).toBeLessThan(kExact);
  });

  test('skip-layer guidance where it is active, plain CFG where not', () => {
    using x = double.of([0]);
    const parts = { cond: constant('cfg.cond'), uncond: constant('cfg.uncond'), scale: 5, skipScale: 2.5 };
    const isActive = (sigma: number): boolean => sigma > 0.5;
    using on = skipLayerGuidance(double, { ...parts, skipped: constant('slg.skip'), isActive })(x, 1);
    expect(relativeL2(on.values, valuesOf('slg.out.cfg5_slg2.5'))).toBeLessThan(kExact);
    using off = skipLayerGuidance(double, { ...parts, skipped: never, isActive })(x, 0.1);
    using plain = cfg(double, parts.cond, parts.uncond, 5)(x, 0.1);
    expect([...off.values]).toEqual([...plain.values]);
  });

  test('a failing part leaves nothing alive', () => {
    using x = double.of([0]);
    const failing = guided(double, [
      [2, constant('cfg.cond')],
      [-1, never],
    ]);
    expect(() => failing(x, 1)).toThrow('must not be run');
  });
});
