// "schÃ¶n" → "schön": UTF-8 bytes that were once read as Windows-1252 or Latin-1, by far the commonest garbling.
// A deliberately careful reading: a line is touched only if it holds a sequence that hardly ever stands in real
// text, so that “CAFÉ”, Spaß“ and Ångström™ stay as they are. ftfy also undoes other encodings (MacRoman,
// cp437, Windows-125x) and lost bytes with a much larger heuristic; those are left alone here.

import { WINDOWS_1252_BYTES } from './windows_1252.js';

/** Continuation bytes that are everyday punctuation after a letter in Windows-1252: quotes, dashes, ellipsis, bullet. */
const EVERYDAY = new Set([
  0x82, 0x84, 0x85, 0x8b, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x9b, 0xab, 0xbb,
]);

const NON_ASCII = /[^\x00-\x7f]/;

interface Sequence {
  /** UTF-16 length in the garbled text; every garbled character is one unit. */
  readonly length: number;
  readonly codePoint: number;
  readonly bytes: readonly number[];
}

/** Repairs one level of garbling in one line; call again until nothing changes. */
export function repairMojibake(line: string): string {
  if (!NON_ASCII.test(line)) return line;
  const found: { at: number; sequence: Sequence }[] = [];
  let certain = false;
  let previousEnd = -1;
  for (let at = 0; at < line.length;) {
    const sequence = sequenceAt(line, at);
    if (!sequence) {
      at++;
      continue;
    }
    certain ||= isCertain(sequence, line[at - 1]) || (previousEnd === at && hasOddContinuation(sequence));
    found.push({ at, sequence });
    at += sequence.length;
    previousEnd = at;
  }
  return certain ? replaceSequences(line, found) : line;
}

function replaceSequences(line: string, found: readonly { at: number; sequence: Sequence }[]): string {
  let out = '';
  let copied = 0;
  for (const { at, sequence } of found) {
    out += line.slice(copied, at) + String.fromCodePoint(sequence.codePoint);
    copied = at + sequence.length;
  }
  return out + line.slice(copied);
}

/** A strictly valid UTF-8 sequence of two to four bytes starting at `at`. */
function sequenceAt(line: string, at: number): Sequence | null {
  const lead = WINDOWS_1252_BYTES.get(line[at]!);
  if (lead === undefined || lead < 0xc2 || lead > 0xf4) return null;
  const length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  const bytes = [lead];
  let codePoint = lead & (0xff >> (length + 1));
  for (let i = 1; i < length; i++) {
    const byte = WINDOWS_1252_BYTES.get(line[at + i] ?? '');
    if (byte === undefined || byte > 0xbf) return null;
    bytes.push(byte);
    codePoint = codePoint * 64 + (byte & 0x3f);
  }
  const smallest = length === 2 ? 0x80 : length === 3 ? 0x800 : 0x10000;
  const surrogate = codePoint >= 0xd800 && codePoint <= 0xdfff;
  return codePoint < smallest || codePoint > 0x10ffff || surrogate ? null : { length, codePoint, bytes };
}

/** Would this sequence be strange in real text all by itself? */
function isCertain({ bytes }: Sequence, before: string | undefined): boolean {
  const [lead, second] = bytes as [number, number];
  const odd = bytes.slice(1).every((byte) => !EVERYDAY.has(byte));
  if (bytes.length === 4) return odd || second === 0x9f; // ðŸ…: emoji
  if (bytes.length === 3) return odd || (lead === 0xe2 && second === 0x80); // â€…: quotes and dashes
  const accented = lead === 0xc2 || lead === 0xc3; // Â…, Ã…: Latin-1's own letters and signs
  return odd && (accented || (lead < 0xe0 && before !== undefined && /[a-z]/.test(before)));
}

function hasOddContinuation({ bytes }: Sequence): boolean {
  return bytes.slice(1).some((byte) => !EVERYDAY.has(byte));
}
