/** The autoencoder's floats in -1…1 and a picture's bytes. */
import { KotobaError } from '../errors.js';
import { checkPicture, checkSize, type Picture } from './picture.js';

export type PixelLayout = 'chw' | 'hwc';

export interface PixelShape {
  readonly width: number;
  readonly height: number;
  /** 'chw' (default): [3, height, width]; 'hwc': [height, width, 3] */
  readonly layout?: PixelLayout;
}

/**
 * byte = trunc(127.5 (clamp(x, -1, 1) + 1)) in F32: every reference implementation truncates, none rounds.
 * @param values one picture of a decoded batch
 * @throws KotobaError ERR_NON_FINITE rather than a black picture
 */
export function pictureFromValues(values: Float32Array, shape: PixelShape): Picture {
  const { width, height, layout = 'chw' } = shape;
  checkSize(width, height, 'decoded picture');
  checkCount(values, width * height * 3);
  const rgb = new Uint8Array(values.length);
  const [pixelStep, channelStep] = steps(layout, width * height);
  for (let i = 0, to = 0; i < width * height; i++)
    for (let c = 0; c < 3; c++, to++) {
      const x = values[i * pixelStep + c * channelStep]!;
      if (!Number.isFinite(x))
        throw new KotobaError(
          'ERR_NON_FINITE',
          `the decoded picture has ${x} at pixel (${i % width}, ${Math.floor(i / width)})`,
        );
      rgb[to] = Math.fround(Math.fround(127.5) * Math.fround(Math.min(1, Math.max(-1, x)) + 1));
    }
  return { width, height, rgb };
}

/** x = byte / 127.5 - 1, the input of the autoencoder's encoder. @returns [3, height, width], or as `layout` says */
export function valuesFromPicture(picture: Picture, layout: PixelLayout = 'chw'): Float32Array {
  checkPicture(picture, 'picture');
  const { width, height, rgb } = picture;
  const values = new Float32Array(rgb.length);
  const [pixelStep, channelStep] = steps(layout, width * height);
  for (let i = 0, from = 0; i < width * height; i++)
    for (let c = 0; c < 3; c++, from++) values[i * pixelStep + c * channelStep] = rgb[from]! / 127.5 - 1;
  return values;
}

function steps(layout: PixelLayout, pixels: number): readonly [pixel: number, channel: number] {
  return layout === 'chw' ? [1, pixels] : [3, 1];
}

function checkCount(values: Float32Array, expected: number): void {
  if (values.length !== expected)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `decoded picture: expected ${expected} values, got ${values.length}`,
    );
}
