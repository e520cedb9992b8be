/**
 * F32 → the types that GGUF files are written in, rounded as ggml's reference does, so that blocks are the same bit for
 * bit. https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c
 */
import { KotobaError } from '../errors.js';
import { blockBytes, blockWeights } from './dtype.js';

export const QUANTIZED_TYPES = ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0'] as const;
export type QuantizedType = (typeof QUANTIZED_TYPES)[number];

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

const bitsOf = (value: number): number => {
  f32[0] = value;
  return u32[0]!;
};

/** IEEE 754 binary16, to nearest, ties to even. */
export function toHalf(value: number): number {
  const bits = bitsOf(value);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and more
  if (magnitude < 0x38800000) {
    // below 2^-14: a multiple of 2^-24; adding 0.5 leaves it, rounded, in the last bits of a float32
    f32[0] = Math.fround(Math.abs(value)) + 0.5;
    return sign | (u32[0]! - 0x3f000000);
  }
  const odd = (magnitude >>> 13) & 1;
  return sign | ((magnitude - 0x38000000 + 0xfff + odd) >>> 13);
}

/** The upper half of a float32, to nearest, ties to even. */
export function toBfloat(value: number): number {
  const bits = bitsOf(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** C's roundf: halves away from zero. */
const roundAway = (value: number): number => (value < 0 ? -Math.round(-value) : Math.round(value));

/** w = d · q, q in −127 … 127; d is a half. */
function quantizeQ8_0(out: DataView, at: number, values: Float32Array, from: number): void {
  let largest = 0;
  for (let i = 0; i < 32; i++) largest = Math.max(largest, Math.abs(values[from + i]!));
  const d = Math.fround(largest / 127);
  const inverse = d === 0 ? 0 : Math.fround(1 / d);
  out.setUint16(at, toHalf(d), true);
  for (let i = 0; i < 32; i++) out.setInt8(at + 2 + i, roundAway(Math.fround(values[from + i]! * inverse)));
}

/** w = d · (q − 8), q in 0 … 15: 16 low nibbles, then 16 high ones; the value farthest from 0 becomes −8 · d. */
function quantizeQ4_0(out: DataView, at: number, values: Float32Array, from: number): void {
  let farthest = 0;
  for (let i = 0; i < 32; i++)
    if (Math.abs(values[from + i]!) > Math.abs(farthest)) farthest = values[from + i]!;
  const d = Math.fround(farthest / -8);
  const inverse = d === 0 ? 0 : Math.fround(1 / d);
  const code = (value: number): number =>
    Math.min(15, Math.trunc(Math.fround(Math.fround(value * inverse) + 8.5)));
  out.setUint16(at, toHalf(d), true);
  for (let i = 0; i < 16; i++)
    out.setUint8(at + 2 + i, code(values[from + i]!) | (code(values[from + 16 + i]!) << 4));
}

/**
 * @param values rows of a matrix, whole blocks; finite where the type is quantised
 * @throws KotobaError ERR_ARGUMENT
 */
export function quantize(values: Float32Array, type: QuantizedType): Uint8Array {
  const weights = blockWeights(type);
  if (values.length % weights !== 0)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${type}: expected whole blocks of ${weights}, got ${values.length} values`,
    );
  if (weights > 1 && !values.every(Number.isFinite))
    throw new KotobaError('ERR_ARGUMENT', `${type}: expected finite values, got NaN or infinity`);
  const bytes = new Uint8Array((values.length / weights) * blockBytes(type));
  const out = new DataView(bytes.buffer);
  const stride = blockBytes(type);
  for (let i = 0, at = 0; i < values.length; i += weights, at += stride) {
    if (type === 'F32') out.setFloat32(at, values[i]!, true);
    else if (type === 'F16') out.setUint16(at, toHalf(values[i]!), true);
    else if (type === 'BF16') out.setUint16(at, toBfloat(values[i]!), true);
    else if (type === 'Q8_0') quantizeQ8_0(out, at, values, i);
    else quantizeQ4_0(out, at, values, i);
  }
  return bytes;
}
