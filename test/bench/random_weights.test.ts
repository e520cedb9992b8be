import { describe, expect, test } from 'vitest';
import { blockSizes, f16Bits, hashName, makePool, Random } from '../../bench/random_weights.js';
import type { StoredType } from '../../bench/model_layout.js';

/** The value of F16 bits, by the definition. */
function f16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** One block's weights, straight from the format's formulas (GGUF: ggml's block layouts). */
const decoders: Record<StoredType, (block: Buffer) => number[]> = {
  F32: (block) => [block.readFloatLE(0)],
  F16: (block) => [f16Value(block.readUInt16LE(0))],
  Q8_0: (block) => {
    const d = f16Value(block.readUInt16LE(0));
    return Array.from({ length: 32 }, (_, i) => d * block.readInt8(2 + i));
  },
  Q4_0: (block) => {
    const d = f16Value(block.readUInt16LE(0));
    return Array.from({ length: 32 }, (_, i) => d * (((block[2 + (i % 16)]! >> (i < 16 ? 0 : 4)) & 15) - 8));
  },
  Q4_K: (block) => {
    const [d, dmin] = [f16Value(block.readUInt16LE(0)), f16Value(block.readUInt16LE(2))];
    const packed = block.subarray(4, 16);
    const six = (at: number, s: number, shift: number) =>
      s < 4 ? packed[at + s]! & 63 : ((packed[4 + s]! >> shift) & 15) | ((packed[at + s - 4]! >> 6) << 4);
    return Array.from({ length: 256 }, (_, i) => {
      const s = Math.floor(i / 32);
      const code = (block[16 + 32 * Math.floor(i / 64) + (i % 32)]! >> (s % 2 ? 4 : 0)) & 15;
      return d * six(0, s, 0) * code - dmin * six(4, s, 4);
    });
  },
  Q6_K: (block) => {
    const d = f16Value(block.readUInt16LE(208));
    return Array.from({ length: 256 }, (_, i) => {
      const [half, quarter, l] = [i >> 7, (i >> 5) & 3, i & 31];
      const low = (block[64 * half + 32 * (quarter & 1) + l]! >> (quarter < 2 ? 0 : 4)) & 15;
      const high = (block[128 + 32 * half + l]! >> (2 * quarter)) & 3;
      return d * block.readInt8(192 + (i >> 4)) * ((low | (high << 4)) - 32);
    });
  },
};

function decode(type: StoredType, pool: Buffer): number[] {
  const { bytes } = blockSizes[type];
  const values: number[] = [];
  for (let at = 0; at < pool.length; at += bytes)
    values.push(...decoders[type](pool.subarray(at, at + bytes)));
  return values;
}

function moments(values: readonly number[]): { mean: number; std: number } {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return { mean, std: Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length) };
}

describe('pools decode to the distribution asked for', () => {
  const cases: [StoredType, number, number][] = [
    ['F32', 1, 0.1],
    ['F16', 0, 1 / 64],
    ['Q8_0', 0, 1 / 64],
    ['Q4_0', 0, 1 / 64],
    ['Q4_K', 0, 1 / 512],
    ['Q6_K', 0, 1],
  ];
  // 2^20 values in blocks whose scales vary: the standard deviation is known to well under 1 %; F16 scales
  // of Q4_K at 1/512 are subnormal and add 0.4 %.
  test.each(cases)('%s: mean %d, standard deviation %d', (type, mean, std) => {
    const found = moments(decode(type, makePool(type, { mean, std }, new Random(7))));
    expect(Math.abs(found.mean - mean) / std).toBeLessThan(0.01);
    expect(Math.abs(found.std / std - 1)).toBeLessThan(0.01);
  });
});

test('a quantised pool refuses a mean', () => {
  expect(() => makePool('Q8_0', { mean: 1, std: 1 }, new Random(1))).toThrow(RangeError);
});

test('f16Bits inverts every finite F16 and rounds to nearest, ties to even', () => {
  for (let bits = 0; bits < 0x7c00; bits++) {
    expect(f16Bits(f16Value(bits))).toBe(bits);
    const middle = (f16Value(bits) + (bits === 0x7bff ? 65536 : f16Value(bits + 1))) / 2;
    expect(f16Bits(middle), `between ${bits} and the next`).toBe(bits + (bits & 1));
    expect(f16Bits(-f16Value(bits) || -0)).toBe(bits | 0x8000);
  }
});

test('the generator is the same everywhere and its normals are normal', () => {
  const random = new Random(42);
  const first = [random.bits(), random.bits(), random.bits()];
  const again = new Random(42);
  expect([again.bits(), again.bits(), again.bits()]).toEqual(first);
  const found = moments(Array.from({ length: 1 << 18 }, () => random.normal()));
  expect(Math.abs(found.mean)).toBeLessThan(0.01);
  expect(Math.abs(found.std - 1)).toBeLessThan(0.01);
  expect(hashName('a', 1)).not.toBe(hashName('a', 2));
});
