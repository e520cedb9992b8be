/**
 * Damage that keeps a file's bookkeeping right: other dtypes, dimensions, names and scales, with offsets that fit.
 * Bytes flipped at random rarely get past a container's own checks; these files do, and reach models and kernels.
 */
import { memorySource, tensorBytes } from '../../src/formats/index.js';
import type { DType, TensorInfo } from '../../src/formats/index.js';
import { GgufCursor } from '../../src/formats/gguf_cursor.js';
import { readMetadata } from '../../src/formats/gguf_metadata.js';
import { GGML_TYPES } from '../../src/formats/gguf_types.js';
import { u32, u64 } from '../file_headers.js';
import { below, pick, type Random } from './mutate.js';
import { parse } from './samples.js';

interface Stored {
  name: string;
  dtype: DType;
  shape: number[];
  /** Bytes to fill it with, repeated where it grew. */
  data: Buffer;
}

/** Larger tensors would make slow cases, not other ones. Bytes. */
const kMaxTensor = 1 << 20;
const kAlignment = 32;
const kPlain: readonly DType[] = [
  'F32',
  'F16',
  'BF16',
  'F64',
  'F8_E4M3',
  'F8_E5M2',
  'I8',
  'U8',
  'I64',
  'BOOL',
];
const kGguf = GGML_TYPES.flatMap((type, id) => (typeof type === 'string' ? [{ type, id }] : []));

type Edit = (tensors: Stored[], random: Random, dtypes: readonly DType[]) => void;

const retypeOne: Edit = (tensors, random, dtypes) => {
  pick(tensors, random).dtype = pick(dtypes, random);
};

/** As a quantiser does: all matrices become one type. */
const retypeAll: Edit = (tensors, random, dtypes) => {
  const dtype = pick(dtypes, random);
  for (const tensor of tensors)
    if (tensor.shape.length === 2 && tensorBytes(dtype, tensor.shape) !== undefined) tensor.dtype = dtype;
};

const resizeOne: Edit = (tensors, random) => {
  const { shape } = pick(tensors, random);
  if (shape.length > 0) shape[below(random, shape.length)] = otherSize(pick(shape, random), random);
};

/** Every dimension of one size becomes another: a network that fits together, of an odd size. */
const resizeAll: Edit = (tensors, random) => {
  const from = pick(pick(tensors, random).shape, random) ?? 1;
  const to = otherSize(from, random);
  for (const { shape } of tensors) for (const [i, n] of shape.entries()) if (n === from) shape[i] = to;
};

const otherSize = (n: number, random: Random): number =>
  pick(
    [0, 1, 2, 3, 7, 31, 32, 33, 64, 96, 128, 256, Math.max(0, n - 1), n + 1, n * 2, Math.ceil(n / 2)],
    random,
  );

const reshape: Edit = (tensors, random) => {
  const { shape } = pick(tensors, random);
  const how = below(random, 4);
  if (how === 0) shape.reverse();
  else if (how === 1) shape.push(1);
  else if (how === 2) shape.unshift(1);
  else shape.pop();
};

const remove: Edit = (tensors, random) => {
  if (tensors.length > 1) tensors.splice(below(random, tensors.length), 1);
};

const rename: Edit = (tensors, random) => {
  const tensor = pick(tensors, random);
  const how = below(random, 3);
  if (how === 0) tensor.name = tensor.name.replace(/\d+/, () => String(below(random, 12)));
  else if (how === 1) tensor.name = `text_model.${tensor.name}`;
  else tensor.name = pick(tensors, random).name + pick(['', '.1', '\u0000', '/'], random);
};

const copy: Edit = (tensors, random) => {
  const tensor = pick(tensors, random);
  const name = tensor.name.replace(/\d+/, () => String(below(random, 5)));
  tensors.push({ ...tensor, name, shape: [...tensor.shape] });
};

const scale: Edit = (tensors, random) => {
  const name = pick(tensors, random).name.replace(/weight$/, pick(['scale_weight', 'weight_scale'], random));
  const shape = pick([[], [1], [2], [0], [1, 1]], random);
  const dtype = pick(['F32', 'F16', 'BF16', 'F64', 'F8_E4M3', 'I64'] as const, random);
  const data = pick([Buffer.from([0, 0, 0, 62]), Buffer.from([255, 255, 255, 255]), Buffer.alloc(4)], random);
  tensors.push({ name, dtype, shape: [...shape], data });
};

const marker: Edit = (tensors, random) => {
  tensors.push({ name: 'scaled_fp8', dtype: 'F8_E4M3', shape: [below(random, 3)], data: Buffer.alloc(1) });
};

const kEdits: readonly Edit[] = [
  retypeOne,
  retypeAll,
  retypeAll,
  resizeOne,
  resizeAll,
  resizeAll,
  resizeAll,
  reshape,
  remove,
  rename,
  copy,
  scale,
  marker,
];

/** A file of one to three edits, in its own container. */
export function rewrite(bytes: Buffer, random: Random): Buffer {
  const { container, tensors } = parse(bytes);
  const isGguf = container === 'gguf';
  const stored = [...tensors.values()].map((tensor) => storedOf(bytes, tensor));
  const dtypes = isGguf ? kGguf.map(({ type }) => type) : kPlain;
  for (let i = 1 + below(random, 3); i > 0; i--) pick(kEdits, random)(stored, random, dtypes);
  const fitting = stored.filter(
    ({ dtype, shape }) => dtypes.includes(dtype) && (tensorBytes(dtype, shape) ?? Infinity) <= kMaxTensor,
  );
  return isGguf ? ggufFile(bytes, fitting) : safetensorsFile(bytes, fitting, random);
}

const storedOf = (bytes: Buffer, tensor: TensorInfo): Stored => ({
  name: tensor.name,
  dtype: tensor.dtype,
  shape: [...tensor.shape],
  data: bytes.subarray(tensor.offset, tensor.offset + tensor.bytes),
});

function dataOf({ dtype, shape, data }: Stored): Buffer {
  const length = tensorBytes(dtype, shape)!;
  return data.length === 0 || data.length >= length ? data.subarray(0, length) : Buffer.alloc(length, data);
}

/** Keys of encoders' configs; a file with a config of its own has its own keys damaged. */
const kConfigKeys = [
  'num_attention_heads',
  'hidden_act',
  'layer_norm_eps',
  'eos_token_id',
  'num_layers',
  'd_kv',
];
const kConfigValues = [
  ...[0, 1, 3, 4, -1, 0.5, 1e-300, 1e9, 1e300, 2 ** 53, 'gelu', 'relu', null, [], true, false],
  ...[[16, 56, 56], [0, 8, 8], [4, 6, 6], [2, 2, 12], [4, 14, 14], [32], [-2, 8, 10], new Array(40).fill(2)],
];

/** With the metadata's config changed in one key, now and then. */
function damagedMetadata(found: unknown, random: Random): Record<string, unknown> {
  const metadata = { ...(found as Record<string, unknown> | undefined) };
  const stored = metadata['config'];
  if (random() >= (stored === undefined ? 0.1 : 0.3)) return metadata;
  const own = typeof stored === 'string' ? (JSON.parse(stored) as object) : { num_attention_heads: 2 };
  const keys = [...(typeof stored === 'string' ? Object.keys(own) : []), ...kOptionalKeys, ...kConfigKeys];
  const config = { ...own, [pick(keys, random)]: pick(kConfigValues, random) };
  return { ...metadata, config: JSON.stringify(config) };
}

/** What decides how much work a model is, whether its own config names it or not. */
const kOptionalKeys = [
  'max_sequence_length',
  'resolution',
  'theta',
  'num_groups',
  'scale_factor',
  'shift_factor',
];

function safetensorsFile(pristine: Buffer, tensors: readonly Stored[], random: Random): Buffer {
  const length = Number(pristine.readBigUInt64LE());
  const header = JSON.parse(pristine.toString('utf8', 8, 8 + length)) as Record<string, unknown>;
  const metadata = damagedMetadata(header['__metadata__'], random);
  const parts: Buffer[] = [];
  let end = 0;
  const entries = tensors.map((tensor): string => {
    const data = dataOf(tensor);
    parts.push(data);
    const range = [end, (end += data.length)];
    const entry = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: range };
    return `${JSON.stringify(tensor.name)}:${JSON.stringify(entry)}`; // not an object: names may occur twice
  });
  return safetensorsWith(
    `{"__metadata__":${JSON.stringify(metadata)},${entries.join()}}`,
    Buffer.concat(parts),
  );
}

/** The length that belongs to the text, the text, the data. */
export function safetensorsWith(json: string | Buffer, data: Buffer): Buffer {
  const text = Buffer.from(json);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

/** The metadata as it was, a new tensor table, the data. */
function ggufFile(pristine: Buffer, tensors: readonly Stored[]): Buffer {
  const cursor = new GgufCursor(memorySource(pristine));
  cursor.bytes(16);
  readMetadata(cursor, cursor.count());
  const head = Buffer.from(pristine.subarray(0, cursor.position));
  head.writeBigUInt64LE(BigInt(tensors.length), 8);
  const parts: Buffer[] = [head];
  const data: Buffer[] = [];
  let end = 0;
  for (const tensor of tensors) {
    const bytes = dataOf(tensor);
    const name = Buffer.from(tensor.name);
    const id = kGguf.find(({ type }) => type === tensor.dtype)!.id;
    const dimensions = [...tensor.shape].reverse().map(u64);
    parts.push(u64(name.length), name, u32(dimensions.length), ...dimensions, u32(id), u64(end));
    data.push(bytes, padding(bytes.length));
    end += bytes.length + padding(bytes.length).length;
  }
  const table = Buffer.concat(parts);
  return Buffer.concat([table, padding(table.length), ...data]);
}

const padding = (length: number): Buffer => Buffer.alloc((kAlignment - (length % kAlignment)) % kAlignment);
