import { expect, test } from 'vitest';
import { median, quantile, summarize } from '../../bench/stats.js';

test('quantiles interpolate between the sorted readings', () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(quantile([10, 20], 0.05)).toBeCloseTo(10.5);
  expect(quantile([5], 0.95)).toBe(5);
  expect(summarize([2, 1, 3])).toEqual({ median: 2, p5: 1.1, p95: 2.9, count: 3 });
});

test('a NaN is not lost, an infinity does not become one', () => {
  expect(median([1, NaN, 3])).toBeNaN();
  expect(quantile([1, 2, NaN], 0.05)).toBeNaN();
  expect(median([1, Infinity, Infinity])).toBe(Infinity);
  expect(quantile([Infinity, Infinity], 0.5)).toBe(Infinity);
});

test('no readings and wrong fractions are refused', () => {
  expect(() => median([])).toThrow(RangeError);
  expect(() => quantile([1], 1.5)).toThrow(RangeError);
  expect(() => quantile([1], NaN)).toThrow(RangeError);
});
