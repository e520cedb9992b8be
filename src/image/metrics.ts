/** How different two pictures, or two conditionings, are: what `compare` prints for each cell. */
import { KotobaError } from '../errors.js';
import { checkPicture, type Picture } from './picture.js';

export interface PictureDistance {
  /** mean absolute difference of all bytes, 0…255 */
  readonly mae: number;
  /** 10 log10(255² / mean squared difference), in dB; Infinity for identical pictures */
  readonly psnr: number;
  /** 1 for identical pictures */
  readonly ssim: number;
}

/** @throws KotobaError ERR_ARGUMENT if the sizes differ */
export function pictureDistance(a: Picture, b: Picture): PictureDistance {
  checkSameSize(a, b);
  let absolute = 0;
  let squared = 0;
  for (let i = 0; i < a.rgb.length; i++) {
    const d = a.rgb[i]! - b.rgb[i]!;
    absolute += Math.abs(d);
    squared += d * d;
  }
  const psnr = squared === 0 ? Infinity : 10 * Math.log10((255 * 255 * a.rgb.length) / squared);
  return { mae: absolute / a.rgb.length, psnr, ssim: ssim(a, b) };
}

function checkSameSize(a: Picture, b: Picture): void {
  checkPicture(a, 'picture to compare');
  checkPicture(b, 'picture to compare');
  if (a.width !== b.width || a.height !== b.height)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `pictures to compare must have one size, got ${a.width} × ${a.height} and ${b.width} × ${b.height}`,
    );
}

const WINDOW = 11;
const SIGMA = 1.5; // pixels
const C1 = (0.01 * 255) ** 2;
const C2 = (0.03 * 255) ** 2;

/**
 * Structural similarity, Wang et al. 2004 (doi:10.1109/TIP.2003.819861), on BT.601 luma in double precision: the
 * mean over every whole 11 × 11 Gaussian window of
 *   (2 μa μb + C1)(2 σab + C2) / ((μa² + μb² + C1)(σa² + σb² + C2)).
 * A side shorter than 11 pixels has the largest odd window that fits.
 */
export function ssim(a: Picture, b: Picture): number {
  checkSameSize(a, b);
  const { width, height } = a;
  const [x, y] = [luma(a), luma(b)];
  const product = (p: Float64Array, q: Float64Array) => p.map((value, i) => value * q[i]!);
  const mean = (values: Float64Array) => blur(values, width, height);
  const [mx, my, mxx, myy, mxy] = [x, y, product(x, x), product(y, y), product(x, y)].map(mean) as Five;
  let sum = 0;
  for (let i = 0; i < mx.length; i++) {
    const [u, v] = [mx[i]!, my[i]!];
    const [uu, vv, uv] = [u * u, v * v, u * v];
    const structure = (2 * (mxy[i]! - uv) + C2) / (mxx[i]! - uu + (myy[i]! - vv) + C2);
    sum += ((2 * uv + C1) / (uu + vv + C1)) * structure;
  }
  return sum / mx.length;
}
type Five = [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];

function luma({ width, height, rgb }: Picture): Float64Array {
  return Float64Array.from(
    { length: width * height },
    (_, i) => 0.299 * rgb[i * 3]! + 0.587 * rgb[i * 3 + 1]! + 0.114 * rgb[i * 3 + 2]!,
  );
}

function gaussian(side: number): Float64Array {
  const taps = Math.min(WINDOW, side % 2 ? side : side - 1);
  const weights = Float64Array.from({ length: taps }, (_, i) =>
    Math.exp(-((i - (taps - 1) / 2) ** 2) / (2 * SIGMA * SIGMA)),
  );
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

/** Weighted means over whole windows. @returns [height - windowHeight + 1, width - windowWidth + 1] */
function blur(values: Float64Array, width: number, height: number): Float64Array {
  const [across, down] = [gaussian(width), gaussian(height)];
  const columns = width - across.length + 1;
  const rows = height - down.length + 1;
  const half = new Float64Array(height * columns);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < columns; x++) half[y * columns + x] = dot(across, values, y * width + x, 1);
  const out = new Float64Array(rows * columns);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++) out[y * columns + x] = dot(down, half, y * columns + x, columns);
  return out;
}

function dot(weights: Float64Array, values: Float64Array, from: number, step: number): number {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) sum += weights[i]! * values[from + i * step]!;
  return sum;
}

export interface EmbeddingDistance {
  /** ‖a − b‖ / ‖b‖, b being the reference; 0 for identical */
  readonly relativeL2: number;
  /** the cosine of the token that changed most; 1 for identical */
  readonly worstCosine: number;
}

/**
 * NaN-sticky: a NaN on either side makes both numbers NaN.
 * @param a, b [tokens, width]; b is the reference
 * @throws KotobaError ERR_ARGUMENT if the lengths differ
 */
export function embeddingDistance(a: Float32Array, b: Float32Array, width: number): EmbeddingDistance {
  if (a.length !== b.length || !a.length || !(width > 0) || a.length % width)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `embeddings to compare must be [tokens, ${width}], got ${a.length} and ${b.length} values`,
    );
  let error = 0;
  let norm = 0;
  let worstCosine = 1;
  for (let from = 0; from < a.length; from += width) {
    const token = tokenSums(a.subarray(from, from + width), b.subarray(from, from + width));
    error += token.error;
    norm += token.bb;
    const cosine = token.error === 0 ? 1 : token.ab / Math.sqrt(token.aa * token.bb);
    if (!(cosine >= worstCosine)) worstCosine = Number.isNaN(worstCosine) ? NaN : cosine;
  }
  return { relativeL2: error === 0 ? 0 : Math.sqrt(error / norm), worstCosine };
}

function tokenSums(a: Float32Array, b: Float32Array) {
  const sums = { aa: 0, bb: 0, ab: 0, error: 0 };
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    sums.aa += x * x;
    sums.bb += y * y;
    sums.ab += x * y;
    sums.error += (x - y) ** 2;
  }
  return sums;
}
