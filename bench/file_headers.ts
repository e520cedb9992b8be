/**
 * The two containers of the benched files: where each planned tensor lies and the bytes before the first one.
 * safetensors: u64 length, JSON, data. GGUF v3: magic, counts, metadata, tensor infos, aligned data.
 */
import { blockSizes, hashName } from './random_weights.js';
import type { PlannedTensor } from './model_layout.js';

export interface PlacedTensor {
  readonly tensor: PlannedTensor;
  /** Bytes from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
  /** Chooses this tensor's values. */
  readonly seed: number;
}

export interface FileLayout {
  readonly header: Buffer;
  readonly tensors: readonly PlacedTensor[];
  readonly totalBytes: number;
}

const ggufAlignment = 32;
/** GGUF's numbers of the types made here. */
const ggmlTypes = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 8, Q4_K: 12, Q6_K: 14 } as const;
const [valueU32, valueF32, valueString] = [4, 6, 8];

export function tensorBytes(tensor: PlannedTensor): number {
  const { weights, bytes } = blockSizes[tensor.type];
  const rowWeights = tensor.shape.at(-1)!;
  if (rowWeights % weights !== 0)
    throw new RangeError(`${tensor.name}: rows of ${rowWeights} weights are no whole ${tensor.type} blocks`);
  return (tensor.shape.reduce((a, b) => a * b, 1) / weights) * bytes;
}

const seedOf = (tensor: PlannedTensor, seed: number) => hashName(tensor.sameAs ?? tensor.name, seed);

/** @param metadata  beside the usual `format` */
export function safetensorsLayout(
  tensors: readonly PlannedTensor[],
  seed: number,
  metadata: Record<string, string> = {},
): FileLayout {
  const entries: Record<string, unknown> = { __metadata__: { format: 'pt', ...metadata } };
  let offset = 0;
  for (const tensor of tensors) {
    const end = offset + tensorBytes(tensor);
    entries[tensor.name] = { dtype: tensor.type, shape: tensor.shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = JSON.stringify(entries);
  const padded = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return place(tensors, Buffer.concat([length, padded]), seed, 1);
}

/** @param metadata  strings, whole numbers (u32) and fractions (f32) */
export function ggufLayout(
  tensors: readonly PlannedTensor[],
  metadata: Record<string, string | number>,
  seed: number,
): FileLayout {
  const entries = Object.entries(metadata);
  const parts = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(entries.length)];
  for (const [key, value] of entries) parts.push(ggufString(key), ...ggufValue(value));
  let offset = 0;
  for (const tensor of tensors) {
    const dims = [...tensor.shape].reverse().map(u64);
    parts.push(ggufString(tensor.name), u32(dims.length), ...dims, u32(ggmlTypes[tensor.type]), u64(offset));
    offset = aligned(offset + tensorBytes(tensor), ggufAlignment);
  }
  const head = Buffer.concat(parts);
  const padding = Buffer.alloc(aligned(head.length, ggufAlignment) - head.length);
  return place(tensors, Buffer.concat([head, padding]), seed, ggufAlignment);
}

function place(
  tensors: readonly PlannedTensor[],
  header: Buffer,
  seed: number,
  alignment: number,
): FileLayout {
  let offset = header.length;
  const placed = tensors.map((tensor) => {
    const at = offset;
    const bytes = tensorBytes(tensor);
    offset = aligned(at + bytes, alignment);
    return { tensor, offset: at, bytes, seed: seedOf(tensor, seed) };
  });
  return { header, tensors: placed, totalBytes: offset };
}

const aligned = (bytes: number, alignment: number) => Math.ceil(bytes / alignment) * alignment;

/** Little-endian, as GGUF stores its numbers. */
export function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

export function u64(value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

function ggufString(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([u64(bytes.length), bytes]);
}

function ggufValue(value: string | number): Buffer[] {
  if (typeof value === 'string') return [u32(valueString), ggufString(value)];
  if (Number.isInteger(value)) return [u32(valueU32), u32(value)];
  const fraction = Buffer.alloc(4);
  fraction.writeFloatLE(value);
  return [u32(valueF32), fraction];
}
