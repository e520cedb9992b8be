/** What SDXL's UNets are told of their pictures' sizes, against golden/diffusion/sdxl_unet_tiny/sdxl_size_conditioning. */
import { describe, expect, test } from 'vitest';
import { sinusoids } from '../../../src/diffusion/timestep_embedding.js';
import { withSizes } from '../../../src/pipeline/conditioning/size_conditioning.js';
import { readGolden } from '../../support/golden.js';
import { maxAbsDifference } from '../../support/reference.js';

const golden = readGolden('diffusion/sdxl_size_conditioning/sdxl_size_conditioning.safetensors');
/** The reference multiplies 1024 by frequencies rounded to float32: half an ulp of 1024 either way. */
const TOLERANCE = 1e-4;

describe('golden', () => {
  test.each([0, 1])('case %i: pooled text, then six numbers, heights first', (i) => {
    const of = (name: string) => golden.get(`${i}.${name}`)!.data as Float32Array;
    const [[height, width], [top, left]] = [of('in.original_size_hw'), of('in.crop_top_left')] as unknown as [
      [number, number],
      [number, number],
    ];
    const [targetHeight, targetWidth] = of('in.target_size_hw') as unknown as [number, number];
    const told = {
      height: targetHeight,
      width: targetWidth,
      original: { height, width },
      crop: { top, left },
    };
    const vector = withSizes(of('in.pooled'), { adm_in_channels: 2816 }, told, 'prompt');
    expect(maxAbsDifference(vector, of('out.vector'))).toBeLessThan(TOLERANCE);
  });
});

test('a whole picture is its own original, not cropped', () => {
  const size = { width: 832, height: 1216 };
  const pooled = new Float32Array(8).fill(2);
  const config = { adm_in_channels: 8 + 6 * 256 };
  const whole = withSizes(pooled, config, size, 'prompt');
  expect(whole).toEqual(
    withSizes(pooled, config, { ...size, original: size, crop: { top: 0, left: 0 } }, 'negative'),
  );
  expect([...whole.subarray(0, 8)]).toEqual([...pooled]);
  expect(whole.subarray(8)).toEqual(sinusoids([1216, 832, 0, 0, 1216, 832], 256));
});

test('the refiner is told a score in the place of the size wanted: a lower one of the negative prompt', () => {
  const config = { adm_in_channels: 8 + 5 * 256 };
  const vector = (text: 'prompt' | 'negative') =>
    withSizes(new Float32Array(8), config, { width: 64, height: 128 }, text).subarray(8);
  expect(vector('prompt')).toEqual(sinusoids([128, 64, 0, 0, 6], 256));
  expect(vector('negative')).toEqual(sinusoids([128, 64, 0, 0, 2.5], 256));
});

test('a vector of another width', () => {
  const size = { width: 64, height: 64 };
  expect(() => withSizes(new Float32Array(9), { adm_in_channels: 8 + 6 * 256 }, size, 'prompt')).toThrow(
    expect.objectContaining({
      code: 'ERR_MODEL_SLOT',
      message: 'UNet: takes vectors of 1544: expected pooled text of 8, got 9',
    }),
  );
});
