/** Writing small results: safetensors and .npy, through a temporary name, so that no half file is ever left. */
import { writeAtomically } from '../atomic_file.js';
import { KotobaError } from '../errors.js';
import type { DType } from './dtype.js';

export interface ArrayToWrite {
  /** F32 or I32 values; bytes of any dtype where `dtype` names it */
  readonly data: Float32Array | Int32Array | Uint8Array;
  readonly dtype?: DType;
  readonly shape: readonly number[];
}

const dtypeOf = ({ data, dtype }: ArrayToWrite): DType =>
  dtype ?? (data instanceof Float32Array ? 'F32' : data instanceof Int32Array ? 'I32' : 'U8');

/**
 * @param tensors name → values
 * @param metadata the header's `__metadata__`
 * @throws KotobaError ERR_FILE_WRITE; the file is then as it was before
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, ArrayToWrite>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const header: [string, unknown][] = Object.keys(metadata).length ? [['__metadata__', metadata]] : [];
  let offset = 0;
  for (const [name, array] of tensors) {
    const end = offset + array.data.byteLength;
    header.push([name, { dtype: dtypeOf(array), shape: array.shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  // fromEntries and not assignment: a tensor may be called __proto__
  const json = JSON.stringify(Object.fromEntries(header));
  const padded = Buffer.from(json.padEnd(json.length + ((8 - (Buffer.byteLength(json) % 8)) % 8)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.byteLength));
  await writeAtomically(path, [length, padded, ...[...tensors.values()].map(({ data }) => data)]);
}

/** NumPy's format 1.0. @throws KotobaError ERR_FILE_WRITE */
export async function writeNpy(path: string, array: ArrayToWrite): Promise<void> {
  const { data, shape } = array;
  const descr = { F32: '<f4', I32: '<i4' }[dtypeOf(array) as string];
  if (!descr)
    throw new KotobaError('ERR_ARGUMENT', `${path}: .npy is written from F32 and I32, got ${dtypeOf(array)}`);
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
  const dict = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const text = dict.padEnd(Math.ceil((dict.length + 11) / 64) * 64 - 11) + '\n';
  const head = Buffer.from(`\x93NUMPY\x01\x00\x00\x00${text}`, 'latin1');
  head.writeUInt16LE(text.length, 8);
  await writeAtomically(path, [head, data]);
}
