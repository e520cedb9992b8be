/** A T5 encoder as llama.cpp's converter writes it: architecture "t5encoder", its names, its vocabulary inside. */
import { KotobaError } from '../errors.js';
import { blockWeights, type DType } from './dtype.js';
import { llamaCppNames } from './names/t5.js';
import type { T5Config, T5Part, TensorSource } from './part.js';
import { quantize } from './quantize.js';
import type { QuantizedType } from './quantize.js';
import { readFloats } from './read.js';
import { writeGguf } from './write_gguf.js';
import type { StreamedTensor } from './write.js';
import type { GgufValue } from './write_gguf.js';

/** A Unigram vocabulary; text/'s UnigramVocabulary is one. */
export interface UnigramPieces {
  readonly pieces: readonly string[];
  readonly scores: readonly number[];
  readonly kinds: readonly ('normal' | 'unknown' | 'control' | 'user' | 'unused' | 'byte')[];
  readonly unknownId: number;
  readonly eosId: number;
  readonly padId: number;
  readonly normalizer: {
    readonly charsmap: Uint8Array | null;
    readonly addDummyPrefix: boolean;
    readonly removeExtraWhitespaces: boolean;
  };
}

/** llama.cpp's token types */
const kTokenTypes = { normal: 1, unknown: 2, control: 3, user: 4, unused: 5, byte: 6 } as const;
/** llama.cpp's file types: which type most of a file's weights have. */
export const GGUF_FILE_TYPES: Readonly<Partial<Record<DType, number>>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q8_0: 7,
  Q5_0: 8,
  Q5_1: 9,
  Q2_K: 10,
  Q3_K: 12,
  Q4_K: 15,
  Q5_K: 17,
  Q6_K: 18,
  IQ4_NL: 25,
  IQ4_XS: 30,
  BF16: 32,
};
/** What T5 was trained with; nothing here needs it, llama.cpp does. */
const kContextLength = 512;
/** values decoded at once */
const kChunk = 1 << 20;

/**
 * @param type of the matrices and the embedding; rows that are no whole blocks become F16; norms and the relative bias
 *   are F32
 * @throws KotobaError ERR_FILE_WRITE, ERR_FILE_READ; ERR_ARGUMENT for a quantised source, or a config or vocabulary that
 *   such a file cannot tell
 */
export async function writeT5Gguf(
  part: T5Part,
  path: string,
  type: QuantizedType,
  tokenizer: UnigramPieces,
): Promise<void> {
  const { config } = part;
  const names = llamaCppNames(config.num_layers, config.is_gated_act);
  const tensors = [...part.tensors].map(([canonical, source]) =>
    toGguf(path, names.get(canonical)!, source, storedType(canonical, source, type)),
  );
  await writeGguf(path, t5GgufMetadata(path, config, type, tokenizer), tensors);
}

/**
 * What llama.cpp and its kin want to know of a T5 encoder.
 * @param type of most weights
 * @throws KotobaError ERR_ARGUMENT for a config or vocabulary that such a file cannot tell
 */
export function t5GgufMetadata(
  path: string,
  config: T5Config,
  type: DType,
  tokenizer: UnigramPieces,
): Map<string, GgufValue> {
  return new Map([...hyperparameters(path, config, type), ...vocabulary(path, config, tokenizer)]);
}

function storedType(canonical: string, { shape }: TensorSource, type: QuantizedType): QuantizedType {
  if (shape.length < 2 || canonical.includes('relative_attention_bias')) return 'F32';
  return shape.at(-1)! % blockWeights(type) === 0 ? type : 'F16';
}

function toGguf(path: string, name: string, source: TensorSource, dtype: QuantizedType): StreamedTensor {
  const { tensor, shape, scale, rows, append, transposed } = source;
  if (scale ?? rows ?? append ?? transposed)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${path}: ${tensor.name} is scaled or put together of pieces: not supported`,
    );
  const height = shape.length < 2 ? 1 : shape[0]!;
  const width = shape.reduce((a, b) => a * b, 1) / height;
  const step = Math.max(1, Math.floor(kChunk / width));
  function* data(): Generator<Uint8Array> {
    for (let row = 0; row < height; row += step)
      yield quantize(readFloats(tensor, row * width, Math.min(row + step, height) * width), dtype);
  }
  return { name, dtype, shape, data };
}

function hyperparameters(path: string, config: T5Config, type: DType): [string, GgufValue][] {
  const {
    relative_attention_max_distance: distance,
    is_gated_act: isGated,
    dense_act_fn: activation,
  } = config;
  if (distance !== 128 || activation !== (isGated ? 'gelu_new' : 'relu'))
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${path}: a GGUF cannot tell relative_attention_max_distance ${distance} with ${activation}: ` +
        `expected 128 and ${isGated ? 'gelu_new' : 'relu'}`,
    );
  const own: [string, GgufValue][] = [
    ['context_length', ['U32', kContextLength]],
    ['embedding_length', ['U32', config.d_model]],
    ['feed_forward_length', ['U32', config.d_ff]],
    ['block_count', ['U32', config.num_layers]],
    ['attention.head_count', ['U32', config.num_heads]],
    ['attention.key_length', ['U32', config.d_kv]],
    ['attention.value_length', ['U32', config.d_kv]],
    ['attention.layer_norm_epsilon', ['F32', config.layer_norm_epsilon]],
    ['attention.relative_buckets_count', ['U32', config.relative_attention_num_buckets]],
    ['attention.layer_norm_rms_epsilon', ['F32', config.layer_norm_epsilon]],
  ];
  return [
    ['general.architecture', ['STRING', 't5encoder']],
    ['general.file_type', ['U32', GGUF_FILE_TYPES[type]!]],
    ['general.quantization_version', ['U32', 2]],
    ...own.map(([key, value]): [string, GgufValue] => [`t5encoder.${key}`, value]),
  ];
}

/** The embedding may have more rows than there are pieces: llama.cpp fills them up with unused ones. */
function vocabulary(
  path: string,
  { vocab_size: rows }: T5Config,
  tokenizer: UnigramPieces,
): [string, GgufValue][] {
  const { pieces, scores, kinds, normalizer } = tokenizer;
  if (pieces.length > rows)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${path}: the vocabulary has ${pieces.length} pieces, but the embedding only ${rows} rows: it is another T5's`,
    );
  const unused = Array.from({ length: rows - pieces.length }, (_, i) => `[PAD${pieces.length + i}]`);
  const own: [string, GgufValue][] = [
    ['model', ['STRING', 't5']],
    ['pre', ['STRING', 'default']],
    ['tokens', ['ARRAY', 'STRING', [...pieces, ...unused]]],
    ['scores', ['ARRAY', 'F32', [...scores, ...unused.map(() => -1000)]]],
    [
      'token_type',
      ['ARRAY', 'I32', [...kinds.map((kind) => kTokenTypes[kind]), ...unused.map(() => kTokenTypes.unused)]],
    ],
    ['add_space_prefix', ['BOOL', normalizer.addDummyPrefix]],
    ['remove_extra_whitespaces', ['BOOL', normalizer.removeExtraWhitespaces]],
    ...(normalizer.charsmap
      ? [['precompiled_charsmap', ['ARRAY', 'U8', normalizer.charsmap]] as [string, GgufValue]]
      : []),
    ['eos_token_id', ['U32', tokenizer.eosId]],
    ['unknown_token_id', ['U32', tokenizer.unknownId]],
    ['padding_token_id', ['U32', tokenizer.padId]],
    ['add_bos_token', ['BOOL', false]],
    ['add_eos_token', ['BOOL', true]],
  ];
  return own.map(([key, value]) => [`tokenizer.ggml.${key}`, value]);
}
