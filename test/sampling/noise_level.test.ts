/** The split of a step into a step down and fresh noise, on paper. */
import { describe, expect, test } from 'vitest';
import { ancestralStep, halfLogSnr, sigmaOfHalfLogSnr } from '../../src/sampling/noise_level.js';

const etas = [0, 0.3, 0.5, 1];

describe.each([
  ['eps', false],
  ['flow', true],
] as const)('%s', (_, flow) => {
  test('λ and back', () => {
    for (const sigma of [0.01, 0.3, 0.5, 0.999]) {
      expect(sigmaOfHalfLogSnr(flow, halfLogSnr(flow, sigma))).toBeCloseTo(sigma, 14);
    }
  });

  test('scale, down and up add up to the next level; eta 0 takes no noise, a step to 0 neither', () => {
    for (const eta of etas) {
      const { down, scale, up } = ancestralStep(flow, 0.8, 0.6, eta);
      expect((scale * down) ** 2 + up ** 2).toBeCloseTo(0.36, 14);
      if (flow) expect(scale * (1 - down)).toBeCloseTo(0.4, 14);
      else expect(scale).toBe(1);
      expect(up > 0).toBe(eta > 0);
      expect(ancestralStep(flow, 0.8, 0, eta)).toEqual({ down: 0, scale: 1, up: 0 });
    }
  });
});

test('eps: up = eta · σNext √(1 − σNext²/σ²)', () => {
  expect(ancestralStep(false, 5, 3, 0.5).up).toBeCloseTo(0.5 * 3 * 0.8, 14);
  expect(ancestralStep(false, 5, 3, 9)).toEqual({ down: 0, scale: 1, up: 3 });
});

test('flow: down = σNext · (1 − eta · (1 − σNext/σ))', () => {
  expect(ancestralStep(true, 0.8, 0.6, 1).down).toBeCloseTo(0.45, 14);
  expect(ancestralStep(true, 0.8, 0.6, 0.5).down).toBeCloseTo(0.525, 14);
});
