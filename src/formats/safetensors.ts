/**
 * safetensors: u64 header length, JSON header, data. https://huggingface.co/docs/safetensors
 * As strict as the reference crate: the tensors cover the data from the first byte to the last, without hole or
 * overlap. Entries may come in any order, data may be unaligned, tensors may be 0-d or hold nothing.
 */
import { isUtf8 } from 'node:buffer';
import { KotobaError } from '../errors.js';
import type { ByteSource } from './byte_source.js';
import { DTYPES, tensorBytes } from './dtype.js';
import type { DType } from './dtype.js';
import { JsonError, parseJson } from './json.js';
import type { JsonObject, JsonValue } from './json.js';
import type { ParsedFile, TensorInfo } from './model_file.js';

const kLengthBytes = 8;
/** the reference crate's limit */
const kMaxHeaderBytes = 100_000_000;

export function parseSafetensors(source: ByteSource): ParsedFile {
  const headerBytes = headerLength(source);
  const header = parseHeader(source.path, source.read(kLengthBytes, headerBytes));
  const dataStart = kLengthBytes + headerBytes;
  const tensors = new Map<string, TensorInfo>();
  const metadata = new Map<string, string>();
  for (const [name, entry] of header) {
    if (name === '__metadata__') readMetadata(source.path, entry, metadata);
    else tensors.set(name, readTensor(source.path, name, entry, dataStart));
  }
  checkLayout(source, dataStart, [...tensors.values()]);
  return { container: 'safetensors', path: source.path, size: source.size, tensors, metadata };
}

function headerLength({ path, size, read }: ByteSource): number {
  if (size < kLengthBytes) truncated(path, `${size} bytes are too few for a safetensors file`);
  const length = Number(read(0, kLengthBytes).readBigUInt64LE());
  if (length > kMaxHeaderBytes)
    invalid(
      path,
      `a header of ${length} bytes: more than the format allows (${kMaxHeaderBytes}); is this a safetensors file?`,
    );
  if (kLengthBytes + length > size)
    truncated(path, `the header ends at byte ${kLengthBytes + length}, but the file has only ${size}`);
  return length;
}

function parseHeader(path: string, bytes: Buffer): JsonObject {
  if (!isUtf8(bytes)) invalid(path, 'the header is not UTF-8 text');
  let header: JsonValue;
  try {
    header = parseJson(bytes.toString('utf8'));
  } catch (error) {
    if (error instanceof JsonError) invalid(path, `the header is not valid JSON: ${error.message}`);
    throw error;
  }
  return header instanceof Map ? header : invalid(path, 'the header is not a JSON object');
}

function readMetadata(path: string, entry: JsonValue, metadata: Map<string, string>): void {
  if (entry === null) return;
  if (!(entry instanceof Map)) invalid(path, '__metadata__ is not an object');
  for (const [key, value] of entry as JsonObject) {
    if (typeof value !== 'string') invalid(path, `__metadata__.${key} is not a string`);
    metadata.set(key, value as string);
  }
}

function readTensor(path: string, name: string, entry: JsonValue, dataStart: number): TensorInfo {
  const label = JSON.stringify(name);
  if (!(entry instanceof Map))
    return invalid(path, `tensor ${label} is described by ${typeof entry}, not an object`);
  const dtype = entry.get('dtype');
  if (typeof dtype !== 'string') return invalid(path, `tensor ${label} has no dtype`);
  if (!Object.hasOwn(DTYPES, dtype) || DTYPES[dtype as DType][0] !== 1)
    return invalid(path, `tensor ${label} has the dtype ${JSON.stringify(dtype)}, which is not supported`);
  const shape = sizes(entry.get('shape'));
  if (shape === undefined) return invalid(path, `tensor ${label} has no valid shape`);
  const [begin, end, ...rest] = sizes(entry.get('data_offsets')) ?? [];
  if (begin === undefined || end === undefined || rest.length > 0 || begin > end)
    return invalid(path, `tensor ${label} has no valid data_offsets`);
  const bytes = tensorBytes(dtype as DType, shape);
  if (bytes !== end - begin)
    return invalid(
      path,
      `tensor ${label}, ${dtype} [${shape.join(', ')}], takes ${bytes ?? 'too many'} bytes but data_offsets give ${end - begin}`,
    );
  return { name, dtype: dtype as DType, shape, path, offset: dataStart + begin, bytes };
}

/** A list of non-negative integers that doubles hold exactly, else undefined. */
function sizes(value: JsonValue | undefined): number[] | undefined {
  if (!Array.isArray(value)) return undefined;
  return value.every((n) => Number.isSafeInteger(n) && (n as number) >= 0) ? (value as number[]) : undefined;
}

function checkLayout({ path, size }: ByteSource, dataStart: number, tensors: TensorInfo[]): void {
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataStart;
  for (const { name, offset, bytes } of tensors) {
    if (offset !== end) {
      const what = offset < end ? 'overlaps the tensor before it' : 'leaves a hole before it';
      invalid(path, `tensor ${JSON.stringify(name)} ${what}: it begins at byte ${offset}, expected ${end}`);
    }
    end = offset + bytes;
  }
  if (end > size)
    truncated(
      path,
      `its tensors end at byte ${end}, but the file has only ${size}: the download is incomplete`,
    );
  if (end < size) invalid(path, `${size - end} bytes follow the last tensor, which ends at byte ${end}`);
}

function truncated(path: string, what: string): never {
  throw new KotobaError('ERR_SAFETENSORS_TRUNCATED', `${path}: truncated: ${what}`);
}

function invalid(path: string, what: string): never {
  throw new KotobaError('ERR_SAFETENSORS_HEADER', `${path}: not a valid safetensors file: ${what}`);
}
