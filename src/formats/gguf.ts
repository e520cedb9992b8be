/**
 * GGUF v2 and v3: magic, version, counts, metadata, tensor table, aligned data.
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 * ne[] is stored innermost first; shapes here are torch's, outermost first.
 */
import type { ByteSource } from './byte_source.js';
import { blockWeights, elementCount, tensorBytes } from './dtype.js';
import type { DType } from './dtype.js';
import { GgufCursor } from './gguf_cursor.js';
import { readMetadata } from './gguf_metadata.js';
import { GGML_TYPES } from './gguf_types.js';
import type { MetadataValue, ParsedFile, TensorInfo } from './model_file.js';

export const kGgufMagic = 'GGUF';
const kDefaultAlignment = 32;
const kMaxDimensions = 8;
/** key length, value type, one byte of value */
const kMinEntryBytes = 13;
/** name length, dimension count, type, offset */
const kMinTensorBytes = 24;

/** A tensor table entry before the start of the data is known. */
interface Entry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly bytes: number;
}

export function parseGguf(source: ByteSource): ParsedFile {
  const cursor = new GgufCursor(source);
  readVersion(cursor);
  const tensorCount = cursor.count();
  const metadataCount = cursor.count();
  if (tensorCount * kMinTensorBytes > cursor.remaining) cursor.truncated(`a table of ${tensorCount} tensors`);
  if (metadataCount * kMinEntryBytes > cursor.remaining)
    cursor.truncated(`metadata of ${metadataCount} entries`);
  const metadata = readMetadata(cursor, metadataCount);
  const alignment = readAlignment(cursor, metadata);
  const entries = new Map<string, Entry>();
  for (let i = 0; i < tensorCount; i++) {
    const entry = readEntry(cursor, metadata);
    if (entries.has(entry.name)) cursor.invalid(`the tensor ${JSON.stringify(entry.name)} occurs twice`);
    if (entry.offset % alignment !== 0)
      cursor.invalid(
        `tensor ${JSON.stringify(entry.name)} begins at ${entry.offset}, no multiple of ${alignment}`,
      );
    entries.set(entry.name, entry);
  }
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  return {
    container: 'gguf',
    path: source.path,
    size: source.size,
    tensors: placeTensors(cursor, [...entries.values()], dataStart),
    metadata,
  };
}

function readVersion(cursor: GgufCursor): void {
  const magic = Buffer.from(cursor.bytes(4)).toString('latin1');
  if (magic !== kGgufMagic) cursor.invalid(`it begins with ${JSON.stringify(magic)}, not "GGUF"`);
  const version = cursor.u32();
  if (version === 2 || version === 3) return;
  if (version !== 0 && version % 65536 === 0)
    cursor.invalid('it is big-endian; convert it with gguf_convert_endian.py of llama.cpp');
  if (version === 1) cursor.invalid('GGUF version 1 (2023) is not supported; convert the original again');
  cursor.invalid(`GGUF version ${version} is not supported (2 and 3 are)`);
}

function readAlignment(cursor: GgufCursor, metadata: ReadonlyMap<string, MetadataValue>): number {
  const alignment = metadata.get('general.alignment') ?? kDefaultAlignment;
  const isPowerOfTwo =
    typeof alignment === 'number' && alignment > 0 && Number.isInteger(Math.log2(alignment));
  if (!isPowerOfTwo) return cursor.invalid(`general.alignment is ${String(alignment)}, not a power of two`);
  return alignment;
}

function readEntry(cursor: GgufCursor, metadata: ReadonlyMap<string, MetadataValue>): Entry {
  const name = cursor.string('a tensor name');
  const label = JSON.stringify(name);
  const dimensions = cursor.u32();
  if (dimensions > kMaxDimensions) cursor.invalid(`tensor ${label} has ${dimensions} dimensions`);
  const stored = Array.from({ length: dimensions }, () => cursor.count()).reverse();
  const dtype = readType(cursor, label);
  const offset = cursor.count();
  const bytes = tensorBytes(dtype, stored);
  if (bytes === undefined) {
    const why =
      (stored.at(-1) ?? 1) % blockWeights(dtype) === 0 ? 'too large' : `rows of no whole ${dtype} blocks`;
    return cursor.invalid(`tensor ${label}, ${dtype} [${stored.join(', ')}], is ${why}`);
  }
  const shape = originalShape(cursor, name, metadata) ?? stored;
  if (elementCount(shape) !== elementCount(stored))
    cursor.invalid(
      `tensor ${label}: comfy.gguf.orig_shape [${shape.join(', ')}] contradicts [${stored.join(', ')}]`,
    );
  return { name, dtype, shape, offset, bytes };
}

/** ComfyUI-GGUF flattens weights whose rows are no whole blocks, and keeps their true shape in the metadata. */
function originalShape(
  cursor: GgufCursor,
  name: string,
  metadata: ReadonlyMap<string, MetadataValue>,
): number[] | undefined {
  const key = `comfy.gguf.orig_shape.${name}`;
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (!(value instanceof Int32Array || value instanceof Uint32Array) || value.some((n) => n < 0))
    return cursor.invalid(`the metadata ${key} is not a shape`);
  return [...value];
}

function readType(cursor: GgufCursor, label: string): DType {
  const id = cursor.u32();
  const type = GGML_TYPES[id];
  if (type === undefined) return cursor.invalid(`tensor ${label} has the unknown type ${id}`);
  if (typeof type === 'object')
    return cursor.invalid(
      `tensor ${label} has the type ${id} (${type.removed}), which ggml has removed; quantise the original again`,
    );
  return type;
}

/** Ranges in the file, which may come in any order and leave gaps but not overlap. */
function placeTensors(cursor: GgufCursor, entries: Entry[], dataStart: number): Map<string, TensorInfo> {
  const { path, size } = cursor.source;
  const tensors = new Map<string, TensorInfo>();
  for (const entry of entries) {
    const offset = dataStart + entry.offset;
    const end = offset + entry.bytes;
    if (end > Number.MAX_SAFE_INTEGER) cursor.invalid(`tensor ${JSON.stringify(entry.name)} ends past 2^53`);
    if (end > size) cursor.truncated(`tensor ${JSON.stringify(entry.name)}, which ends at byte ${end},`);
    tensors.set(entry.name, { ...entry, path, offset });
  }
  let end = dataStart;
  for (const { name, offset, bytes } of [...tensors.values()].sort(
    (a, b) => a.offset - b.offset || a.bytes - b.bytes,
  )) {
    if (offset < end)
      cursor.invalid(`tensor ${JSON.stringify(name)} overlaps the tensor before it at byte ${offset}`);
    end = offset + bytes;
  }
  return tensors;
}
