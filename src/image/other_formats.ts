/** Pictures that are no PNG: named by their first bytes, decoded by the optional package sharp where it is installed. */
import { KotobaError } from '../errors.js';
import { MAX_PIXELS, type Picture, type Rgb } from './picture.js';

const ascii = (bytes: Uint8Array, from: number, to: number) =>
  Buffer.from(bytes.subarray(from, to)).toString('latin1');

/** 'JPEG', 'WebP', …, or undefined for what is no picture we know. */
export function pictureFormat(bytes: Uint8Array): string | undefined {
  const head = ascii(bytes, 0, 4);
  if (head.startsWith('\xff\xd8\xff')) return 'JPEG';
  if (head === 'RIFF' && ascii(bytes, 8, 12) === 'WEBP') return 'WebP';
  if (head === 'GIF8') return 'GIF';
  if (head.startsWith('BM')) return 'BMP';
  if (head === 'II*\0' || head === 'MM\0*') return 'TIFF';
  if (ascii(bytes, 4, 8) === 'ftyp') return /^(avif|avis)/.test(ascii(bytes, 8, 12)) ? 'AVIF' : 'HEIF';
  if (head.startsWith('\xff\x0a') || ascii(bytes, 4, 8) === 'JXL ') return 'JPEG XL';
  return undefined;
}

/** The part of sharp's interface that is used here; the package is an optional peer and need not be there. */
interface SharpImage {
  rotate(): SharpImage;
  toColourspace(space: string): SharpImage;
  flatten(options: { background: { r: number; g: number; b: number } }): SharpImage;
  removeAlpha(): SharpImage;
  raw(): SharpImage;
  toBuffer(options: { resolveWithObject: true }): Promise<{
    data: Buffer;
    info: { width: number; height: number; channels: number };
  }>;
}
export type Sharp = (input: Uint8Array, options: { limitInputPixels: number }) => SharpImage;

async function importSharp(): Promise<Sharp | undefined> {
  const name: string = 'sharp'; // a variable, so that the compiler does not want the package's types
  try {
    return ((await import(name)) as { default: Sharp }).default;
  } catch {
    return undefined;
  }
}

/** @throws KotobaError ERR_IMAGE_FORMAT, saying what the file is and what to do */
export async function decodeOther(
  bytes: Uint8Array,
  where: string,
  background: Rgb,
  loadSharp: () => Promise<Sharp | undefined> = importSharp,
): Promise<Picture> {
  const format = pictureFormat(bytes);
  const refuse = (why: string, cause?: unknown) =>
    new KotobaError('ERR_IMAGE_FORMAT', `${where}: ${why}`, { cause });
  if (!format) throw refuse(`not a picture: expected a PNG file, it starts with ${startOf(bytes)}`);
  const sharp = await loadSharp();
  if (!sharp)
    throw refuse(`a ${format} picture: convert it to PNG, or "npm install sharp" to read it as it is`);
  const [r, g, b] = background;
  try {
    const { data, info } = await sharp(bytes, { limitInputPixels: MAX_PIXELS })
      .rotate() // as the camera's orientation tag says
      .toColourspace('srgb')
      .flatten({ background: { r, g, b } })
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3) throw new Error(`${info.channels} channels instead of 3`);
    return { width: info.width, height: info.height, rgb: new Uint8Array(data) };
  } catch (cause) {
    throw refuse(`a ${format} picture that sharp cannot read: ${(cause as Error).message}`, cause);
  }
}

function startOf(bytes: Uint8Array): string {
  if (!bytes.length) return 'nothing: the file is empty';
  return [...bytes.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
}
