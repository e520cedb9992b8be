/**
 * A PNG file as its list of chunks: length, type, data, CRC-32 (PNG specification, section 5), and the three
 * text chunks: tEXt (Latin-1), zTXt (the same, deflated), iTXt (UTF-8).
 */
import { crc32, inflateSync } from 'node:zlib';
import { KotobaError } from '../errors.js';

export interface Chunk {
  readonly type: string;
  readonly data: Uint8Array;
}

export const PNG_SIGNATURE = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');

/** A compressed text longer than this is not read: no prompt needs it, an attack does. */
const MAX_TEXT_BYTES = 2 ** 24;

export const isPng = (bytes: Uint8Array): boolean =>
  bytes.length >= 8 && PNG_SIGNATURE.equals(bytes.subarray(0, 8));

const damaged = (where: string, what: string) =>
  new KotobaError('ERR_IMAGE_FORMAT', `${where}: damaged PNG: ${what}; export or download it again`);

/** Critical chunks (upper-case first letter) must be whole; of the others a damaged one is left out. */
export function parseChunks(bytes: Uint8Array, where: string): Chunk[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks: Chunk[] = [];
  for (let at = PNG_SIGNATURE.length; ;) {
    if (at + 12 > bytes.length) throw damaged(where, `cut short, ends after ${bytes.length} bytes`);
    const length = view.getUint32(at);
    const type = Buffer.from(bytes.subarray(at + 4, at + 8)).toString('latin1');
    const end = at + 12 + length;
    if (!/^[A-Za-z]{4}$/.test(type)) throw damaged(where, `no chunk at byte ${at}`);
    if (end > bytes.length)
      throw damaged(where, `cut short, ${type} needs ${end} bytes, the file has ${bytes.length}`);
    const whole = crc32(bytes.subarray(at + 4, end - 4)) === view.getUint32(end - 4);
    if (whole) chunks.push({ type, data: bytes.subarray(at + 8, end - 4) });
    else if (/^[A-Z]/.test(type)) throw damaged(where, `wrong checksum of ${type} at byte ${at}`);
    if (type === 'IEND') return chunks;
    at = end;
  }
}

/** The parts of a PNG file, in order: signature, then the chunks. */
export function serializeChunks(chunks: readonly Chunk[]): Uint8Array[] {
  return [PNG_SIGNATURE, ...chunks.flatMap(serializeChunk)];
}

function serializeChunk({ type, data }: Chunk): Uint8Array[] {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(data.length);
  head.write(type, 4, 'latin1');
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(data, crc32(head.subarray(4))));
  return [head, data, checksum];
}

/**
 * tEXt where Latin-1 holds the text, else iTXt: what Pillow, and therefore A1111 and ComfyUI, write and read.
 * @param keyword 1 to 79 characters of printable Latin-1
 */
export function textChunk(keyword: string, text: string): Chunk {
  if (!/^[\x21-\x7e](?:[\x20-\x7e]{0,77}[\x21-\x7e])?$/.test(keyword))
    throw new KotobaError('ERR_ARGUMENT', `PNG keyword: expected 1 to 79 ASCII characters, got "${keyword}"`);
  // Latin-1 in PNG has no control characters but the line feed; NUL would end the keyword's field
  const latin1 = /^[\n\x20-\x7e\xa0-\xff]*$/.test(text);
  if (latin1) return { type: 'tEXt', data: Buffer.from(`${keyword}\0${text}`, 'latin1') };
  const head = Buffer.from(`${keyword}\0\0\0\0\0`, 'latin1'); // not compressed, no language, no translation
  return { type: 'iTXt', data: Buffer.concat([head, Buffer.from(text.replaceAll('\0', ''), 'utf8')]) };
}

/** keyword → text of every text chunk; of a keyword that comes twice the first is kept. */
export function readTexts(chunks: readonly Chunk[]): Map<string, string> {
  const texts = new Map<string, string>();
  for (const chunk of chunks) {
    const entry = readText(chunk);
    if (entry && !texts.has(entry[0])) texts.set(...entry);
  }
  return texts;
}

function readText({ type, data }: Chunk): [keyword: string, text: string] | undefined {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const end = bytes.indexOf(0);
  if (end < 1) return undefined;
  const keyword = bytes.toString('latin1', 0, end);
  if (type === 'tEXt') return [keyword, bytes.toString('latin1', end + 1)];
  if (type === 'zTXt') {
    const text = inflateText(bytes.subarray(end + 2));
    return text && [keyword, text.toString('latin1')];
  }
  if (type !== 'iTXt') return undefined;
  const languageEnd = bytes.indexOf(0, end + 3);
  const translationEnd = bytes.indexOf(0, languageEnd + 1);
  if (languageEnd < 0 || translationEnd < 0) return undefined;
  const body = bytes.subarray(translationEnd + 1);
  const text = bytes[end + 1] === 1 ? inflateText(body) : body;
  return text && [keyword, text.toString('utf8')];
}

/** undefined if it is damaged or too long: a text is never worth losing the picture for */
function inflateText(bytes: Uint8Array): Buffer | undefined {
  try {
    return inflateSync(bytes, { maxOutputLength: MAX_TEXT_BYTES });
  } catch {
    return undefined;
  }
}
