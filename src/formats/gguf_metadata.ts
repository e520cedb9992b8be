/** GGUF's key-value section: every value type, arrays of arrays, and vocabularies of 256k strings in one pass. */
import type { GgufCursor } from './gguf_cursor.js';
import { ValueType, kMinValueBytes } from './gguf_types.js';
import type { MetadataValue, NumberArray } from './model_file.js';

const kMaxKeyBytes = 65_535;
const kMaxDepth = 16;

export function readMetadata(cursor: GgufCursor, count: number): Map<string, MetadataValue> {
  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < count; i++) {
    const key = cursor.string('a metadata key');
    if (key.length > kMaxKeyBytes) cursor.invalid(`a metadata key of ${key.length} characters`);
    if (metadata.has(key)) cursor.invalid(`the metadata key ${JSON.stringify(key)} occurs twice`);
    metadata.set(key, readValue(cursor, cursor.u32(), key, 0));
  }
  return metadata;
}

function readValue(cursor: GgufCursor, type: number, key: string, depth: number): MetadataValue {
  switch (type) {
    case ValueType.U8:
      return cursor.u8();
    case ValueType.I8:
      return cursor.i8();
    case ValueType.U16:
      return cursor.u16();
    case ValueType.I16:
      return cursor.i16();
    case ValueType.U32:
      return cursor.u32();
    case ValueType.I32:
      return cursor.i32();
    case ValueType.F32:
      return cursor.f32();
    case ValueType.F64:
      return cursor.f64();
    case ValueType.U64:
      return plain(cursor.u64());
    case ValueType.I64:
      return plain(cursor.i64());
    case ValueType.BOOL:
      return readBool(cursor, key);
    case ValueType.STRING:
      return cursor.string(`the metadata ${key}`);
    case ValueType.ARRAY:
      return readArray(cursor, key, depth);
    default:
      return cursor.invalid(`the metadata ${JSON.stringify(key)} has the unknown type ${type}`);
  }
}

function readArray(cursor: GgufCursor, key: string, depth: number): MetadataValue {
  if (depth >= kMaxDepth) cursor.invalid(`the metadata ${JSON.stringify(key)} nests arrays ${depth} deep`);
  const type = cursor.u32();
  const least = kMinValueBytes[type];
  if (least === undefined)
    return cursor.invalid(`the metadata ${JSON.stringify(key)} is an array of the unknown type ${type}`);
  const count = cursor.count();
  if (count * least > cursor.remaining)
    cursor.truncated(`the metadata ${JSON.stringify(key)}, an array of ${count} values,`);
  const typed = typedArray(type);
  if (typed !== undefined) return typed(cursor.bytes(count * least).buffer);
  const what = `an entry of ${key}`;
  if (type === ValueType.STRING) return Array.from({ length: count }, () => cursor.string(what));
  if (type === ValueType.BOOL) return Array.from({ length: count }, () => readBool(cursor, key));
  return Array.from({ length: count }, () => readArray(cursor, key, depth + 1));
}

/** Our machines are little-endian, as GGUF is, so a numeric array is its bytes. */
function typedArray(type: number): ((buffer: ArrayBuffer) => NumberArray) | undefined {
  switch (type) {
    case ValueType.U8:
      return (b) => new Uint8Array(b);
    case ValueType.I8:
      return (b) => new Int8Array(b);
    case ValueType.U16:
      return (b) => new Uint16Array(b);
    case ValueType.I16:
      return (b) => new Int16Array(b);
    case ValueType.U32:
      return (b) => new Uint32Array(b);
    case ValueType.I32:
      return (b) => new Int32Array(b);
    case ValueType.F32:
      return (b) => new Float32Array(b);
    case ValueType.U64:
      return (b) => new BigUint64Array(b);
    case ValueType.I64:
      return (b) => new BigInt64Array(b);
    case ValueType.F64:
      return (b) => new Float64Array(b);
    default:
      return undefined;
  }
}

function readBool(cursor: GgufCursor, key: string): boolean {
  const byte = cursor.u8();
  if (byte > 1) cursor.invalid(`the metadata ${JSON.stringify(key)} holds the boolean ${byte}`);
  return byte === 1;
}

const plain = (n: bigint): number | bigint => (BigInt.asIntN(54, n) === n ? Number(n) : n);
