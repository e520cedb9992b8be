// What several tests of src/text share: where golden/tokenizers lies (never copied into the repository), seeded
// random text, and the metadata of a GGUF file read without src/formats.
import { readFileSync } from 'node:fs';
import { goldenPath } from '../support/golden.js';

/** A file of golden/tokenizers, or undefined where ../shared is absent; tests name what they skip then. */
export function tokenizerGolden(name: string): string | undefined {
  return goldenPath(`tokenizers/${name}`);
}

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

/** Deterministic numbers in [0, 1). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const FRAGMENTS = [
  '(',
  ')',
  '[',
  ']',
  ':',
  '\\',
  ' ',
  '  ',
  '\n',
  ',',
  "'s",
  'BREAK',
  ':1.2)',
  'cat',
  '猫',
  '&amp;',
  '\0',
  '▁',
  '</s>',
  '<|endoftext|>',
];

/** Any UTF-16 at all, lone surrogates included, mixed with what prompts and vocabularies treat specially. */
export function randomText(random: () => number, maxPieces: number): string {
  let text = '';
  for (let n = Math.floor(random() * maxPieces); n > 0; n--) {
    const kind = random();
    if (kind < 0.4) text += FRAGMENTS[Math.floor(random() * FRAGMENTS.length)]!;
    else if (kind < 0.7) text += String.fromCharCode(0x20 + Math.floor(random() * 0x5f));
    else text += String.fromCharCode(Math.floor(random() * 0x10000));
  }
  return text;
}

/** Key-value pairs of a GGUF v3 header. */
export function ggufMetadata(path: string): Map<string, unknown> {
  const bytes = readFileSync(path);
  let at = 24;
  const take = <T>(read: (at: number) => T, size: number): T => {
    at += size;
    return read(at - size);
  };
  const u32 = () => take((i) => bytes.readUInt32LE(i), 4);
  const u64 = () => take((i) => Number(bytes.readBigUInt64LE(i)), 8);
  const text = () => {
    const length = u64();
    return take((i) => bytes.toString('utf8', i, i + length), length);
  };
  const value = (type: number): unknown => {
    if (type === 4) return u32();
    if (type === 5) return take((i) => bytes.readInt32LE(i), 4);
    if (type === 6) return take((i) => bytes.readFloatLE(i), 4);
    if (type === 7) return take((i) => bytes[i] !== 0, 1);
    if (type === 8) return text();
    if (type !== 9) throw new Error(`metadata type ${type} is not expected here`);
    const element = u32();
    return Array.from({ length: u64() }, () => value(element));
  };
  const entries = Number(bytes.readBigUInt64LE(16));
  return new Map(Array.from({ length: entries }, () => [text(), value(u32())] as const));
}
