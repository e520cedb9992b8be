import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { DTYPES, elementCount, isWeightDType, tensorBytes } from '../../src/formats/index.js';

describe('dtypes', () => {
  test('the table is the one of native/dtype.h, in the same order', () => {
    const header = readFileSync(new URL('../../native/dtype.h', import.meta.url), 'utf8');
    const native = [...header.matchAll(/X\((\w+), (\d+), (\d+)\)/g)].map(([, name, weights, bytes]) => [
      name,
      [Number(weights), Number(bytes)],
    ]);
    expect(Object.entries(DTYPES)).toEqual(native);
  });

  test('sizes are exact or refused', () => {
    expect(tensorBytes('F32', [])).toBe(4);
    expect(tensorBytes('Q4_K', [3, 512])).toBe(3 * 2 * 144);
    expect(tensorBytes('Q4_K', [512, 3])).toBeUndefined();
    expect(tensorBytes('F64', [2 ** 51])).toBeUndefined();
    expect(elementCount([2 ** 40, 2 ** 40])).toBeUndefined();
    expect(elementCount([2 ** 40, 2 ** 40, 0])).toBe(0);
    expect(['F16', 'F8_E5M2', 'IQ1_S', 'I8', 'U64', 'BOOL'].map((t) => isWeightDType(t as 'F16'))).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
  });
});
