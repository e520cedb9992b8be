/**
 * Writes GGUF v3: magic, version, counts, metadata, tensor table, aligned data. Tensors are streamed, and the file
 * appears under its name only when it is whole. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { KotobaError } from '../errors.js';
import { tensorBytes } from './dtype.js';
import { kGgufMagic } from './gguf.js';
import { GGML_TYPES, ValueType } from './gguf_types.js';
import { writeAtomically, type CheckFile } from '../atomic_file.js';
import type { StreamedTensor } from './write.js';

type Integer = 'U8' | 'I8' | 'U16' | 'I16' | 'U32' | 'I32' | 'U64' | 'I64';
type ScalarType = Integer | 'F32' | 'F64' | 'BOOL' | 'STRING';

/** A value with its GGUF type: ['U32', 7], ['ARRAY', 'STRING', ['a', 'b']]. */
export type GgufValue =
  | readonly [type: Integer, value: number | bigint]
  | readonly [type: 'F32' | 'F64', value: number]
  | readonly [type: 'BOOL', value: boolean]
  | readonly [type: 'STRING', value: string]
  | readonly [type: 'ARRAY', of: Integer, values: ArrayLike<number> | readonly bigint[]]
  | readonly [type: 'ARRAY', of: 'F32' | 'F64', values: ArrayLike<number>]
  | readonly [type: 'ARRAY', of: 'BOOL', values: readonly boolean[]]
  | readonly [type: 'ARRAY', of: 'STRING', values: readonly string[]]
  | readonly [type: 'ARRAY', of: 'ARRAY', values: readonly GgufValue[]];

const kVersion = 3;
const kAlignment = 32;
/** ggml's most dimensions of a tensor */
const kMaxDimensions = 4;

/**
 * @param metadata `general.alignment` there sets the alignment of tensors, bytes
 * @param check looks at the file before it gets its name
 * @throws KotobaError ERR_FILE_WRITE; ERR_ARGUMENT for what a GGUF cannot hold. The file is then as it was before.
 */
export async function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufValue>,
  tensors: readonly StreamedTensor[],
  check?: CheckFile,
): Promise<void> {
  const alignment = alignmentOf(path, metadata);
  const header: Buffer[] = [Buffer.from(kGgufMagic), u32(kVersion), u64(tensors.length), u64(metadata.size)];
  for (const [key, value] of metadata)
    header.push(text(key), u32(ValueType[value[0]]), encode(path, key, value));
  const sizes = tensors.map((tensor) => checkedBytes(path, tensor));
  if (new Set(tensors.map(({ name }) => name)).size !== tensors.length)
    fail(path, 'two tensors have one name');
  let offset = 0;
  for (const [i, { name, dtype, shape }] of tensors.entries()) {
    const dimensions = [...shape].reverse().map(u64);
    header.push(text(name), u32(shape.length), ...dimensions, u32(GGML_TYPES.indexOf(dtype)), u64(offset));
    offset += padded(sizes[i]!, alignment);
  }
  await writeAtomically(path, allParts(path, Buffer.concat(header), tensors, sizes, alignment), check);
}

function alignmentOf(path: string, metadata: ReadonlyMap<string, GgufValue>): number {
  const value = metadata.get('general.alignment');
  if (value === undefined) return kAlignment;
  const alignment = value[0] === 'U32' ? Number(value[1]) : NaN;
  const isValid = alignment >= 8 && alignment <= 1 << 20 && Number.isInteger(Math.log2(alignment));
  return isValid
    ? alignment
    : fail(path, `general.alignment must be a U32 power of two, got ${String(value[1])}`);
}

function checkedBytes(path: string, { name, dtype, shape }: StreamedTensor): number {
  const bytes = tensorBytes(dtype, shape);
  if (!GGML_TYPES.includes(dtype)) return fail(path, `${name}: GGUF has no type ${dtype}`);
  if (shape.length === 0 || shape.length > kMaxDimensions)
    return fail(path, `${name}: expected 1 to ${kMaxDimensions} dimensions, got [${shape.join(', ')}]`);
  return bytes ?? fail(path, `${name}: ${dtype} cannot store rows of ${shape.at(-1)}`);
}

async function* allParts(
  path: string,
  header: Buffer,
  tensors: readonly StreamedTensor[],
  sizes: readonly number[],
  alignment: number,
): AsyncGenerator<Uint8Array> {
  yield header;
  yield zeros(padded(header.length, alignment) - header.length);
  for (const [i, { name, data }] of tensors.entries()) {
    let written = 0;
    for await (const part of data()) {
      written += part.byteLength;
      yield part;
    }
    if (written !== sizes[i]) fail(path, `${name}: expected ${sizes[i]} bytes, got ${written}`);
    yield zeros(padded(written, alignment) - written);
  }
}

function fail(path: string, what: string): never {
  throw new KotobaError('ERR_ARGUMENT', `${path}: cannot be written as GGUF: ${what}`);
}

const padded = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;
const zeros = (bytes: number): Buffer => Buffer.alloc(bytes);

function encode(path: string, key: string, value: GgufValue): Buffer {
  if (value[0] !== 'ARRAY') return scalar(path, key, value[0], value[1]);
  const [, of, values] = value;
  const items: Buffer[] = [u32(ValueType[of]), u64(values.length)];
  if (of === 'U8') items.push(Buffer.from(values as ArrayLike<number>));
  else if (of === 'ARRAY')
    for (const inner of values as readonly GgufValue[]) items.push(encode(path, key, inner));
  else for (let i = 0; i < values.length; i++) items.push(scalar(path, key, of, values[i] as Scalar));
  return Buffer.concat(items);
}

type Scalar = number | bigint | boolean | string;

const kWriters: Readonly<
  Record<Exclude<ScalarType, 'STRING'>, readonly [bytes: number, (b: Buffer, v: Scalar) => unknown]>
> = {
  U8: [1, (b, v) => b.writeUInt8(Number(v))],
  I8: [1, (b, v) => b.writeInt8(Number(v))],
  U16: [2, (b, v) => b.writeUInt16LE(Number(v))],
  I16: [2, (b, v) => b.writeInt16LE(Number(v))],
  U32: [4, (b, v) => b.writeUInt32LE(Number(v))],
  I32: [4, (b, v) => b.writeInt32LE(Number(v))],
  U64: [8, (b, v) => b.writeBigUInt64LE(BigInt(v))],
  I64: [8, (b, v) => b.writeBigInt64LE(BigInt(v))],
  F32: [4, (b, v) => b.writeFloatLE(Number(v))],
  F64: [8, (b, v) => b.writeDoubleLE(Number(v))],
  BOOL: [1, (b, v) => b.writeUInt8(v ? 1 : 0)],
};

function scalar(path: string, key: string, type: ScalarType, value: Scalar): Buffer {
  if (type === 'STRING') return text(value as string);
  const [bytes, write] = kWriters[type];
  const buffer = Buffer.alloc(bytes);
  try {
    write(buffer, value);
  } catch {
    fail(path, `the metadata ${key}: ${String(value)} is no ${type}`);
  }
  return buffer;
}

function u32(n: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(n);
  return buffer;
}

function u64(n: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt(n));
  return buffer;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}
