/** Writes the containers' headers for tests: small whole files in memory, and full-size sparse files on disk. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { tensorBytes } from '../../src/formats/index.js';
import type { DType } from '../../src/formats/index.js';
import { GGML_TYPES, ValueType } from '../../src/formats/gguf_types.js';

/** name → [dtype, torch shape], as in golden/names */
export type TensorTable = Readonly<Record<string, readonly [dtype: string, shape: readonly number[]]>>;

export interface SafetensorsStyle {
  readonly metadata?: unknown;
  /** Python's json.dumps puts spaces after : and , */
  readonly spaces?: boolean;
  readonly padded?: boolean;
}

export interface HeaderAndSize {
  readonly header: Buffer;
  /** bytes of the whole file */
  readonly size: number;
}

const bytesOf = (dtype: string, shape: readonly number[]): number => {
  const bytes = tensorBytes(dtype as DType, shape);
  if (bytes === undefined) throw new Error(`${dtype} [${shape.join(', ')}] has no size`);
  return bytes;
};

export function safetensorsHeader(tensors: TensorTable, style: SafetensorsStyle = {}): HeaderAndSize {
  const entries: [string, unknown][] = style.metadata ? [['__metadata__', style.metadata]] : [];
  let end = 0;
  for (const [name, [dtype, shape]] of Object.entries(tensors))
    entries.push([name, { dtype, shape, data_offsets: [end, (end += bytesOf(dtype, shape))] }]);
  let json = JSON.stringify(Object.fromEntries(entries));
  if (style.spaces) json = json.replace(/([:,])(?=["[{\d])/g, '$1 ');
  if (style.padded ?? true) json = json.padEnd(Math.ceil(json.length / 8) * 8);
  const header = withLength(json);
  return { header, size: header.length + end };
}

/** The u64 length and the JSON text. */
export function withLength(json: string | Buffer): Buffer {
  const text = Buffer.from(json);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text]);
}

/** A whole small file: `json` may be anything, `data` the bytes after it. */
export const safetensorsFile = (json: unknown, data: number): Buffer =>
  Buffer.concat([withLength(typeof json === 'string' ? json : JSON.stringify(json)), Buffer.alloc(data)]);

/** A value with its GGUF type: ['U32', 7], ['ARRAY', ['STRING', ['a', 'b']]]. */
export type GgufValue = readonly [type: keyof typeof ValueType, value: unknown];

export interface GgufStyle {
  readonly version?: number;
  readonly alignment?: number;
  /** offsets in the tensor table, where a test wants them wrong */
  readonly offsets?: Readonly<Record<string, number>>;
  /** ne[] innermost first, where it is not the reversed shape */
  readonly types?: Readonly<Record<string, number>>;
}

export function ggufHeader(
  tensors: TensorTable,
  metadata: Readonly<Record<string, GgufValue>> = {},
  { version = 3, alignment = 32, offsets = {}, types = {} }: GgufStyle = {},
): HeaderAndSize {
  const names = Object.entries(tensors);
  const parts: Buffer[] = [
    Buffer.from('GGUF'),
    u32(version),
    u64(names.length),
    u64(Object.keys(metadata).length),
  ];
  for (const [key, [type, value]] of Object.entries(metadata))
    parts.push(text(key), u32(ValueType[type]), ggufValue(type, value));
  let end = 0;
  for (const [name, [dtype, shape]] of names) {
    const id = types[name] ?? GGML_TYPES.indexOf(dtype as DType);
    const dimensions = [...shape].reverse().map(u64);
    parts.push(text(name), u32(shape.length), ...dimensions, u32(id), u64(offsets[name] ?? end));
    end = align(end + bytesOf(dtype, shape), alignment);
  }
  const table = Buffer.concat(parts);
  const header = Buffer.concat([table, Buffer.alloc(align(table.length, alignment) - table.length)]);
  return { header, size: header.length + end };
}

const align = (n: number, to: number): number => Math.ceil(n / to) * to;

function ggufValue(type: keyof typeof ValueType, value: unknown): Buffer {
  if (type === 'STRING') return text(value as string);
  if (type === 'ARRAY') {
    const [inner, values] = value as [keyof typeof ValueType, readonly unknown[]];
    if (inner === 'U8')
      return Buffer.concat([u32(ValueType.U8), u64(values.length), Buffer.from(values as number[])]);
    return Buffer.concat([
      u32(ValueType[inner]),
      u64(values.length),
      ...values.map((v) => ggufValue(inner, v)),
    ]);
  }
  const bytes = Buffer.alloc(8);
  switch (type) {
    case 'U8':
    case 'BOOL':
      return bytes.subarray(0, bytes.writeUInt8(Number(value)));
    case 'I8':
      return bytes.subarray(0, bytes.writeInt8(value as number));
    case 'U16':
      return bytes.subarray(0, bytes.writeUInt16LE(value as number));
    case 'I16':
      return bytes.subarray(0, bytes.writeInt16LE(value as number));
    case 'U32':
      return u32(value as number);
    case 'I32':
      return bytes.subarray(0, bytes.writeInt32LE(value as number));
    case 'F32':
      return bytes.subarray(0, bytes.writeFloatLE(value as number));
    case 'F64':
      return bytes.subarray(0, bytes.writeDoubleLE(value as number));
    case 'U64':
      return bytes.subarray(0, bytes.writeBigUInt64LE(BigInt(value as number | bigint)));
    case 'I64':
      return bytes.subarray(0, bytes.writeBigInt64LE(BigInt(value as number | bigint)));
  }
}

function u32(n: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(n);
  return buffer;
}

export function u64(n: number | bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt(n));
  return buffer;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

export const wholeFile = ({ header, size }: HeaderAndSize): Buffer =>
  Buffer.concat([header, Buffer.alloc(size - header.length)]);

/** The header, then a hole: a file of full size that takes a few kB of disk. */
export function writeSparse(path: string, { header, size }: HeaderAndSize): void {
  const fd = openSync(path, 'w');
  try {
    writeSync(fd, header);
    ftruncateSync(fd, size);
  } finally {
    closeSync(fd);
  }
}
