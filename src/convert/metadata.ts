/** What a converted file tells beside its tensors. */
import { KotobaError } from '../errors.js';
import {
  isDenoiser,
  blockWeights,
  GGUF_FILE_TYPES,
  t5GgufMetadata,
  type DType,
  type GgufValue,
  type ModelFile,
  type Part,
  type UnigramPieces,
} from '../formats/index.js';

/** The names by which programs that read GGUF files of image models know them; SD2 goes by SD1's. */
const ARCHITECTURES: Readonly<Partial<Record<Part['family'], string>>> = {
  flux: 'flux',
  sd1: 'sd1',
  sd2: 'sd1',
  sdxl: 'sdxl',
  sd3: 'sd3',
  clip: 'clip',
};

export interface GgufContents {
  readonly output: string;
  /** where the file is one network only */
  readonly part: Part | undefined;
  /** what the input holds */
  readonly parts: readonly Part[];
  readonly types: readonly DType[];
  /** what the user asked for */
  readonly type: DType | undefined;
  readonly vocabulary: UnigramPieces | undefined;
}

/** @throws KotobaError ERR_TOKENIZER_MISSING for a T5 without vocabulary; ERR_ARGUMENT for one that no GGUF can tell */
export function ggufMetadata(contents: GgufContents): Map<string, GgufValue> {
  const { output, part, parts, types, type, vocabulary } = contents;
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
    ['general.architecture', ['STRING', architectureOf(part ? [part] : parts)]],
    ['general.file_type', ['U32', GGUF_FILE_TYPES[main] ?? 0]],
    ['general.quantization_version', ['U32', 2]],
    ...(part ? [['config', ['STRING', configText(part)]] as [string, GgufValue]] : []),
  ]);
}

/** Of several networks the denoiser's: programs that want nothing else of a checkpoint look for that. */
function architectureOf(parts: readonly Part[]): string {
  const denoiser = parts.find(isDenoiser);
  const main = denoiser ?? (parts.length === 1 ? parts[0] : undefined);
  if (main?.slot === 'vae') return 'vae';
  return (main && ARCHITECTURES[main.family]) ?? 'checkpoint';
}

/** The type that most weights have. */
function mainType(types: readonly DType[]): DType {
  const counts = new Map<DType, number>();
  for (const type of types) counts.set(type, (counts.get(type) ?? 0) + 1);
  const quantised = [...counts].filter(([type]) => blockWeights(type) > 1);
  return [...(quantised.length > 0 ? quantised : counts)].sort((a, b) => b[1] - a[1])[0]![0];
}

/**
 * What is known of it, for the next reader. What was only assumed of an autoencoder without its model, another would know
 * better.
 */
function configText(part: Part): string {
  const { config, undecided } = part;
  const assumed = part.slot === 'vae' && part.factors === 'assumed' ? ['scale_factor', 'shift_factor'] : [];
  // By `num_heads` a user decides the `heads` of every level of a UNet.
  const heads = undecided.includes('num_heads') ? ['heads'] : [];
  const unknown = [...undecided, ...heads, ...assumed];
  // A UNet's layout follows from its tensors.
  const known = Object.entries(config).filter(
    ([key, value]) => !unknown.includes(key) && value !== '' && key !== 'layout',
  );
  return JSON.stringify(Object.fromEntries(known));
}

/** Hashes are those of the file that was, and the list of FP8 layers of weights that may have gone. */
const STALE = /hash|^_quantization_metadata$/;

/** @param tensors names in the new file */
export function safetensorsMetadata(
  input: ModelFile,
  part: Part | undefined,
  tensors: ReadonlySet<string>,
): Record<string, string> {
  if (part) return { format: 'pt', config: configText(part) };
  if (input.container !== 'safetensors') return { format: 'pt' };
  const strings = [...input.metadata].filter(
    (entry): entry is [string, string] =>
      typeof entry[1] === 'string' && !entry[0].includes('/') && !STALE.test(entry[0]),
  );
  const layers = scaledLayers(input, tensors);
  return {
    format: 'pt',
    ...Object.fromEntries(strings),
    ...(layers && { _quantization_metadata: JSON.stringify(layers) }),
  };
}

/** `_quantization_metadata`, of the layers whose scales are still there. */
function scaledLayers(input: ModelFile, tensors: ReadonlySet<string>): object | undefined {
  const text = input.metadata.get('_quantization_metadata');
  if (typeof text !== 'string') return undefined;
  let stated: { readonly layers?: Readonly<Record<string, unknown>> } | null;
  try {
    stated = JSON.parse(text) as typeof stated;
  } catch {
    return undefined; // no reader understood it before
  }
  const layers = Object.entries(stated?.layers ?? {}).filter(([layer]) =>
    [`${layer}.weight_scale`, `${layer}.scale_weight`].some((name) => tensors.has(name)),
  );
  return layers.length > 0 ? { ...stated, layers: Object.fromEntries(layers) } : undefined;
}
