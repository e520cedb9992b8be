import { describe, expect, test } from 'vitest';
import { emphasizeKeepingMean, emphasizeTogether, interpolateFromEmpty } from '../../src/text/index.js';
import { readGolden } from '../support/golden.js';

// Both sides compute in double: a few roundings of values of order 1.
const C = 8;
const tolerance = C * Number.EPSILON * 4;

const tensors = readGolden('diffusion/pipeline/pipeline.safetensors');

function f64(name: string): Float64Array {
  const bytes = tensors.get(name)!.data as Uint8Array;
  return new Float64Array(bytes.slice().buffer);
}

function expectClose(actual: Float64Array, expected: Float64Array): void {
  expect(actual.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) {
    expect(Math.abs(actual[i]! - value) <= tolerance, `[${i}] ${actual[i]} for ${value}`).toBe(true);
  }
}

describe('ComfyUI: interpolation from the empty prompt', () => {
  test.each([
    ['one_chunk', 1],
    ['two_chunks', 2],
  ])('golden %s', (name, chunks) => {
    const key = `comfy_weights.${name}`;
    const weights = f64(`${key}.weights`);
    const expected = f64(`${key}.out`);
    const empty = f64(`${key}.raw_encoder_out.${chunks}`);
    for (let k = 0; k < chunks; k++) {
      const actual = interpolateFromEmpty(
        f64(`${key}.raw_encoder_out.${k}`),
        empty,
        weights.subarray(8 * k, 8 * (k + 1)),
      );
      expectClose(actual, expected.subarray(48 * k, 48 * (k + 1)));
    }
  });

  test('weights of 1 change no bit, and the input stays as it was', () => {
    const hidden = Float32Array.of(0.1, 0.2, 0.3, 0.4);
    const out = interpolateFromEmpty(hidden, Float32Array.of(9, 9, 9, 9), [1, 2]);
    expect([...out.subarray(0, 2)]).toEqual([...hidden.subarray(0, 2)]);
    expect([...hidden]).toEqual([...Float32Array.of(0.1, 0.2, 0.3, 0.4)]);
    expect(out).toBeInstanceOf(Float32Array);
    expect(out[2]).toBe(Math.fround((Math.fround(0.3) - 9) * 2 + 9));
  });
});

describe('A1111: multiply and restore the mean', () => {
  test('golden: the mean is over all that is passed, so batching changes it', () => {
    const z = f64('a1111.z');
    const multipliers = f64('a1111.multipliers');
    expectClose(emphasizeKeepingMean(z, multipliers), f64('a1111.original.batch2'));
    expectClose(
      emphasizeKeepingMean(z.subarray(0, 48), multipliers.subarray(0, 8)),
      f64('a1111.original.first_alone'),
    );
  });

  test('the mean is kept; a mean of zero leaves the product', () => {
    const out = emphasizeKeepingMean(Float64Array.of(1, 2, 3, 4), [1, 3]);
    expect(out.reduce((sum, v) => sum + v, 0)).toBeCloseTo(10, 12);
    expect([...emphasizeKeepingMean(Float64Array.of(1, -1, 2, -2), [1, 3])]).toEqual([1, -1, 6, -6]);
  });
});

describe('A1111 over several encoders side by side (SD3)', () => {
  test('golden: one mean, whatever columns it is split into; zeros beside it change nothing', () => {
    const z = f64('a1111.z'); // [2, 8, 6]
    const weights = f64('a1111.multipliers');
    const expected = f64('a1111.original.batch2');
    const columns = (first: number, last: number, of: Float64Array): Float64Array =>
      of.filter((_, i) => i % 6 >= first && i % 6 < last);
    const parts = [columns(0, 2, z), columns(2, 6, z), new Float64Array(16)];
    const [left, right, zeros] = emphasizeTogether(parts.map((hidden) => ({ hidden, weights })));
    expectClose(left!, columns(0, 2, expected));
    expectClose(right!, columns(2, 6, expected));
    expect(zeros!.every((value) => value === 0)).toBe(true);
  });
});

test('weights that do not divide the values are ERR_ARGUMENT', () => {
  for (const apply of [
    () => emphasizeKeepingMean(new Float32Array(5), [1, 1]),
    () => emphasizeKeepingMean(new Float32Array(0), [1]),
    () => interpolateFromEmpty(new Float32Array(4), new Float32Array(6), [1, 1]),
  ]) {
    expect(apply).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  }
});
