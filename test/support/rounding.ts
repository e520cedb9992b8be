/** Floats rounded to the 16-bit types, to the nearest with ties to even, as PyTorch and GPUs do. */

const word = new DataView(new ArrayBuffer(4));

/** The nearest BF16. */
export function roundToBf16(x: number): number {
  word.setFloat32(0, x);
  const bits = word.getUint32(0);
  if ((bits & 0x7fffffff) > 0x7f800000) return NaN;
  word.setUint32(0, (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000);
  return word.getFloat32(0);
}

/** The nearest F16. */
export function roundToF16(x: number): number {
  const v = Math.fround(x);
  const size = Math.abs(v);
  if (!(size < 65520)) return Number.isNaN(v) ? NaN : Math.sign(v) * Infinity;
  // 11 significant bits, or steps of 2^-24 below 2^-14.
  const step = 2 ** (Math.max(Math.floor(Math.log2(size || 1)), -14) - 10);
  const steps = v / step; // exact
  const low = Math.floor(steps);
  const rest = steps - low;
  const rounded = rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
  return rounded === 0 ? v * 0 : rounded * step; // keeps the sign of zero
}

export const ROUND = { F32: Math.fround, F16: roundToF16, BF16: roundToBf16 } as const;
