/**
 * Scaling for image-to-image input: separable Lanczos (3 lobes), widened by the factor when it shrinks a picture,
 * so that every source pixel counts. Works on the stored sRGB values, as the tools people compare with do.
 */
import { KotobaError } from '../errors.js';
import { blankPicture, checkPicture, checkSize, paste, type Picture } from './picture.js';

const LOBES = 3;

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const lanczos = (x: number): number => (Math.abs(x) < LOBES ? sinc(x) * sinc(x / LOBES) : 0);

/** For each output position: the first input it reads and their weights, which add up to 1. */
interface Taps {
  readonly first: number;
  readonly weights: Float64Array;
}

/** Output pixel i has its centre at (i + 0.5) · from / to of the input. */
function taps(from: number, to: number): Taps[] {
  const scale = Math.max(1, from / to);
  return Array.from({ length: to }, (_, i) => {
    const centre = ((i + 0.5) * from) / to - 0.5;
    const first = Math.max(0, Math.ceil(centre - LOBES * scale));
    const last = Math.min(from - 1, Math.floor(centre + LOBES * scale));
    const weights = new Float64Array(last - first + 1);
    for (let j = 0; j < weights.length; j++) weights[j] = lanczos((first + j - centre) / scale);
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** Exactly to width × height, whatever the proportions. @throws KotobaError ERR_IMAGE_SIZE */
export function resizePicture(picture: Picture, width: number, height: number): Picture {
  checkPicture(picture, 'picture to scale');
  checkSize(width, height, 'scaled picture');
  if (width === picture.width && height === picture.height) return picture;
  const rows = scaleRows(picture, width);
  const rgb = new Uint8Array(width * height * 3);
  const line = new Float64Array(width * 3);
  for (const [y, { first, weights }] of taps(picture.height, height).entries()) {
    line.fill(0);
    for (const [j, weight] of weights.entries()) {
      const from = (first + j) * width * 3;
      for (let x = 0; x < line.length; x++) line[x]! += weight * rows[from + x]!;
    }
    for (let x = 0; x < line.length; x++) rgb[y * width * 3 + x] = toByte(line[x]!);
  }
  return { width, height, rgb };
}

/** @returns [picture.height, width, 3] unrounded */
function scaleRows({ width: from, height, rgb }: Picture, width: number): Float32Array {
  const out = new Float32Array(height * width * 3);
  const columns = taps(from, width);
  for (let y = 0, to = 0; y < height; y++)
    for (const { first, weights } of columns)
      for (let c = 0; c < 3; c++, to++) {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) sum += weights[j]! * rgb[(y * from + first + j) * 3 + c]!;
        out[to] = sum;
      }
  return out;
}

const toByte = (value: number): number => Math.min(255, Math.max(0, Math.round(value)));

/** Fills width × height: scaled so that both sides are covered, then cut evenly on the side that is too long. */
export function coverPicture(picture: Picture, width: number, height: number): Picture {
  checkPicture(picture, 'picture to scale');
  const factor = Math.max(width / picture.width, height / picture.height);
  const scaled = resizePicture(
    picture,
    Math.max(width, Math.round(picture.width * factor)),
    Math.max(height, Math.round(picture.height * factor)),
  );
  if (scaled.width === width && scaled.height === height) return scaled;
  const cut = blankPicture(width, height, [0, 0, 0]);
  paste(cut, scaled, -Math.floor((scaled.width - width) / 2), -Math.floor((scaled.height - height) / 2));
  return cut;
}

/**
 * The size an image-to-image run works at: both sides as multiples of `multiple`, about the same proportions,
 * at most `maxPixels`.
 */
export function workingSize(
  { width, height }: { readonly width: number; readonly height: number },
  { multiple = 16, maxPixels = Infinity }: { readonly multiple?: number; readonly maxPixels?: number } = {},
): { width: number; height: number } {
  if (!(multiple >= 1 && maxPixels >= multiple * multiple))
    throw new KotobaError('ERR_ARGUMENT', `at most ${maxPixels} pixels do not hold one block of ${multiple}`);
  const factor = Math.min(1, Math.sqrt(maxPixels / (width * height)));
  const snap = (side: number) => Math.max(multiple, Math.round((side * factor) / multiple) * multiple);
  const size = { width: snap(width), height: snap(height) };
  // rounding up both sides, or a very thin picture, may pass the limit again
  while (size.width * size.height > maxPixels) {
    if (size.width >= size.height) size.width -= multiple;
    else size.height -= multiple;
  }
  return size;
}
