/** Encoders side by side: rows, columns, and what A1111's weights do over both. */
import { describe, expect, test } from 'vitest';
import {
  chunksToFill,
  emphasizeSides,
  joinedRows,
  sideBySide,
} from '../../../src/pipeline/conditioning/join_encoders.js';
import { concatenate } from '../../../src/pipeline/token_rows.js';
import { emphasizeKeepingMean } from '../../../src/text/index.js';
import { readGolden } from '../../support/golden.js';

const tensors = readGolden('diffusion/pipeline/pipeline.safetensors');
const doubles = (name: string): Float64Array =>
  new Float64Array((tensors.get(name)!.data as Uint8Array).slice().buffer);
const floats = (name: string): Float32Array => Float32Array.from(doubles(name));

describe('golden contexts', () => {
  const clipL = { hidden: floats('sd3_context.in.clip_l_penultimate'), width: 12 };
  const clipG = { hidden: floats('sd3_context.in.clip_g_penultimate'), width: 20 };

  test('SDXL: CLIP-L ⊕ CLIP-G', () => {
    expect(sideBySide([clipL, clipG], 9, 32)).toEqual(floats('sdxl_context.out'));
  });

  test('SD3: the same and zeros, then T5; vectors side by side', () => {
    const context = concatenate([sideBySide([clipL, clipG], 9, 48), floats('sd3_context.in.t5')]);
    expect(context).toEqual(floats('sd3_context.out.context'));
    const vectors = ['l', 'g'].map((which) => floats(`sd3_context.in.clip_${which}_pooled`));
    expect(concatenate(vectors)).toEqual(floats('sd3_context.out.y'));
  });

  test('more columns than there is room for', () => {
    expect(() => sideBySide([clipL, clipG], 9, 31)).toThrow(/31 columns at most, got 12 \+ 20/);
  });
});

describe('rows of encoders with other chunks', () => {
  /** Where a prompt of `count` tokens ends. */
  const side = (chunkTokens: number, count: number) => {
    const chunks = Math.max(1, Math.ceil(count / (chunkTokens - 2)));
    const inLast = count - (chunks - 1) * (chunkTokens - 2);
    const tokens = chunks * chunkTokens;
    return { tokens, chunkTokens, contentTokens: tokens - chunkTokens + inLast + 2 };
  };

  test.each([
    [0, 77],
    [10, 77],
    [75, 77],
    [76, 154],
    [100, 154],
    [246, 308],
    [300, 308],
    [301, 385],
  ])('%i tokens in Long-CLIP-L and CLIP-G: %i rows', (count, rows) => {
    const sides = [side(248, count), side(77, count)];
    expect(joinedRows(sides)).toBe(rows);
    expect(joinedRows(sides.toReversed())).toBe(rows);
  });

  test('nothing of the prompt is cut, the shortest is full, and nothing is filled up needlessly', () => {
    for (let count = 0; count < 800; count++)
      for (const other of [77, 248, 512]) {
        const sides = [side(77, count), side(other, count)];
        const rows = joinedRows(sides);
        for (const one of sides) {
          expect(rows).toBeGreaterThanOrEqual(one.contentTokens);
          const filled = one.tokens + chunksToFill(one, rows) * one.chunkTokens;
          expect(filled).toBeGreaterThanOrEqual(rows);
        }
        expect(sides.some((one) => rows % one.chunkTokens === 0)).toBe(true);
        const needed = Math.max(...sides.map(({ contentTokens }) => contentTokens));
        expect(rows - needed).toBeLessThan(Math.min(77, other));
      }
  });

  test('alike encoders are joined as they are', () => {
    for (const count of [0, 75, 76, 151]) {
      const one = side(77, count);
      expect(joinedRows([one, one])).toBe(one.tokens);
      expect(joinedRows([one])).toBe(one.tokens);
      expect(chunksToFill(one, one.tokens)).toBe(0);
    }
  });

  test('a prompt cut to one chunk of CLIP-G still leaves all of Long-CLIP-L', () => {
    const sides = [side(248, 200), { tokens: 77, chunkTokens: 77, contentTokens: 77 }];
    expect(joinedRows(sides)).toBe(231);
    expect(sides.map((one) => chunksToFill(one, 231))).toEqual([0, 2]);
  });
});

describe("A1111's weights over both", () => {
  const values = (from: number, length: number): Float32Array =>
    Float32Array.from({ length }, (_, i) => from + 0.25 * i);
  const rows = (tokens: number, chunkTokens: number) => ({ tokens, chunkTokens, contentTokens: tokens });
  const weights = Float64Array.of(1, 2, 1, 1, 0.5, 1);

  test('one mean for a chunk of both', () => {
    const left = { hidden: values(1, 12), width: 2, weights, ...rows(6, 3) };
    const right = { hidden: values(-7, 18), width: 3, weights, ...rows(6, 3) };
    const [l, g] = emphasizeSides([left, right]);
    for (const chunk of [0, 1]) {
      const joined = sideBySide(
        [left, right].map(({ hidden, width }) => ({
          hidden: hidden.subarray(chunk * 3 * width, (chunk + 1) * 3 * width),
          width,
        })),
        3,
        8, // three columns of zeros, which change no sum
      );
      const expected = emphasizeKeepingMean(joined, weights.subarray(chunk * 3, chunk * 3 + 3));
      const actual = sideBySide(
        [
          { hidden: l!.subarray(chunk * 6, chunk * 6 + 6), width: 2 },
          { hidden: g!.subarray(chunk * 9, chunk * 9 + 9), width: 3 },
        ],
        3,
        8,
      );
      expect(actual).toEqual(expected);
    }
  });

  test('a mean each where chunks differ; without weights nothing changes', () => {
    const left = { hidden: values(1, 12), width: 2, weights, ...rows(6, 6) };
    const right = { hidden: values(-7, 18), width: 3, weights, ...rows(6, 3) };
    const [l, g] = emphasizeSides([left, right]);
    expect(l).toEqual(emphasizeKeepingMean(left.hidden, weights));
    expect(g!.subarray(0, 9)).toEqual(
      emphasizeKeepingMean(right.hidden.subarray(0, 9), weights.subarray(0, 3)),
    );
    const plain = [left, right].map((side) => ({ ...side, weights: undefined }));
    expect(emphasizeSides(plain)).toEqual([left.hidden, right.hidden]);
  });
});
