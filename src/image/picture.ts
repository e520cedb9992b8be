/** The one form that pictures have in Kotoba, between the autoencoder's floats and a file's bytes. */
import { KotobaError } from '../errors.js';

/** 8 bits a channel, sRGB, no alpha. The pixel at (x, y) starts at rgb[3 * (y * width + x)]: R, G, B. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  /** [height, width, 3] */
  readonly rgb: Uint8Array;
}

export type Rgb = readonly [red: number, green: number, blue: number];

/** Past this a picture is taken for a mistake or an attack: 64 Mi pixels are 192 MiB of RGB. */
export const MAX_PIXELS = 2 ** 26;

/** @throws KotobaError ERR_IMAGE_SIZE, naming `what` */
export function checkSize(width: number, height: number, what: string): void {
  const sane = (n: number) => Number.isInteger(n) && n > 0;
  if (sane(width) && sane(height) && width * height <= MAX_PIXELS) return;
  const limit = `at most ${MAX_PIXELS / 2 ** 20} Mi pixels, width and height at least 1`;
  throw new KotobaError('ERR_IMAGE_SIZE', `${what}: expected ${limit}, got ${width} × ${height}`);
}

/** One colour everywhere. @throws KotobaError ERR_IMAGE_SIZE */
export function blankPicture(width: number, height: number, colour: Rgb, what = 'picture'): Picture {
  checkSize(width, height, what);
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < rgb.length; i++) rgb[i] = colour[i % 3]!;
  return { width, height, rgb };
}

/** @throws KotobaError ERR_IMAGE_SIZE if the size is absurd, ERR_ARGUMENT if the bytes do not fit it */
export function checkPicture({ width, height, rgb }: Picture, what: string): void {
  checkSize(width, height, what);
  const expected = width * height * 3;
  if (rgb.length !== expected)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${what}: expected ${expected} bytes for ${width} × ${height} RGB, got ${rgb.length}`,
    );
}

/** Copies `source` into `target` with its top left corner at (left, top); what lies outside is cut off. */
export function paste(target: Picture, source: Picture, left: number, top: number): void {
  const from = Math.max(0, -left);
  const to = Math.min(source.width, target.width - left);
  for (let y = Math.max(0, -top); y < Math.min(source.height, target.height - top); y++) {
    if (to <= from) return;
    const row = source.rgb.subarray((y * source.width + from) * 3, (y * source.width + to) * 3);
    target.rgb.set(row, ((y + top) * target.width + left + from) * 3);
  }
}

/** @param box left, top, width, height in pixels; what lies outside of the picture is cut off */
export function fillBox(target: Picture, box: readonly [number, number, number, number], colour: Rgb): void {
  const [left, top, width, height] = box;
  const right = Math.min(target.width, left + width);
  for (let y = Math.max(0, top); y < Math.min(target.height, top + height); y++)
    for (let x = Math.max(0, left); x < right; x++) target.rgb.set(colour, (y * target.width + x) * 3);
}

/** Every pixel as a square of `factor` × `factor`: what small pictures need to be seen as they are. */
export function enlarge(picture: Picture, factor: number): Picture {
  if (factor === 1) return picture;
  const out = blankPicture(picture.width * factor, picture.height * factor, [0, 0, 0], 'enlarged picture');
  for (let y = 0, to = 0; y < out.height; y++)
    for (let x = 0; x < out.width; x++)
      for (let c = 0; c < 3; c++, to++)
        out.rgb[to] = picture.rgb[(Math.floor(y / factor) * picture.width + Math.floor(x / factor)) * 3 + c]!;
  return out;
}
