/**
 * The pixels of a PNG as 8-bit RGB: grey, palette, RGB, with and without alpha, 1 to 16 bits.
 * fast-png undoes filters and interlacing; everything that would let a small file grow is checked before it runs.
 */
import { inflateSync } from 'node:zlib';
import { convertIndexedToRgb, decode, type DecodedPng } from 'fast-png';
import { KotobaError } from '../errors.js';
import { serializeChunks, type Chunk } from './chunks.js';
import { checkSize, type Picture, type Rgb } from './picture.js';

/** colour type → channels, allowed bit depths (PNG specification, table 11.1) */
const COLOUR_TYPES: ReadonlyMap<number, { channels: number; depths: readonly number[] }> = new Map([
  [0, { channels: 1, depths: [1, 2, 4, 8, 16] }],
  [2, { channels: 3, depths: [8, 16] }],
  [3, { channels: 1, depths: [1, 2, 4, 8] }],
  [4, { channels: 2, depths: [8, 16] }],
  [6, { channels: 4, depths: [8, 16] }],
]);
const PALETTE = 3;

/** Adam7: first column and row, then steps, of each pass */
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

interface Header {
  readonly width: number;
  readonly height: number;
  readonly depth: number;
  readonly colourType: number;
  readonly bitsPerPixel: number;
  readonly interlaced: boolean;
}

/** @throws KotobaError ERR_IMAGE_FORMAT, ERR_IMAGE_SIZE */
export function decodePixels(chunks: readonly Chunk[], where: string, background: Rgb): Picture {
  const header = readHeader(chunks, where);
  checkData(chunks, header, where);
  // the pixels' own chunks only: fast-png would also inflate a colour profile, of any size
  const own = ['IHDR', 'PLTE', 'IDAT', 'IEND', ...(header.colourType === PALETTE ? ['tRNS'] : [])];
  const needed = chunks.filter(({ type }) => own.includes(type));
  try {
    const png = decode(Buffer.concat(serializeChunks(needed)));
    return toRgb(png, header, transparentColour(chunks, header), background);
  } catch (cause) {
    throw damaged(where, (cause as Error).message, cause);
  }
}

const damaged = (where: string, what: string, cause?: unknown) =>
  new KotobaError('ERR_IMAGE_FORMAT', `${where}: damaged PNG: ${what}`, { cause });

function readHeader(chunks: readonly Chunk[], where: string): Header {
  const [first] = chunks;
  if (first?.type !== 'IHDR' || first.data.length !== 13) throw damaged(where, 'no header at its start');
  if (chunks.filter(({ type }) => type === 'IHDR').length > 1) throw damaged(where, 'two headers');
  const data = Buffer.from(first.data);
  const [width, height] = [data.readUInt32BE(0), data.readUInt32BE(4)];
  const [depth, colourType, compression, filter, interlace] = [...data.subarray(8)] as FiveBytes;
  const kind = COLOUR_TYPES.get(colourType);
  if (!kind?.depths.includes(depth)) throw damaged(where, `colour type ${colourType} with ${depth} bits`);
  if (compression || filter || interlace > 1)
    throw damaged(where, `compression ${compression}, filter ${filter}, interlace ${interlace} are unknown`);
  checkSize(width, height, where);
  if (interlace && depth < 8)
    throw new KotobaError(
      'ERR_IMAGE_FORMAT',
      `${where}: an interlaced PNG of ${depth} bits is not supported: save it without interlacing`,
    );
  return { width, height, depth, colourType, bitsPerPixel: depth * kind.channels, interlaced: !!interlace };
}
type FiveBytes = [number, number, number, number, number];

/** Inflates the pixels once with a bound: neither more nor less than the header says may come out. */
function checkData(chunks: readonly Chunk[], header: Header, where: string): void {
  const deflated = Buffer.concat(chunks.filter(({ type }) => type === 'IDAT').map(({ data }) => data));
  if (!deflated.length) throw damaged(where, 'no pixels');
  const expected = dataBytes(header);
  let found: number;
  try {
    found = inflateSync(deflated, { maxOutputLength: expected }).length;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const tooLong = code === 'ERR_BUFFER_TOO_LARGE';
    throw damaged(where, tooLong ? `more than its ${expected} bytes of pixels` : message, cause);
  }
  if (found < expected) throw damaged(where, `${found} of ${expected} bytes of pixels`);
}

/** Bytes of all rows, each with its filter byte. */
function dataBytes({ width, height, bitsPerPixel, interlaced }: Header): number {
  const passes = interlaced ? PASSES : ([[0, 0, 1, 1]] as const);
  const sizes = passes.map(([left, top, stepX, stepY]) => {
    const columns = Math.ceil((width - left) / stepX);
    const rows = Math.ceil((height - top) / stepY);
    return columns > 0 && rows > 0 ? rows * (1 + Math.ceil((columns * bitsPerPixel) / 8)) : 0;
  });
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Alpha is applied in 8 bits on the stored values, as viewers do. */
function toRgb(
  png: DecodedPng,
  { width, height, colourType }: Header,
  key: readonly number[],
  background: Rgb,
): Picture {
  const rgb = new Uint8Array(width * height * 3);
  const indexed = colourType === PALETTE;
  const channels = indexed ? paletteChannels(png) : png.channels;
  const values = indexed ? paletteColours(png) : unpack(png);
  const max = indexed ? 255 : 2 ** png.depth - 1;
  const grey = channels < 3;
  const alphaAt = channels % 2 === 0 ? channels - 1 : undefined;
  for (let i = 0; i < width * height; i++) {
    const at = i * channels;
    let alpha = alphaAt === undefined ? max : values[at + alphaAt]!;
    if (key.length && key.every((value, c) => values[at + c] === value)) alpha = 0;
    for (let c = 0; c < 3; c++) {
      const value = values[at + (grey ? 0 : c)]! / max;
      rgb[i * 3 + c] = Math.round(background[c]! + (value * 255 - background[c]!) * (alpha / max));
    }
  }
  return { width, height, rgb };
}

/** The one colour that tRNS makes transparent in grey and RGB pictures; empty without it. */
function transparentColour(chunks: readonly Chunk[], { colourType }: Header): number[] {
  const data = colourType === PALETTE ? undefined : chunks.find(({ type }) => type === 'tRNS')?.data;
  const channels = colourType === 0 ? 1 : 3;
  if (data?.length !== channels * 2) return [];
  return Array.from({ length: channels }, (_, c) => data[c * 2]! * 256 + data[c * 2 + 1]!);
}

/** Grey of 1, 2 and 4 bits lies packed in bytes, each row starting anew. */
function unpack({ width, height, depth, data }: DecodedPng): ArrayLike<number> {
  if (depth >= 8) return data;
  const out = new Uint8Array(width * height);
  const rowBytes = Math.ceil((width * depth) / 8);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const bit = x * depth;
      const byte = data[y * rowBytes + (bit >> 3)]!;
      out[y * width + x] = (byte >> (8 - depth - (bit & 7))) & (2 ** depth - 1);
    }
  return out;
}

const paletteChannels = ({ palette }: DecodedPng): number => (palette?.[0]?.length === 4 ? 4 : 3);

function paletteColours(png: DecodedPng): Uint8Array {
  if (!png.palette?.length) throw new Error('no palette');
  return convertIndexedToRgb(png);
}
