/**
 * Makes one model file of another: shards merged, one network taken out, encoders put back, types changed, weights
 * quantised. Tensors pass through in pieces of some megabytes, and the file gets its name only when what was written has
 * been read again.
 */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { extname, resolve } from 'node:path';
import type { CheckFile } from '../atomic_file.js';
import { KotobaError } from '../errors.js';
import {
  blockWeights,
  GGUF_FILE_TYPES,
  openModel,
  selectPart,
  streamSafetensors,
  t5GgufMetadata,
  tensorBytes,
  writeGguf,
  type Container,
  type DType,
  type GgufValue,
  type ModelFile,
  type Part,
  type Slot,
  type StreamedTensor,
  type UnigramPieces,
} from '../formats/index.js';
import type { Device } from '../runtime/device.js';
import { onePart, wholeFile, withReplaced, type PlannedTensor } from './plan.js';
import { TensorStream } from '../runtime/tensor_stream.js';
import { typeOf, type TypeRule, type WrittenType } from './types.js';

export interface ConvertOptions {
  /** Only this network, under the names of its reference. */
  readonly extract?: Slot | undefined;
  /** Of all weights; absent: each keeps its own. Quantised types are for GGUF files. */
  readonly type?: WrittenType | undefined;
  /** By name, over `type`; the first that matches counts. */
  readonly rules?: readonly TypeRule[] | undefined;
  /** Networks of other files in the place of the input's own. */
  readonly replace?: readonly { readonly slot: Slot; readonly part: Part }[] | undefined;
  /** What the input does not tell, for `extract`. */
  readonly config?: Readonly<Record<string, unknown>> | undefined;
  /** A T5's, which a GGUF of it carries. */
  readonly vocabulary?: UnigramPieces | undefined;
  readonly signal?: AbortSignal | undefined;
  /** @param bytes written so far */
  readonly onProgress?: ((bytes: number, total: number) => void) | undefined;
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
 * @throws KotobaError ERR_ARGUMENT for what cannot be written so; ERR_MODEL_… as loading does; ERR_FILE_READ,
 *   ERR_FILE_WRITE, ERR_CANCELLED: the output is then as it was before
 */
export async function convertModel(
  device: Device,
  input: ModelFile,
  output: string,
  options: ConvertOptions = {},
): Promise<Converted> {
  const container = containerOf(output);
  const part =
    options.extract &&
    selectPart(input, { slot: options.extract, config: options.config, allowUndecided: true });
  const planned = plan(input, part, container, options);
  const types = planned.map(({ name, source }) => {
    const type = typeOf(name, source, options.type, options.rules ?? [], container);
    if (container === 'safetensors' && blockWeights(type) > 1)
      throw new KotobaError('ERR_ARGUMENT', `${output}: safetensors hold no ${type}: write a .gguf file`);
    return type;
  });
  using stream = new TensorStream(device, options.signal);
  const total = planned.reduce((sum, { source }, i) => sum + tensorBytes(types[i]!, source.shape)!, 0);
  const digests = new Map<string, string>();
  let written = 0;
  const tensors = planned.map(({ name, source }, i): StreamedTensor => ({
    name,
    dtype: types[i]!,
    shape: source.shape,
    data: async function* () {
      const hash = createHash('sha256');
      for await (const piece of stream.bytes(source, types[i]!)) {
        hash.update(piece);
        yield piece;
        options.onProgress?.((written += piece.length), total);
      }
      digests.set(name, hash.digest('hex'));
    },
  }));
  const check: CheckFile = (path) => checkWritten(path, tensors, digests, part?.slot);
  if (container === 'gguf')
    await writeGguf(output, ggufMetadata(output, part, types, options), tensors, check);
  else await streamSafetensors(output, tensors, safetensorsMetadata(input, part), check);
  return {
    container,
    bytes: total,
    tensors: tensors.map(({ name, dtype }, i) => ({ name, dtype, from: planned[i]!.source.tensor.dtype })),
  };
}

function containerOf(output: string): Container {
  const kinds: Readonly<Record<string, Container>> = { '.safetensors': 'safetensors', '.gguf': 'gguf' };
  const container = kinds[extname(output).toLowerCase()];
  if (!container)
    throw new KotobaError('ERR_ARGUMENT', `${output}: expected a name that ends in .safetensors or .gguf`);
  return container;
}

function plan(
  input: ModelFile,
  part: Part | undefined,
  container: Container,
  { type, replace = [] }: ConvertOptions,
): PlannedTensor[] {
  if (part) {
    if (replace.length > 0)
      throw new KotobaError(
        'ERR_ARGUMENT',
        'convert: expected either a network to extract or networks to replace',
      );
    return onePart(part, container);
  }
  const replacements = replace.map(({ slot, part: by }) => ({
    old: selectPart(input, { slot, allowUndecided: true }),
    by,
  }));
  return withReplaced(wholeFile(input, type !== undefined), replacements);
}

/** The type that most weights have. */
function mainType(types: readonly DType[]): DType {
  const counts = new Map<DType, number>();
  for (const type of types) counts.set(type, (counts.get(type) ?? 0) + 1);
  const quantised = [...counts].filter(([type]) => blockWeights(type) > 1);
  return [...(quantised.length > 0 ? quantised : counts)].sort((a, b) => b[1] - a[1])[0]![0];
}

function ggufMetadata(
  output: string,
  part: Part | undefined,
  types: readonly DType[],
  { vocabulary, type }: ConvertOptions,
): Map<string, GgufValue> {
  const main = type ?? mainType(types);
  if (part?.family === 't5') {
    if (!vocabulary)
      throw new KotobaError(
        'ERR_TOKENIZER_MISSING',
        `${output}: a GGUF of a T5 carries its vocabulary: give its tokenizer.json or spiece.model`,
      );
    return t5GgufMetadata(output, part.config, main, vocabulary);
  }
  return new Map<string, GgufValue>([
    ['general.architecture', ['STRING', part?.family ?? 'checkpoint']],
    ['general.file_type', ['U32', GGUF_FILE_TYPES[main] ?? 0]],
    ['general.quantization_version', ['U32', 2]],
    ...(part ? [['config', ['STRING', configText(part)]] as [string, GgufValue]] : []),
  ]);
}

/** What is known of it, for the next reader. */
function configText({ config, undecided }: Part): string {
  const decided = Object.entries(config).filter(([key, value]) => !undecided.includes(key) && value !== '');
  return JSON.stringify(Object.fromEntries(decided));
}

function safetensorsMetadata(input: ModelFile, part: Part | undefined): Record<string, string> {
  if (part) return { format: 'pt', config: configText(part) };
  const strings = [...input.metadata].filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string' && !entry[0].includes('/'),
  );
  return { format: 'pt', ...Object.fromEntries(input.container === 'safetensors' ? strings : []) };
}

/** Opens what was written as any other file, and reads every byte again. */
async function checkWritten(
  path: string,
  tensors: readonly StreamedTensor[],
  digests: ReadonlyMap<string, string>,
  slot: Slot | undefined,
): Promise<void> {
  const fail = (what: string): never => {
    throw new KotobaError('ERR_FILE_WRITE', `${path}: what was written reads back differently: ${what}`);
  };
  const model = openModel(path);
  if (model.tensors.size !== tensors.length) fail(`${model.tensors.size} of ${tensors.length} tensors`);
  const file = await open(resolve(path));
  try {
    for (const { name, dtype, shape } of tensors) {
      const info = model.tensors.get(name) ?? fail(`${name} is missing`);
      if (info.dtype !== dtype || info.shape.join() !== shape.join())
        fail(`${name} is ${info.dtype} [${info.shape.join(', ')}]`);
      const hash = createHash('sha256');
      const chunk = Buffer.allocUnsafe(Math.min(info.bytes, 8 << 20));
      for (let at = 0; at < info.bytes;) {
        const wanted = Math.min(chunk.length, info.bytes - at);
        const { bytesRead } = await file.read(chunk, 0, wanted, info.offset + at);
        if (bytesRead === 0) fail(`${name} ends early`);
        hash.update(chunk.subarray(0, bytesRead));
        at += bytesRead;
      }
      if (hash.digest('hex') !== digests.get(name)) fail(`${name} holds other bytes`);
    }
  } finally {
    await file.close();
  }
  if (slot) selectPart(model, { slot, allowUndecided: true });
}
