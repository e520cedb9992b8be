/**
 * CUDA's generator as PyTorch uses it for `torch.randn` on a GPU (and A1111 on request everywhere): Philox 4×32-10
 * (Salmon et al., SC11) with the seed as key and the value's index in the counter, and Box–Muller on the first two
 * words. Every call takes the next offset, so calls never repeat values.
 */
import { checkSeed, type NoiseGenerator } from './noise_generator.js';

const kRounds = 10;
const kMultipliers = [0xd2511f53, 0xcd9e8d57] as const;
const kWeyl = [0x9e3779b9, 0xbb67ae85] as const;

export class PhiloxNoise implements NoiseGenerator {
  readonly #key: readonly [low: number, high: number];
  #offset = 0;

  constructor(seed: number | bigint) {
    const bits = checkSeed(seed);
    this.#key = [Number(bits & 0xffffffffn), Number(bits >> 32n)];
  }

  normal(count: number): Float32Array {
    const out = new Float32Array(count);
    for (let i = 0; i < count; i++) out[i] = gaussian(philox(this.#offset, i, this.#key));
    this.#offset++;
    return out;
  }
}

/** The first two words of the block at counter [offset, 0, index, 0]. */
function philox(
  offset: number,
  index: number,
  [key0, key1]: readonly [number, number],
): readonly [number, number] {
  let [c0, c1, c2, c3, k0, k1] = [offset, 0, index, 0, key0, key1];
  for (let round = 0; round < kRounds; round++) {
    const high0 = multiplyHigh(kMultipliers[0], c0);
    const high1 = multiplyHigh(kMultipliers[1], c2);
    const low0 = Math.imul(kMultipliers[0], c0);
    const low1 = Math.imul(kMultipliers[1], c2);
    [c0, c1, c2, c3] = [high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0];
    k0 = (k0 + kWeyl[0]) | 0;
    k1 = (k1 + kWeyl[1]) | 0;
  }
  return [c0 >>> 0, c1 >>> 0];
}

/** The upper 32 of the 64 bits of a · b, both taken as unsigned. */
function multiplyHigh(a: number, b: number): number {
  const [aLow, aHigh, bLow, bHigh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle % 0x10000);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) | 0;
}

/** Box–Muller on uniforms in the middle of their 2^-32 cells, so that the logarithm is finite. */
function gaussian([radiusBits, angleBits]: readonly [number, number]): number {
  const radius = Math.sqrt(-2 * Math.log((radiusBits + 0.5) * 2 ** -32));
  return radius * Math.sin(2 * Math.PI * (angleBits + 0.5) * 2 ** -32);
}
