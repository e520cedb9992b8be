/** The values of tensors read straight from a file, without a device. */
import { KotobaError } from '../errors.js';
import { withFile } from './byte_source.js';
import type { DType } from './dtype.js';
import type { TensorInfo } from './model_file.js';

/** More is a wrong file, not an input. */
const MAX_BYTES = 1 << 30;

type ReadOne = (view: DataView, at: number) => number;

const READERS: Partial<Record<DType, readonly [bytes: number, read: ReadOne]>> = {
  F64: [8, (view, at) => view.getFloat64(at, true)],
  F32: [4, (view, at) => view.getFloat32(at, true)],
  F16: [2, (view, at) => halfToNumber(view.getUint16(at, true))],
  BF16: [2, (view, at) => bfloatToNumber(view.getUint16(at, true))],
  I64: [8, (view, at) => Number(view.getBigInt64(at, true))],
  I32: [4, (view, at) => view.getInt32(at, true)],
  I16: [2, (view, at) => view.getInt16(at, true)],
  I8: [1, (view, at) => view.getInt8(at)],
  U64: [8, (view, at) => Number(view.getBigUint64(at, true))],
  U32: [4, (view, at) => view.getUint32(at, true)],
  U16: [2, (view, at) => view.getUint16(at, true)],
  U8: [1, (view, at) => view.getUint8(at)],
  BOOL: [1, (view, at) => view.getUint8(at)],
};

/**
 * All elements, outermost dimension first. 64-bit integers past 2^53 lose their last bits.
 * @throws KotobaError ERR_ARGUMENT for a quantised or FP8 type, or more than 1 GiB; ERR_FILE_READ
 */
export function readNumbers(tensor: TensorInfo): Float64Array {
  const { name, dtype, path, offset, bytes } = tensor;
  const reader = READERS[dtype];
  if (!reader)
    throw new KotobaError('ERR_ARGUMENT', `${path}: expected numbers in ${name}, got the type ${dtype}`);
  if (bytes > MAX_BYTES)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${path}: expected at most ${MAX_BYTES} bytes in ${name}, got ${bytes}`,
    );
  const [size, read] = reader;
  const buffer = withFile(path, (source) => source.read(offset, bytes));
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  return Float64Array.from({ length: bytes / size }, (_, i) => read(view, i * size));
}

/** IEEE 754 binary16: 5 bits of exponent, 10 of mantissa. */
function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 0x1f) return mantissa ? NaN : sign * Infinity;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

const word = new DataView(new ArrayBuffer(4));

/** The upper half of a float32. */
function bfloatToNumber(bits: number): number {
  word.setUint32(0, bits << 16);
  return word.getFloat32(0);
}
