/** PNGs whose lengths and checksums fit and whose content does not: what gets past a reader's first check. */
import { deflateSync, inflateSync } from 'node:zlib';
import { pngChunk } from './image_samples.js';
import { below, mutate, mutateInPlace, pick, type Random } from './mutate.js';

interface Chunk {
  type: string;
  data: Buffer;
}

type Edit = (chunks: Chunk[], random: Random) => void;

const kSignature = 8;
const kSizes = [0, 1, 7, 8, 9, 255, 8192, 8193, 65_535, 2 ** 26, 2 ** 31 - 1, 2 ** 32 - 1];
const kTypes = ['IHDR', 'PLTE', 'tRNS', 'IDAT', 'tEXt', 'zTXt', 'iTXt', 'iCCP', 'gAMA', 'IEND', 'ABCD'];

const resize: Edit = (chunks, random) => {
  const header = chunks.find(({ type, data }) => type === 'IHDR' && data.length >= 13);
  header?.data.writeUInt32BE(pick(kSizes, random), pick([0, 4], random));
};

/** Bit depth, colour type, compression, filter, interlace. */
const rekind: Edit = (chunks, random) => {
  const header = chunks.find(({ type, data }) => type === 'IHDR' && data.length >= 13);
  header?.data.writeUInt8(pick([0, 1, 2, 3, 4, 6, 8, 16, 255], random), 8 + below(random, 5));
};

const damageOne: Edit = (chunks, random) => {
  const chunk = pick(chunks, random);
  if (chunk.data.length > 0) chunk.data = (random() < 0.5 ? mutate : mutateInPlace)(chunk.data, random);
};

/** Inflated, damaged, deflated again: filters, texts, palettes' indices. */
const damageInside: Edit = (chunks, random) => {
  const chunk = chunks.find(({ type }) => type === pick(['IDAT', 'IDAT', 'zTXt'], random));
  if (!chunk) return;
  const start = chunk.type === 'zTXt' ? chunk.data.indexOf(0) + 2 : 0;
  try {
    const inside = mutate(inflateSync(chunk.data.subarray(start)), random);
    chunk.data = Buffer.concat([chunk.data.subarray(0, start), deflateSync(inside)]);
  } catch {
    // another edit has damaged the stream already
  }
};

/** A few bytes that become many. */
const bomb: Edit = (chunks, random) => {
  const bytes = deflateSync(Buffer.alloc(1 << (20 + below(random, 6))));
  const text = Buffer.concat([Buffer.from('parameters\0\0'), bytes]);
  if (random() < 0.5) chunks.splice(1, 0, { type: 'zTXt', data: text });
  else for (const chunk of chunks) if (chunk.type === 'IDAT') chunk.data = bytes;
};

const drop: Edit = (chunks, random) => {
  if (chunks.length > 1) chunks.splice(below(random, chunks.length), 1);
};

const repeat: Edit = (chunks, random) => {
  const { type, data } = pick(chunks, random);
  chunks.splice(below(random, chunks.length + 1), 0, { type, data: Buffer.from(data) });
};

const rename: Edit = (chunks, random) => {
  pick(chunks, random).type = pick(kTypes, random);
};

const kEdits: readonly Edit[] = [resize, rekind, rekind, damageOne, damageOne, damageInside, damageInside];
const kRareEdits: readonly Edit[] = [bomb, drop, repeat, rename];

/** One to three edits of a whole PNG. */
export function rewritePng(bytes: Buffer, random: Random): Buffer {
  const chunks = chunksOf(bytes);
  for (let i = 1 + below(random, 3); i > 0; i--)
    pick(random() < 0.75 ? kEdits : kRareEdits, random)(chunks, random);
  return Buffer.concat([
    bytes.subarray(0, kSignature),
    ...chunks.map(({ type, data }) => pngChunk(type, data)),
  ]);
}

function chunksOf(bytes: Buffer): Chunk[] {
  const chunks: Chunk[] = [];
  for (let at = kSignature; at + 12 <= bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    const length = bytes.readUInt32BE(at);
    const type = bytes.toString('latin1', at + 4, at + 8);
    chunks.push({ type, data: Buffer.from(bytes.subarray(at + 8, at + 8 + length)) });
  }
  return chunks;
}
