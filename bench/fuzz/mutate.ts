/**
 * Damages a file the way downloads, bad writers and attackers do: bits, bytes, lengths, counts, JSON numbers, cuts.
 * Seeded, so that every finding can be repeated: mutate(bytes, seededRandom(seed)).
 */

/** Uniform in [0, 1). mulberry32: small, and the same everywhere. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export type Random = () => number;
type Mutation = (bytes: Buffer, random: Random) => Buffer;

/** A whole number from 0 to n - 1. */
export const below = (random: Random, n: number): number => Math.floor(random() * n);
export const pick = <T>(list: readonly T[], random: Random): T => list[below(random, list.length)]!;

/** Sizes at which readers go wrong: around zero, sign bits, 2^32, 2^53, overflow of a product. */
const kIntegers: readonly bigint[] = [
  0n,
  1n,
  2n,
  7n,
  8n,
  127n,
  128n,
  255n,
  65_535n,
  65_536n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 62n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 8n,
  2n ** 64n - 1n,
];

const kTokens = [
  '-1',
  '1e300',
  '0.5',
  '18446744073709551615',
  '9007199254740993',
  'null',
  '[]',
  '{}',
  '"',
  '\\u0000',
  '__proto__',
];

const flipBit: Mutation = (bytes, random) => {
  const at = below(random, bytes.length);
  bytes[at] = bytes[at]! ^ (1 << below(random, 8));
  return bytes;
};

const setByte: Mutation = (bytes, random) => {
  bytes[below(random, bytes.length)] = below(random, 256);
  return bytes;
};

const setInteger: Mutation = (bytes, random) => {
  const width = [1, 2, 4, 8][below(random, 4)]!;
  if (bytes.length < width) return bytes;
  // Most fields of GGUF are aligned to nothing, but the first ones, which matter most, are to 4.
  const at =
    random() < 0.5
      ? below(random, bytes.length - width + 1)
      : 4 * below(random, Math.min(8, bytes.length / 4));
  const value = Buffer.alloc(8);
  value.writeBigUInt64LE(kIntegers[below(random, kIntegers.length)]!);
  value.copy(bytes, at, 0, width);
  return bytes;
};

const nudgeInteger: Mutation = (bytes, random) => {
  if (bytes.length < 8) return bytes;
  const at = below(random, bytes.length - 7);
  const delta = BigInt(below(random, 17) - 8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, bytes.readBigUInt64LE(at) + delta), at);
  return bytes;
};

/** Swaps a number or word of the JSON text for another: the same length is not kept, as an editor would not. */
const replaceToken: Mutation = (bytes, random) => {
  const text = bytes.toString('latin1');
  const found = [...text.matchAll(/\d+|"\w*"|[[\]{}:,]/g)];
  if (found.length === 0) return bytes;
  const match = found[below(random, found.length)]!;
  const digits = String(kIntegers[below(random, kIntegers.length)]);
  const token = random() < 0.5 ? digits : kTokens[below(random, kTokens.length)]!;
  return Buffer.from(
    text.slice(0, match.index) + token + text.slice(match.index + match[0].length),
    'latin1',
  );
};

const cut: Mutation = (bytes, random) => bytes.subarray(0, below(random, bytes.length));

const removeRange: Mutation = (bytes, random) => {
  const at = below(random, bytes.length);
  const length = 1 + below(random, Math.min(64, bytes.length - at));
  return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
};

const repeatRange: Mutation = (bytes, random) => {
  const at = below(random, bytes.length);
  const range = bytes.subarray(at, at + 1 + below(random, 64));
  const to = below(random, bytes.length);
  return Buffer.concat([bytes.subarray(0, to), range, bytes.subarray(to)]);
};

const overwriteRange: Mutation = (bytes, random) => {
  const at = below(random, bytes.length);
  bytes.copy(bytes, below(random, bytes.length), at, at + 1 + below(random, 64));
  return bytes;
};

const extend: Mutation = (bytes, random) =>
  Buffer.concat([
    bytes,
    Buffer.from(Array.from({ length: 1 + below(random, 32) }, () => below(random, 256))),
  ]);

const kMutations: readonly Mutation[] = [
  flipBit,
  setByte,
  setInteger,
  setInteger,
  nudgeInteger,
  replaceToken,
  replaceToken,
  cut,
  removeRange,
  repeatRange,
  overwriteRange,
  extend,
];

/** What leaves every other byte where it was. */
const kInPlace: readonly Mutation[] = [flipBit, setByte, setInteger, nudgeInteger, overwriteRange];

/** A damaged copy: one to four mutations. */
export const mutate = (bytes: Uint8Array, random: Random): Buffer => apply(kMutations, bytes, random);

/** A damaged copy of the same length. */
export const mutateInPlace = (bytes: Uint8Array, random: Random): Buffer => apply(kInPlace, bytes, random);

function apply(mutations: readonly Mutation[], bytes: Uint8Array, random: Random): Buffer {
  let damaged: Buffer = Buffer.from(bytes);
  const rounds = 1 + below(random, 4);
  for (let i = 0; i < rounds && damaged.length > 0; i++) damaged = pick(mutations, random)(damaged, random);
  return damaged;
}
