/**
 * Makes one model file of another: shards merged, one network taken out, encoders put back, types changed, weights
 * quantised. Tensors pass through in pieces of some megabytes, and the file gets its name only when what was written has
 * been read again.
 */
import { createHash } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import { dirname, extname, resolve } from 'node:path';
import { KotobaError } from '../errors.js';
import {
  blockWeights,
  elementCount,
  identify,
  selectPart,
  streamSafetensors,
  tensorBytes,
  writeGguf,
  type Container,
  type DType,
  type ModelFile,
  type Slot,
  type StreamedTensor,
  type UnigramPieces,
} from '../formats/index.js';
import type { Device } from '../runtime/device.js';
import { TensorStream } from '../runtime/tensor_stream.js';
import { ggufMetadata, safetensorsMetadata } from './metadata.js';
import { onePart, soleNetwork, wholeFile, type PlannedTensor } from './plan.js';
import { withReplaced, type Replacement } from './replace.js';
import { typeOf, type TypeRule, type WrittenType } from './types.js';
import { checkWritten } from './written.js';

export interface ConvertOptions {
  /** Only this network, under the names of its reference. */
  readonly extract?: Slot | undefined;
  /** Of all weights; absent: each keeps its own. Quantised types are for GGUF files. */
  readonly type?: WrittenType | undefined;
  /** By name, over `type`; the first that matches counts. */
  readonly rules?: readonly TypeRule[] | undefined;
  /** Networks of other files in the place of the input's own, or where it has none. */
  readonly replace?: readonly Replacement[] | undefined;
  /** What the input does not tell, for `extract`. */
  readonly config?: Readonly<Record<string, unknown>> | undefined;
  /** A T5's, which a GGUF of it carries. */
  readonly vocabulary?: UnigramPieces | undefined;
  readonly signal?: AbortSignal | undefined;
  /** @param bytes so far: written, then read again */
  readonly onProgress?: ((bytes: number, total: number, what: 'writing' | 'checking') => void) | undefined;
}

export interface Converted {
  readonly container: Container;
  readonly bytes: number;
  /** name, type and type before, for every tensor */
  readonly tensors: readonly { readonly name: string; readonly dtype: DType; readonly from: DType }[];
}

/**
 * @param device the CPU
 * @param output a .safetensors or .gguf file; what is there is replaced when the new one is whole and checked
 * @throws KotobaError ERR_ARGUMENT for what cannot be written so; ERR_MODEL_… as loading does; ERR_NON_FINITE for values
 *   that the type cannot hold; ERR_FILE_READ, ERR_FILE_WRITE, ERR_CANCELLED: the output is then as it was before
 */
export async function convertModel(
  device: Device,
  input: ModelFile,
  output: string,
  options: ConvertOptions = {},
): Promise<Converted> {
  const container = containerOf(output);
  const slot = extractedSlot(input, container, options);
  const part = slot && selectPart(input, { slot, config: options.config, allowUndecided: true });
  const planned = part ? onePart(input, part, container) : plan(input, container, options);
  const types = planned.map((tensor) => writtenType(tensor, output, container, options));
  const total = planned.reduce((sum, { source }, i) => sum + tensorBytes(types[i]!, source.shape)!, 0);
  await requireSpace(output, total);
  using stream = new TensorStream(device, options.signal);
  const progress = (what: 'writing' | 'checking') => {
    let done = 0;
    return (bytes: number) => options.onProgress?.((done += bytes), total, what);
  };
  const { tensors, digests } = streamed(stream, planned, types, container, progress('writing'));
  const check = (path: string) =>
    checkWritten(path, { tensors, digests, slot, signal: options.signal, onRead: progress('checking') });
  if (container === 'gguf') {
    const parts = part ? [part] : identify(input, { allowUndecided: true });
    const { type, vocabulary } = options;
    const metadata = ggufMetadata({ output, part, parts, types, type, vocabulary });
    await writeGguf(output, metadata, tensors, check);
  } else {
    const names = new Set(tensors.map(({ name }) => name));
    await streamSafetensors(output, tensors, safetensorsMetadata(input, part, names), check);
  }
  return {
    container,
    bytes: total,
    tensors: tensors.map(({ name, dtype }, i) => ({ name, dtype, from: planned[i]!.source.tensor.dtype })),
  };
}

/** @throws KotobaError ERR_ARGUMENT */
export function containerOf(output: string): Container {
  const kinds: Readonly<Record<string, Container>> = { '.safetensors': 'safetensors', '.gguf': 'gguf' };
  const container = kinds[extname(output).toLowerCase()];
  if (!container)
    throw new KotobaError('ERR_ARGUMENT', `${output}: expected a name that ends in .safetensors or .gguf`);
  return container;
}

/** The network that the output will be, if it is to be one alone: as asked, or because the input is nothing else. */
export function extractedSlot(
  input: ModelFile,
  container: Container,
  { extract, replace = [] }: Pick<ConvertOptions, 'extract' | 'replace'>,
): Slot | undefined {
  if (replace.length === 0) return extract ?? soleNetwork(input, container);
  if (extract)
    throw new KotobaError(
      'ERR_ARGUMENT',
      'convert: expected either a network to extract or networks to replace',
    );
  return undefined;
}

function plan(
  input: ModelFile,
  container: Container,
  { type, rules = [], replace = [] }: ConvertOptions,
): PlannedTensor[] {
  // GGUF has no FP8, and a weight that is written in another type cannot keep its scale.
  const isChanged = type !== undefined || rules.length > 0 || container === 'gguf';
  return withReplaced(input, wholeFile(input, isChanged ? 'unscaled' : 'stored'), replace);
}

function writtenType(
  { name, source }: PlannedTensor,
  output: string,
  container: Container,
  { type: wanted, rules = [] }: ConvertOptions,
): DType {
  const type = typeOf(name, source, wanted, rules, container);
  if (container === 'safetensors' && blockWeights(type) > 1)
    throw new KotobaError('ERR_ARGUMENT', `${output}: safetensors hold no ${type}: write a .gguf file`);
  return type;
}

/** Each tensor's bytes when their turn comes, and their digests once they have been written. */
function streamed(
  stream: TensorStream,
  planned: readonly PlannedTensor[],
  types: readonly DType[],
  container: Container,
  onBytes: (bytes: number) => void,
): { tensors: StreamedTensor[]; digests: Map<string, string> } {
  const digests = new Map<string, string>();
  const tensors = planned.map(({ name, source }, i): StreamedTensor => {
    const dtype = types[i]!;
    const shape = container === 'gguf' ? ggufShape(source.shape) : source.shape;
    const isMarker = elementCount(source.shape) !== elementCount(shape);
    async function* data() {
      const hash = createHash('sha256');
      const pieces = isMarker ? [new Uint8Array(tensorBytes(dtype, shape)!)] : stream.bytes(source, dtype);
      for await (const piece of pieces) {
        hash.update(piece);
        yield piece;
        onBytes(piece.length);
      }
      digests.set(name, hash.digest('hex'));
    }
    return { name, dtype, shape, data };
  });
  return { tensors, digests };
}

/** GGUF knows no scalars and nothing empty: one value stands for them; what is empty means something by being there. */
const ggufShape = (shape: readonly number[]): readonly number[] =>
  shape.length === 0 || shape.includes(0) ? [1] : shape;

/** Found before the work, and not after half an hour of it. */
async function requireSpace(output: string, bytes: number): Promise<void> {
  const disk = await statfs(dirname(resolve(output))).catch(() => undefined);
  // Where nothing is known of it, or it is no disk, writing will say what is wrong.
  if (!disk || disk.blocks === 0 || bytes <= disk.bavail * disk.bsize) return;
  const megabytes = (count: number): string => `${Math.ceil(count / 1e6)} MB`;
  throw new KotobaError(
    'ERR_FILE_WRITE',
    `${output}: cannot write: expected ${megabytes(bytes)} of free disk, got ${megabytes(disk.bavail * disk.bsize)}: ` +
      'free some space or choose another folder',
  );
}
