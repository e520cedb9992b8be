/** What a GGUF of a T5 encoder tells beside its weights, as llama.cpp's converter writes it: sizes and vocabulary. */
import { KotobaError } from '../errors.js';
import type { DType } from './dtype.js';
import type { T5Config } from './part.js';
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
