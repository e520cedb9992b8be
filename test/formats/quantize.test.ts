/** Blocks are ggml's bit for bit (golden/gguf/types: ggml_quantize_chunk), and halves are rounded to nearest even. */
import { describe, expect, test } from 'vitest';
import { QUANTIZED_TYPES, quantize } from '../../src/formats/index.js';
import { toBfloat, toHalf } from '../../src/formats/quantize.js';
import { readGolden } from '../support/golden.js';
import { refused } from './encoder_files.js';

const gaussian = readGolden('gguf/types/gaussian.safetensors');
const source = gaussian.get('source_f32')!.data as Float32Array;

test.each(QUANTIZED_TYPES.filter((type) => type !== 'F32'))("%s gives ggml's bytes", (type) => {
  expect(Buffer.from(quantize(source, type)).equals(gaussian.get(`${type}.bytes`)!.data as Uint8Array)).toBe(
    true,
  );
});

test.each(['Q8_0', 'Q4_0'] as const)('%s: zeros, one value, and ties', (type) => {
  // ggml divides Q4_0's 0 by -8: its scale is then -0
  expect(quantize(new Float32Array(32), type).subarray(0, 2)).toEqual(
    Uint8Array.of(0, type === 'Q4_0' ? 0x80 : 0),
  );
  const bytes = quantize(
    Float32Array.from({ length: 32 }, (_, i) => (i === 3 ? -127 : i === 4 ? 0.5 : 0)),
    type,
  );
  // Q8_0: d = 1, 0.5 rounds away from zero. Q4_0: d = 15.875, and codes are 8 around zero.
  if (type === 'Q8_0') expect([...bytes.subarray(0, 8)]).toEqual([0, 0x3c, 0, 0, 0, 0x81, 1, 0]);
  else expect([...bytes.subarray(0, 8)]).toEqual([0xf0, 0x4b, 0x88, 0x88, 0x88, 0x80, 0x88, 0x88]);
});

test('what cannot be quantised', () => {
  expect(() => quantize(new Float32Array(31), 'Q8_0')).toThrow(refused('ERR_ARGUMENT', 'whole blocks of 32'));
  expect(() => quantize(new Float32Array(32).fill(NaN), 'Q4_0')).toThrow(refused('ERR_ARGUMENT', 'finite'));
});

describe('halves', () => {
  const valueOf = (bits: number): number => {
    const exponent = (bits >> 10) & 0x1f;
    const mantissa = bits & 0x3ff;
    if (exponent === 31) return mantissa ? NaN : Infinity;
    return exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15);
  };

  test('every half, what lies halfway to the next, and just beside that', () => {
    for (let bits = 0; bits < 0x7bff; bits++) {
      const [here, next] = [valueOf(bits), valueOf(bits + 1)];
      const middle = (here + next) / 2;
      const even = bits + (bits & 1);
      const below = new Float32Array([middle]);
      new Uint32Array(below.buffer)[0]! -= 1;
      const found = [here, below[0]!, middle, -middle].map(toHalf);
      const expected = [bits, bits, even, even | 0x8000];
      if (found.some((half, i) => half !== expected[i])) expect(found).toEqual(expected);
    }
  });

  test('the edges of the range', () => {
    expect([65504, 65519.996, 65520, 1e30, Infinity, -Infinity].map(toHalf)).toEqual([
      0x7bff, 0x7bff, 0x7c00, 0x7c00, 0x7c00, 0xfc00,
    ]);
    expect(toHalf(NaN) & 0x7fff).toBeGreaterThan(0x7c00);
    expect([2 ** -25, 2 ** -25 * 1.001, 1e-30, -0].map(toHalf)).toEqual([0, 1, 0, 0x8000]);
  });

  test('bfloat16', () => {
    expect([1, 1.00390625, 1.01171875, 3.4e38, -0, Infinity].map(toBfloat)).toEqual([
      0x3f80, 0x3f80, 0x3f82, 0x7f80, 0x8000, 0x7f80,
    ]);
    expect(toBfloat(NaN) & 0x7fff).toBeGreaterThan(0x7f80);
  });
});
