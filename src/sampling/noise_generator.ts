/** What a noise generator is, and what a seed may be. */
import { KotobaError } from '../errors.js';

/** Successive calls continue one stream. */
export interface NoiseGenerator {
  /** `count` values of N(0, 1). */
  normal(count: number): Float32Array;
}

/** Seeds are whole numbers from 0 to this. */
export const MAX_SEED = 2n ** 64n - 1n;

/** A seed as 64 bits. */
export function checkSeed(seed: number | bigint): bigint {
  if (typeof seed === 'number' && !Number.isSafeInteger(seed))
    throw new KotobaError(
      'ERR_ARGUMENT',
      `seed is ${seed}: expected a whole number; above 2^53 − 1 as a bigint`,
    );
  const bits = BigInt(seed);
  if (bits < 0n || bits > MAX_SEED)
    throw new KotobaError('ERR_ARGUMENT', `seed is ${seed}: expected 0 to 2^64 − 1`);
  return bits;
}
