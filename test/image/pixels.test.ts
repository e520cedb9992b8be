/** Floats and bytes as the reference implementations do it, and scaling for image-to-image. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { openModel } from '../../src/formats/index.js';
import { blankPicture, type Picture } from '../../src/image/picture.js';
import { pictureFromValues, valuesFromPicture } from '../../src/image/pixels.js';
import { coverPicture, resizePicture, workingSize } from '../../src/image/resize.js';
import { goldenPath } from '../support/golden.js';

const path = goldenPath('diffusion/pipeline/pipeline.safetensors');

function goldenBytes(name: string): Uint8Array {
  const { offset, bytes } = openModel(path!).tensors.get(name)!;
  return new Uint8Array(readFileSync(path!).subarray(offset, offset + bytes));
}

describe('floats and bytes', () => {
  test.skipIf(!path)('golden: every value as the Flux code truncates it', () => {
    const values = new Float32Array(goldenBytes('to_bytes.in').buffer);
    const expected = goldenBytes('to_bytes.flux_127.5(x+1)_trunc');
    const found = [...values].map(
      (x) => pictureFromValues(new Float32Array(3).fill(x), { width: 1, height: 1 }).rgb[0],
    );
    expect(found).toEqual([...expected]);
  });

  test('both layouts put a value in its place', () => {
    const values = Float32Array.from({ length: 12 }, (_, i) => (i * 20 + 0.5) / 127.5 - 1);
    const chw = pictureFromValues(values, { width: 2, height: 2 });
    expect([...chw.rgb]).toEqual([0, 80, 160, 20, 100, 180, 40, 120, 200, 60, 140, 220]);
    const hwc = pictureFromValues(values, { width: 2, height: 2, layout: 'hwc' });
    expect([...hwc.rgb]).toEqual(Array.from({ length: 12 }, (_, i) => i * 20));
    expect([...valuesFromPicture(chw)].map((x) => Math.round((x + 1) * 127.5))).toEqual(
      Array.from({ length: 12 }, (_, i) => i * 20),
    );
    expect([...valuesFromPicture(chw, 'hwc')].map((x) => Math.round((x + 1) * 127.5))).toEqual([...chw.rgb]);
  });

  test('bytes → floats are in -1…1 and lose at most one step on the way back', () => {
    const picture: Picture = {
      width: 256,
      height: 1,
      rgb: Uint8Array.from({ length: 768 }, (_, i) => i / 3),
    };
    const values = valuesFromPicture(picture);
    expect([Math.min(...values), Math.max(...values)]).toEqual([-1, 1]);
    const again = pictureFromValues(values, picture).rgb;
    for (const [i, byte] of again.entries()) expect(picture.rgb[i]! - byte).toBeOneOf([0, 1]);
  });

  test('NaN and infinity are errors with their pixel, and a wrong count is one', () => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      const values = new Float32Array(12);
      values[6] = bad; // green of the third pixel
      expect(() => pictureFromValues(values, { width: 2, height: 2 })).toThrow(
        expect.objectContaining({
          code: 'ERR_NON_FINITE',
          message: expect.stringContaining('(0, 1)') as string,
        }),
      );
    }
    expect(() => pictureFromValues(new Float32Array(11), { width: 2, height: 2 })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
  });
});

describe('scaling', () => {
  const ramp: Picture = {
    width: 40,
    height: 30,
    rgb: Uint8Array.from({ length: 3600 }, (_, i) => (Math.floor(i / 3) % 40) * 6),
  };

  test('one colour stays that colour at every size', () => {
    const flat = blankPicture(13, 7, [12, 200, 255]);
    for (const [width, height] of [
      [13, 7],
      [1, 1],
      [64, 64],
      [5, 40],
    ] as const)
      // prettier-ignore
      expect(resizePicture(flat, width, height)).toEqual(blankPicture(width, height, [12, 200, 255]));
  });

  test('a ramp stays a ramp, half and double', () => {
    const half = resizePicture(ramp, 20, 15);
    for (let x = 4; x < 16; x++) expect(half.rgb[(7 * 20 + x) * 3]).toBeCloseTo(x * 12 + 3, -0.5);
    const back = resizePicture(half, 40, 30);
    for (let x = 8; x < 32; x++)
      expect(Math.abs(back.rgb[(15 * 40 + x) * 3]! - x * 6)).toBeLessThanOrEqual(2);
  });

  test('covering keeps the middle and the proportions', () => {
    const wide = blankPicture(300, 100, [255, 255, 255]);
    for (let y = 0; y < 100; y++) for (let x = 140; x < 160; x++) wide.rgb.set([0, 0, 0], (y * 300 + x) * 3);
    const cut = coverPicture(wide, 50, 50);
    expect([cut.width, cut.height]).toEqual([50, 50]);
    const dark = Array.from({ length: 50 }, (_, x) => cut.rgb[(25 * 50 + x) * 3]!).flatMap((v, x) =>
      v < 128 ? x : [],
    );
    expect([dark.at(0), dark.at(-1)]).toEqual([20, 29]); // 20 pixels halved, in the middle
    expect(coverPicture(ramp, 40, 30)).toBe(ramp);
  });

  test('working sizes are multiples, near the original, within the limit', () => {
    expect(workingSize({ width: 500, height: 333 })).toEqual({ width: 496, height: 336 });
    expect(workingSize({ width: 3, height: 900 })).toEqual({ width: 16, height: 896 });
    const limited = workingSize({ width: 4000, height: 3000 }, { maxPixels: 2 ** 20 });
    expect(limited).toEqual({ width: 1184, height: 880 });
    for (const size of [
      [1, 30000],
      [257, 257],
      [16, 16],
    ] as const) {
      // prettier-ignore
      const { width, height } = workingSize({ width: size[0], height: size[1] }, { maxPixels: 65536 });
      expect(width * height).toBeLessThanOrEqual(65536);
      expect([width % 16, height % 16]).toEqual([0, 0]);
    }
    expect(() => workingSize({ width: 5, height: 5 }, { maxPixels: 100 })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
  });
});
