/** Distances on paper and on identical pictures, where they are exact. */
import { expect, test } from 'vitest';
import { embeddingDistance, pictureDistance, ssim } from '../../src/image/metrics.js';
import type { Picture } from '../../src/image/picture.js';

const grey = (width: number, height: number, value: (x: number, y: number) => number): Picture => {
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < rgb.length; i++) rgb[i] = value(Math.floor(i / 3) % width, Math.floor(i / 3 / width));
  return { width, height, rgb };
};
const pattern = (x: number, y: number) => (x * 37 + y * 91 + x * y * 13) & 255;

test.each([
  [64, 64],
  [11, 30],
  [5, 3],
  [1, 1],
  [2, 40],
])('identical pictures of %i × %i: exactly 0, ∞ and 1', (width, height) => {
  const a = grey(width, height, pattern);
  expect(pictureDistance(a, { ...a, rgb: a.rgb.slice() })).toEqual({ mae: 0, psnr: Infinity, ssim: 1 });
});

test('MAE and PSNR on paper: every byte off by 5 is 20 log10(255 / 5) dB', () => {
  const distance = pictureDistance(grey(16, 16, () => 100), grey(16, 16, () => 105)); // prettier-ignore
  expect(distance.mae).toBe(5);
  expect(distance.psnr).toBeCloseTo(34.1514, 4);
  const one = pictureDistance({ width: 1, height: 1, rgb: Uint8Array.of(0, 0, 0) }, { width: 1, height: 1, rgb: Uint8Array.of(255, 0, 0) }); // prettier-ignore
  expect(one.mae).toBe(85);
  expect(one.psnr).toBeCloseTo(4.7712, 4); // 10 log10(3)
});

test('SSIM on paper: flat pictures have only the luminance term', () => {
  const [a, b, c1] = [100, 120, 6.5025];
  const expected = (2 * a * b + c1) / (a * a + b * b + c1);
  expect(ssim(grey(20, 20, () => a), grey(20, 20, () => b))).toBeCloseTo(expected, 12); // prettier-ignore
});

test('SSIM on paper: 1 × 3 pixels are one window with the weights e^(-x²/4.5)', () => {
  const side = Math.exp(-1 / 4.5);
  const w = [side, 1, side].map((weight) => weight / (1 + 2 * side));
  const [a, b] = [
    [10, 200, 90],
    [30, 150, 120],
  ];
  const mean = (f: (i: number) => number) => w.reduce((sum, weight, i) => sum + weight * f(i), 0);
  const [ma, mb] = [mean((i) => a![i]!), mean((i) => b![i]!)];
  const [va, vb] = [mean((i) => (a![i]! - ma) ** 2), mean((i) => (b![i]! - mb) ** 2)];
  const cov = mean((i) => (a![i]! - ma) * (b![i]! - mb));
  const [c1, c2] = [6.5025, 58.5225];
  const expected = ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma ** 2 + mb ** 2 + c1) * (va + vb + c2));
  const of = (values: number[]) => grey(3, 1, (x) => values[x]!);
  expect(ssim(of(a!), of(b!))).toBeCloseTo(expected, 10);
});

test('SSIM counts whole windows only: 12 × 11 has two, and colour by its luma', () => {
  // left and right column differ from a flat picture; both windows see one of them at their edge
  const flat = grey(12, 11, () => 128);
  const left = grey(12, 11, (x) => (x === 0 ? 255 : 128));
  const right = grey(12, 11, (x) => (x === 11 ? 255 : 128));
  expect(ssim(flat, left)).toBeCloseTo(ssim(flat, right), 12);
  expect(ssim(flat, left)).toBeLessThan(1);
  const red = { width: 1, height: 1, rgb: Uint8Array.of(100, 0, 0) };
  const black = { width: 1, height: 1, rgb: new Uint8Array(3) };
  expect(ssim(red, black)).toBeCloseTo(6.5025 / (29.9 ** 2 + 6.5025), 12);
});

test('pictures of two sizes are refused', () => {
  expect(() => pictureDistance(grey(2, 3, pattern), grey(3, 2, pattern))).toThrow(
    expect.objectContaining({
      code: 'ERR_ARGUMENT',
      message: expect.stringContaining('2 × 3 and 3 × 2') as string,
    }),
  );
});

test('embeddings: identical, on paper, and NaN-sticky', () => {
  const b = Float32Array.of(3, 4, 0, 2);
  expect(embeddingDistance(b, b.slice(), 2)).toEqual({ relativeL2: 0, worstCosine: 1 });
  const d = embeddingDistance(Float32Array.of(3, 4, 2, 0), b, 2);
  expect(d.relativeL2).toBeCloseTo(Math.sqrt(8 / 29), 12);
  expect(d.worstCosine).toBe(0);
  expect(embeddingDistance(new Float32Array(4), new Float32Array(4), 2)).toEqual({
    relativeL2: 0,
    worstCosine: 1,
  });
  for (const at of [0, 3]) {
    const broken = b.slice();
    broken[at] = NaN;
    expect(embeddingDistance(broken, b, 2)).toEqual({ relativeL2: NaN, worstCosine: NaN });
  }
  expect(() => embeddingDistance(b, b.slice(1), 2)).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT' }),
  );
  expect(() => embeddingDistance(b, b, 3)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
});
