/** Every stored stream of both generators; tolerances as in the golden README (torch's AVX2 against libm; float Philox). */
import { describe, expect, test } from 'vitest';
import { NOISE, noiseNamed, philoxNoise, torchNoise, type NoiseGenerator } from '../../src/sampling/index.js';
import { maxAbsDifference } from '../support/reference.js';
import { GoldenNumbers } from './golden_numbers.js';

const file = new GoldenNumbers('diffusion/rng/rng.safetensors');
const kTorch = 1e-6;
const kPhilox = 2e-6;

interface Stored {
  readonly name: string;
  readonly seed: number;
  readonly rest: string;
}

function stored(prefix: string): Stored[] {
  return file.names.flatMap((name) => {
    const match = new RegExp(`^${prefix}\\.seed(\\d+)\\.(.+)$`).exec(name);
    return match ? [{ name, seed: Number(match[1]), rest: match[2]! }] : [];
  });
}

const count = (name: string): number => file.get(name).values.length;
const isSequence = ({ rest }: Stored): boolean => rest.startsWith('seq');

function checkSequences(prefix: string, make: (seed: number) => NoiseGenerator, bound: number): void {
  const draws = stored(prefix).filter(isSequence);
  for (const seed of new Set(draws.map((draw) => draw.seed))) {
    const generator = make(seed);
    const ofSeed = draws.filter((draw) => draw.seed === seed).sort((a, b) => (a.rest < b.rest ? -1 : 1));
    expect(ofSeed.length).toBe(6);
    for (const { name } of ofSeed)
      expect(maxAbsDifference(generator.normal(count(name)), file.get(name).values), name).toBeLessThan(
        bound,
      );
  }
}

describe('torch on the CPU', () => {
  test.each(stored('torch_cpu').filter((draw) => !isSequence(draw)))('$name', ({ name, seed, rest }) => {
    const generator = torchNoise(seed);
    const n = count(name);
    const drawn = rest.startsWith('f64.')
      ? generator.normalF64(n)
      : rest.startsWith('bf16.')
        ? generator.normalBf16(n)
        : rest.startsWith('rand_f32.')
          ? generator.uniform(n)
          : generator.normal(n);
    // bfloat16 values and uniforms are exact: a wrong bit would be 2^-8 and 2^-24.
    const bound = /^(bf16|rand)/.test(rest) ? 1e-12 : rest.startsWith('f64') ? 1e-14 : kTorch;
    expect(maxAbsDifference(drawn, file.get(name).values)).toBeLessThan(bound);
  });

  test('consecutive draws', () => checkSequences('torch_cpu', torchNoise, kTorch));
});

describe('torch on CUDA', () => {
  test.each(stored('cuda_philox').filter((draw) => !isSequence(draw)))('$name', ({ name, seed }) => {
    expect(maxAbsDifference(philoxNoise(seed).normal(count(name)), file.get(name).values)).toBeLessThan(
      kPhilox,
    );
  });

  test('consecutive draws', () => checkSequences('cuda_philox', philoxNoise, kPhilox));
});

describe('seeds', () => {
  test.each(Object.keys(NOISE))('%s: the same seed, the same noise; another, another', (name) => {
    const make = noiseNamed(name);
    expect(make(7).normal(64)).toEqual(make(7n).normal(64));
    expect(maxAbsDifference(make(7).normal(64), make(8).normal(64))).toBeGreaterThan(0.5);
    expect(() => make(2n ** 64n - 1n).normal(3)).not.toThrow();
    for (const seed of [-1, 1.5, NaN, Infinity, 2 ** 53, -1n, 2n ** 64n])
      expect(() => make(seed), String(seed)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  });

  test('torch uses the lower 32 bits, Philox all 64', () => {
    const [low, high] = [5n, 5n + 2n ** 32n];
    expect(torchNoise(low).normal(20)).toEqual(torchNoise(high).normal(20));
    expect(philoxNoise(low).normal(20)).not.toEqual(philoxNoise(high).normal(20));
  });

  test('an unknown generator lists the choices', () => {
    expect(() => noiseNamed('cuda')).toThrow(/unknown noise generator 'cuda'. Choices: torch, philox/);
  });

  test.each(Object.keys(NOISE))('%s: mean and variance of 2^16 values', (name) => {
    const values = noiseNamed(name)(11).normal(65_536);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
    // Five standard errors: 5/√65536 and 5·√(2/65536).
    expect(Math.abs(mean)).toBeLessThan(0.02);
    expect(Math.abs(variance - 1)).toBeLessThan(0.028);
  });
});
