/** Increments of one path: variance 1 each, correlated where they overlap, fresh where not, nothing left alive. */
import { afterEach, expect, test } from 'vitest';
import { BrownianNoise, sample, scaledLinear, torchNoise } from '../../src/sampling/index.js';
import { relativeL2 } from '../support/reference.js';
import { analyticDenoised, counted, double, finish, HostVector } from './host_vectors.js';

afterEach(() => expect(HostVector.living, 'vectors still alive').toBe(0));

const kCount = 40_000;
const mean = (values: ArrayLike<number>): number =>
  Array.from(values).reduce((a, b) => a + b, 0) / values.length;
const product = (a: HostVector, b: HostVector): number =>
  mean(a.values.map((value, i) => value * b.values[i]!));

function path(seed: number): BrownianNoise<HostVector> {
  const generator = torchNoise(seed);
  return new BrownianNoise(double, () => double.of(generator.normal(kCount)));
}

test('overlapping increments correlate as their path does', () => {
  using noise = path(3);
  using first = noise.next(10, 6);
  using second = noise.next(10, 2);
  using third = noise.next(2, 1);
  // Five standard errors of a mean of products: 5/√40000 = 0.025, for squares √2 of it more.
  expect(product(first, first)).toBeCloseTo(1, 1);
  expect(Math.abs(product(second, second) - 1)).toBeLessThan(0.036);
  expect(Math.abs(product(first, second) - Math.sqrt(4 / 8))).toBeLessThan(0.036);
  expect(Math.abs(product(second, third))).toBeLessThan(0.025);
});

test('an increment that does not go on from the last is fresh', () => {
  using noise = path(4);
  using first = noise.next(10, 6);
  using shorter = noise.next(10, 8);
  using other = noise.next(9, 2);
  expect(Math.abs(product(first, shorter))).toBeLessThan(0.025);
  expect(Math.abs(product(shorter, other))).toBeLessThan(0.025);
});

test('dpmpp_sde with it leaves nothing alive and differs from independent noise', () => {
  const solve = (correlated: boolean): Float64Array => {
    const generator = torchNoise(9);
    const draw = (): HostVector => double.of(generator.normal(16));
    using noise = new BrownianNoise(double, draw);
    const { denoise } = counted(double, analyticDenoised, () => []);
    using x = double.of(new Float64Array(16).fill(3));
    const source = correlated ? noise.next.bind(noise) : draw;
    const request = {
      solver: 'dpmpp_sde',
      algebra: double,
      denoise,
      noise: source,
      x,
      sigmas: [3, 1, 0.2, 0],
    };
    using out = finish(sample({ ...request, model: scaledLinear() }));
    return Float64Array.from(out.values);
  };
  expect(relativeL2(solve(true), solve(true))).toBe(0);
  expect(relativeL2(solve(true), solve(false))).toBeGreaterThan(1e-3);
});
