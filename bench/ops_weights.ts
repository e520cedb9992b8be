/**
 * Stored random weights of every type: normal values where a simple rule encodes them, random codes with fixed
 * scales for the rest. Like random_weights.ts, everything is cut from one pool per type.
 */
import { DTYPES, type DType } from '../src/formats/dtype.js';
import { blockSizes, f16Bits, makePool, Random } from './random_weights.js';
import type { StoredType } from './model_layout.js';

const poolWeights = 1 << 20;
const values = { mean: 0, std: 1 };
/** Standard deviation of the coded types' scales is about this. */
const scale = 2 ** -5;

const f16Scale = f16Bits(scale);
/** Where the F16 scales lie in a block, in bytes. The rest of a block may be any bytes. */
const f16ScaleOffsets: Partial<Record<DType, readonly number[]>> = {
  Q4_1: [0, 2],
  Q5_0: [0],
  Q5_1: [0, 2],
  Q8_1: [0, 2],
  Q2_K: [80, 82],
  Q3_K: [108],
  Q5_K: [0, 2],
  IQ2_XXS: [0],
  IQ2_XS: [0],
  IQ3_XXS: [0],
  IQ1_S: [0],
  IQ4_NL: [0],
  IQ3_S: [0],
  IQ2_S: [0],
  IQ4_XS: [0],
  TQ1_0: [52],
  TQ2_0: [64],
  Q1_0: [0],
  Q2_0: [0],
};

type Finish = (block: Buffer, random: Random) => void;

/** Types whose block needs more than F16 scales in place. */
const finishes: Partial<Record<DType, Finish>> = {
  BF16: (block, random) => {
    const value = Buffer.alloc(4);
    value.writeFloatLE(random.normal());
    block.writeUInt16LE(value.readUInt16LE(2));
  },
  F64: (block, random) => void block.writeDoubleLE(random.normal()),
  F8_E4M3: (block, random) => void block.writeUInt8(e4m3Bits(random.normal())),
  // E5M2 is the upper half of an F16.
  F8_E5M2: (block, random) => void block.writeUInt8(f16Bits(random.normal()) >>> 8),
  Q8_K: (block) => void block.writeFloatLE(scale),
  // The nibbles of the F16 scale are the top nibbles of four words.
  IQ1_M: (block) => {
    for (let i = 0; i < 4; i++) {
      const at = 48 + 2 * i + 1;
      block[at] = (block[at]! & 15) | (((f16Scale >>> (4 * i)) & 15) << 4);
    }
  },
  MXFP4: (block, random) => void block.writeUInt8(120 + random.below(8)),
  NVFP4: (block, random) => {
    for (let i = 0; i < 4; i++) block[i] = 0x30 + random.below(16);
  },
};

/** E4M3 of a value below 448 in magnitude, rounded to nearest: 4 exponent bits biased by 7, 3 mantissa bits. */
function e4m3Bits(value: number): number {
  const magnitude = Math.abs(value);
  const exponent = Math.max(-6, Math.floor(Math.log2(magnitude || 1)));
  // Steps of 1/8 within a binade; reaching 16 eighths carries into the exponent by itself.
  const eighths = Math.round(magnitude * 2 ** (3 - exponent));
  const bits = exponent === -6 ? eighths : ((exponent + 7) << 3) + eighths - 8;
  return bits | (value < 0 ? 0x80 : 0);
}

function randomPool(type: DType, random: Random): Buffer {
  if (type in blockSizes) return makePool(type as StoredType, values, random);
  const [weights, bytes] = DTYPES[type];
  const offsets = f16ScaleOffsets[type];
  const finish = finishes[type];
  if (offsets === undefined && finish === undefined)
    throw new RangeError(`ops bench: ${type} is no weight type`);
  const pool = Buffer.alloc(Math.floor(poolWeights / weights) * bytes);
  for (let i = 0; i < pool.length; i++) pool[i] = random.bits() >>> 24;
  for (let at = 0; at < pool.length; at += bytes) {
    for (const offset of offsets ?? []) pool.writeUInt16LE(f16Scale, at + offset);
    finish?.(pool.subarray(at, at + bytes), random);
  }
  return pool;
}

export class RandomWeights {
  readonly #random = new Random(1);
  readonly #pools = new Map<DType, Buffer>();

  /** @param count  weights, a whole number of blocks; @returns their bytes in memory of their own */
  stored(type: DType, count: number): Uint8Array<ArrayBuffer> {
    const pool = this.#pool(type);
    const [weights, blockBytes] = DTYPES[type];
    const out = new Uint8Array((count / weights) * blockBytes);
    for (let done = 0; done < out.length;) {
      const start = this.#random.below(pool.length / blockBytes) * blockBytes;
      const run = pool.subarray(start, Math.min(pool.length, start + out.length - done));
      out.set(run, done);
      done += run.length;
    }
    return out;
  }

  normal(count: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.stored('F32', count).buffer);
  }

  /** Bytes 0 to `end` - 1. */
  bytes(count: number, end: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length: count }, () => this.#random.below(end));
  }

  ids(count: number, end: number): Int32Array<ArrayBuffer> {
    return Int32Array.from({ length: count }, () => this.#random.below(end));
  }

  #pool(type: DType): Buffer {
    let pool = this.#pools.get(type);
    if (pool === undefined) this.#pools.set(type, (pool = randomPool(type, this.#random)));
    return pool;
  }
}
