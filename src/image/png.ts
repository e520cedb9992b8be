/**
 * PNG in and out. Pictures are written as 8-bit RGB with their texts before the pixels, where every reader finds
 * them; read are all PNG kinds, as 8-bit RGB. Colour profiles and gamma are ignored: values are taken as sRGB.
 */
import { readFile, stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { deflate } from 'node:zlib';
import { KotobaError } from '../errors.js';
import { writeAtomically } from '../atomic_file.js';
import { isPng, parseChunks, readTexts, serializeChunks, textChunk, type Chunk } from './chunks.js';
import { decodeOther } from './other_formats.js';
import { checkPicture, type Picture, type Rgb } from './picture.js';
import { decodePixels } from './png_pixels.js';

/** Larger files are refused unread: a PNG holds at most about its raw size, and MAX_PIXELS bounds that. */
const MAX_FILE_BYTES = 2 ** 30;

export interface DecodeOptions {
  /** transparent pixels are laid over this; default 'white' */
  readonly background?: 'white' | 'black';
}

/** A picture read from a file, with its text chunks by keyword. */
export interface PictureWithTexts extends Picture {
  readonly texts: ReadonlyMap<string, string>;
}

const deflateAsync = promisify(deflate);

/**
 * The filter is Paeth on every row and the compression runs in Node's thread pool: at 1024 × 1024 the JavaScript
 * thread is busy for 30 ms; fast-png's encoder kept it for 180 to 320 ms and wrote 1.7 times the bytes (Zen 5).
 * @param texts keyword → text, e.g. from `metadataTexts`
 */
export async function encodePng(
  picture: Picture,
  texts: ReadonlyMap<string, string> = new Map(),
): Promise<Uint8Array> {
  return Buffer.concat(await pngParts(picture, texts));
}

/** As `encodePng`, into a file. @throws KotobaError ERR_FILE_WRITE; the file is then as it was before */
export async function writePng(
  path: string,
  picture: Picture,
  texts: ReadonlyMap<string, string> = new Map(),
): Promise<void> {
  await writeAtomically(path, await pngParts(picture, texts));
}

async function pngParts(picture: Picture, texts: ReadonlyMap<string, string>): Promise<Uint8Array[]> {
  checkPicture(picture, 'PNG');
  const header = Buffer.alloc(13);
  header.writeUInt32BE(picture.width, 0);
  header.writeUInt32BE(picture.height, 4);
  header.set([8, 2, 0, 0, 0], 8); // 8 bits, RGB, deflate, adaptive filters, not interlaced
  const chunks: Chunk[] = [
    { type: 'IHDR', data: header },
    ...[...texts].map(([keyword, text]) => textChunk(keyword, text)),
    { type: 'IDAT', data: await deflateAsync(filterRows(picture), { level: 6 }) },
    { type: 'IEND', data: new Uint8Array(0) },
  ];
  return serializeChunks(chunks);
}

/** Each row as one byte 4 (Paeth) and the differences to the predicted bytes. @returns [height, 1 + 3 width] */
function filterRows({ width, height, rgb }: Picture): Uint8Array {
  const row = width * 3;
  const out = new Uint8Array(height * (row + 1));
  for (let y = 0, to = 0, from = 0; y < height; y++) {
    out[to++] = 4;
    for (let x = 0; x < row; x++, from++) {
      const left = x < 3 ? 0 : rgb[from - 3]!;
      const above = y === 0 ? 0 : rgb[from - row]!;
      const corner = x < 3 || y === 0 ? 0 : rgb[from - row - 3]!;
      const byLeft = Math.abs(above - corner);
      const byAbove = Math.abs(left - corner);
      const byCorner = Math.abs(left + above - 2 * corner);
      const nearest = byLeft <= byAbove && byLeft <= byCorner ? left : byAbove <= byCorner ? above : corner;
      out[to++] = rgb[from]! - nearest;
    }
  }
  return out;
}

/**
 * @param where names the picture in errors
 * @throws KotobaError ERR_IMAGE_FORMAT if it is no PNG, or a damaged one; ERR_IMAGE_SIZE if it is absurdly large
 */
export function decodePng(bytes: Uint8Array, where = 'PNG', options: DecodeOptions = {}): PictureWithTexts {
  if (!isPng(bytes)) throw new KotobaError('ERR_IMAGE_FORMAT', `${where}: not a PNG file`);
  const chunks = parseChunks(bytes, where);
  return { ...decodePixels(chunks, where, backgroundOf(options)), texts: readTexts(chunks) };
}

/**
 * Reads a PNG, and JPEG, WebP and others where the package sharp is installed.
 * @throws KotobaError ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_IMAGE_FORMAT, ERR_IMAGE_SIZE
 */
export async function readPicture(path: string, options: DecodeOptions = {}): Promise<PictureWithTexts> {
  const bytes = await readBytes(path);
  if (isPng(bytes)) return decodePng(bytes, path, options);
  return { ...(await decodeOther(bytes, path, backgroundOf(options))), texts: new Map() };
}

/** Only the texts: the pixels are not decoded. @throws as `readPicture` */
export async function readPngTexts(path: string): Promise<ReadonlyMap<string, string>> {
  const bytes = await readBytes(path);
  if (!isPng(bytes))
    throw new KotobaError('ERR_IMAGE_FORMAT', `${path}: not a PNG file, so it holds no settings`);
  return readTexts(parseChunks(bytes, path));
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(path);
    if (size > MAX_FILE_BYTES)
      throw new KotobaError('ERR_IMAGE_SIZE', `${path}: ${size} bytes is too large for a picture`);
    return await readFile(path);
  } catch (cause) {
    if (cause instanceof KotobaError) throw cause;
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    const why = missing ? 'no such file' : `cannot read: ${(cause as Error).message}`;
    throw new KotobaError(missing ? 'ERR_FILE_NOT_FOUND' : 'ERR_FILE_READ', `${path}: ${why}`, { cause });
  }
}

const backgroundOf = ({ background = 'white' }: DecodeOptions): Rgb =>
  background === 'white' ? [255, 255, 255] : [0, 0, 0];
