/**
 * Stored random weights, made fast: one pool of random blocks per type and distribution, of which every tensor
 * takes runs from seeded random places. Quantised blocks are made directly, from random codes with scales that
 * give the decoded values the standard deviation asked for.
 */
import type { Distribution, StoredType } from './model_layout.js';

/** Weights and bytes of one stored block. */
export const blockSizes: Record<StoredType, { weights: number; bytes: number }> = {
  F32: { weights: 1, bytes: 4 },
  F16: { weights: 1, bytes: 2 },
  Q8_0: { weights: 32, bytes: 34 },
  Q4_0: { weights: 32, bytes: 18 },
  Q4_K: { weights: 256, bytes: 144 },
  Q6_K: { weights: 256, bytes: 210 },
};

/** Weights in a pool, about: large enough that a disk is kept busy, small enough for the cache. */
const poolWeights = 1 << 20;

/** xoshiro128** seeded through splitmix32. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #d: number;
  #spare: number | undefined;

  constructor(seed: number) {
    let state = seed | 0;
    const next = () => {
      state = (state + 0x9e3779b9) | 0;
      let z = state ^ (state >>> 16);
      z = Math.imul(z, 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      return z ^ (z >>> 15);
    };
    [this.#a, this.#b, this.#c, this.#d] = [next(), next(), next(), next()];
  }

  /** A whole number in [0, 2^32). */
  bits(): number {
    const product = Math.imul(this.#b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  /** In [0, 1). */
  uniform(): number {
    return this.bits() / 2 ** 32;
  }

  /** A whole number in [0, end). */
  below(end: number): number {
    return Math.floor(this.uniform() * end);
  }

  /** N(0, 1), by Box and Muller. */
  normal(): number {
    if (this.#spare !== undefined) {
      const value = this.#spare;
      this.#spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.#spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

/** FNV-1a, so that a tensor's bytes depend on its name and the file's seed only. */
export function hashName(name: string, seed: number): number {
  let hash = (0x811c9dc5 ^ seed) | 0;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

const floatView = new Float32Array(1);
const bitsView = new Uint32Array(floatView.buffer);

/** F16 bits of a finite float, to nearest, ties to even; values past the largest become infinity. */
export function f16Bits(value: number): number {
  floatView[0] = value;
  const bits = bitsView[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
    return sign | ((rounded - 0x38000000) >>> 13);
  }
  return sign | roundHalfToEven(Math.abs(value) * 2 ** 24);
}

function roundHalfToEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

/** @returns a pool of whole blocks of `type` whose decoded values have the given distribution. */
export function makePool(type: StoredType, values: Distribution, random: Random): Buffer {
  const { weights, bytes } = blockSizes[type];
  const blocks = Math.floor(poolWeights / weights);
  const pool = Buffer.alloc(blocks * bytes);
  if (type !== 'F32' && type !== 'F16' && values.mean !== 0)
    throw new RangeError(`makePool: ${type} is made with mean 0, not ${values.mean}`);
  const write = blockWriters[type];
  for (let block = 0; block < blocks; block++) write(pool, block * bytes, values, random);
  return pool;
}

type BlockWriter = (out: Buffer, at: number, values: Distribution, random: Random) => void;

const blockWriters: Record<StoredType, BlockWriter> = {
  F32: (out, at, { mean, std }, random) => void out.writeFloatLE(mean + std * random.normal(), at),
  F16: (out, at, { mean, std }, random) => void out.writeUInt16LE(f16Bits(mean + std * random.normal()), at),
  Q8_0: writeQ8_0,
  Q4_0: writeQ4_0,
  Q4_K: writeQ4_K,
  Q6_K: writeQ6_K,
};

/** Spread of the scales from block to block, with mean square 1. */
function blockScale(random: Random): number {
  return (0.75 + 0.5 * random.uniform()) / Math.sqrt(1 + 1 / 48);
}

const clamp = (value: number, low: number, high: number) => Math.min(high, Math.max(low, Math.round(value)));

/** Root mean square of a normal of deviation `sigma` rounded to whole numbers and clamped. */
function codeRms(sigma: number, low: number, high: number): number {
  let total = 0;
  let squares = 0;
  for (let x = -6 * sigma; x <= 6 * sigma; x += sigma / 64) {
    const density = Math.exp((-x * x) / (2 * sigma * sigma));
    total += density;
    squares += density * clamp(x, low, high) ** 2;
  }
  return Math.sqrt(squares / total);
}

const sigmaQ8 = 55;
const rmsQ8 = codeRms(sigmaQ8, -127, 127);

/** Q8_0: f16 d, 32 int8 codes; w = d * q. */
function writeQ8_0(out: Buffer, at: number, { std }: Distribution, random: Random): void {
  out.writeUInt16LE(f16Bits((std / rmsQ8) * blockScale(random)), at);
  for (let i = 0; i < 32; i++) out.writeInt8(clamp(sigmaQ8 * random.normal(), -127, 127), at + 2 + i);
}

const sigmaQ4 = 3.2;
const rmsQ4 = codeRms(sigmaQ4, -7, 7);

/** Q4_0: f16 d, 32 4-bit codes; w = d * (q - 8). The code -8 is left out to keep the mean at 0. */
function writeQ4_0(out: Buffer, at: number, { std }: Distribution, random: Random): void {
  out.writeUInt16LE(f16Bits((std / rmsQ4) * blockScale(random)), at);
  for (let i = 0; i < 16; i++) {
    const low = 8 + clamp(sigmaQ4 * random.normal(), -7, 7);
    const high = 8 + clamp(sigmaQ4 * random.normal(), -7, 7);
    out[at + 2 + i] = low | (high << 4);
  }
}

/** Sub-block scales are drawn from 32..63. */
const rmsScaleQ4K = Math.sqrt(meanSquare(32, 63));
/** Uniform codes 0..15 about their mean of 7.5. */
const rmsCodeQ4K = Math.sqrt((16 ** 2 - 1) / 12);

function meanSquare(low: number, high: number): number {
  let sum = 0;
  for (let i = low; i <= high; i++) sum += i * i;
  return sum / (high - low + 1);
}

/**
 * Q4_K: f16 d and dmin, 8 scales and 8 mins of 6 bits, 256 4-bit codes; w = d * scale * q - dmin * min.
 * With dmin = 7.5 d and min about scale, the mean is 0.
 */
function writeQ4_K(out: Buffer, at: number, { std }: Distribution, random: Random): void {
  const d = (std / (rmsScaleQ4K * rmsCodeQ4K)) * blockScale(random);
  out.writeUInt16LE(f16Bits(d), at);
  out.writeUInt16LE(f16Bits(7.5 * d), at + 2);
  const scales = Array.from({ length: 8 }, () => 32 + random.below(32));
  const mins = scales.map((scale) => Math.min(63, scale - 1 + random.below(3)));
  for (let i = 0; i < 4; i++) {
    const [scaleHigh, minHigh] = [scales[i + 4]!, mins[i + 4]!];
    out[at + 4 + i] = scales[i]! | ((scaleHigh >> 4) << 6);
    out[at + 8 + i] = mins[i]! | ((minHigh >> 4) << 6);
    out[at + 12 + i] = (scaleHigh & 15) | ((minHigh & 15) << 4);
  }
  for (let i = 0; i < 128; i++) out[at + 16 + i] = random.bits() >>> 24;
}

const rmsScaleQ6K = Math.sqrt(meanSquare(32, 127));
/** Uniform codes -32..31. */
const rmsCodeQ6K = Math.sqrt((64 ** 2 - 1) / 12 + 0.25);

/** Q6_K: 256 6-bit codes in low nibbles and high pairs, 16 int8 scales, f16 d; w = d * scale * (q - 32). */
function writeQ6_K(out: Buffer, at: number, { std }: Distribution, random: Random): void {
  for (let i = 0; i < 192; i++) out[at + i] = random.bits() >>> 24;
  for (let i = 0; i < 16; i++) {
    const sign = random.bits() & 1 ? 1 : -1;
    out.writeInt8(sign * (32 + random.below(96)), at + 192 + i);
  }
  const d = (std / (rmsScaleQ6K * rmsCodeQ6K)) * blockScale(random);
  out.writeUInt16LE(f16Bits(d), at + 208);
}
