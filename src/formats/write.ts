/** Writing safetensors and .npy, through a temporary name, so that no half file is ever left. */
import { writeAtomically, type CheckFile } from '../atomic_file.js';
import { KotobaError } from '../errors.js';
import { tensorBytes, type DType } from './dtype.js';

/** A tensor whose bytes are asked for when their turn comes. */
export interface StreamedTensor {
  readonly name: string;
  readonly dtype: DType;
  /** torch order: outermost dimension first */
  readonly shape: readonly number[];
  readonly data: () => Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
}

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
  const streamed = [...tensors].map(([name, array]): StreamedTensor => {
    const { buffer, byteOffset, byteLength } = array.data;
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    return { name, dtype: dtypeOf(array), shape: array.shape, data: () => [bytes] };
  });
  await streamSafetensors(path, streamed, metadata);
}

/**
 * @param tensors in the order of the file
 * @param check looks at the file before it gets its name
 * @throws KotobaError ERR_FILE_WRITE; ERR_ARGUMENT for two tensors of one name, or bytes that are not those of the
 *   shape. The file is then as it was before.
 */
export async function streamSafetensors(
  path: string,
  tensors: readonly StreamedTensor[],
  metadata: Readonly<Record<string, string>> = {},
  check?: CheckFile,
): Promise<void> {
  const fail = (what: string): never => {
    throw new KotobaError('ERR_ARGUMENT', `${path}: cannot be written as safetensors: ${what}`);
  };
  const header: [string, unknown][] = Object.keys(metadata).length ? [['__metadata__', metadata]] : [];
  const sizes = tensors.map(
    ({ name, dtype, shape }) =>
      tensorBytes(dtype, shape) ?? fail(`${name}: ${dtype} cannot store [${shape.join(', ')}]`),
  );
  let offset = 0;
  for (const [i, { name, dtype, shape }] of tensors.entries()) {
    header.push([name, { dtype, shape, data_offsets: [offset, offset + sizes[i]!] }]);
    offset += sizes[i]!;
  }
  if (new Set(header.map(([name]) => name)).size !== header.length) fail('two tensors have one name');
  // fromEntries and not assignment: a tensor may be called __proto__
  const json = JSON.stringify(Object.fromEntries(header));
  const padded = Buffer.from(json.padEnd(json.length + ((8 - (Buffer.byteLength(json) % 8)) % 8)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.byteLength));
  async function* parts(): AsyncGenerator<Uint8Array> {
    yield length;
    yield padded;
    for (const [i, { name, data }] of tensors.entries()) {
      let written = 0;
      for await (const part of data()) {
        written += part.byteLength;
        yield part;
      }
      if (written !== sizes[i]) fail(`${name}: expected ${sizes[i]} bytes, got ${written}`);
    }
  }
  await writeAtomically(path, parts(), check);
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
