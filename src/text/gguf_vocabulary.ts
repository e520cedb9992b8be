// The T5 vocabulary that llama.cpp's converter writes into a GGUF file's own metadata (`tokenizer.ggml.*`).
import { KotobaError } from '../errors.js';
import {
  checkVocabulary,
  formatError,
  MAX_PIECES,
  type PieceKind,
  type UnigramVocabulary,
} from './unigram_vocabulary.js';

/** A Map of GGUF metadata, or anything that reads like one. */
export interface GgufMetadata {
  get(key: string): unknown;
}

// llama.cpp's token types. Type 4 holds tokens that Hugging Face adds (<extra_id_0>), not SentencePiece's own user
// pieces, so they are matched only when special tokens are to be recognised.
const KINDS: readonly (PieceKind | undefined)[] = [
  'unused',
  'normal',
  'unknown',
  'control',
  'control',
  'unused',
  'byte',
];

/** Does this file carry a vocabulary that readGgufVocabulary takes? Many T5 GGUF files for ComfyUI carry none. */
export function hasGgufT5Vocabulary(metadata: GgufMetadata): boolean {
  return metadata.get('tokenizer.ggml.model') === 't5' && metadata.get('tokenizer.ggml.tokens') !== undefined;
}

/**
 * @throws ERR_TOKENIZER_MISSING without `tokenizer.ggml.model`, ERR_TOKENIZER_FORMAT for another model's or damaged
 *   metadata
 */
export function readGgufVocabulary(metadata: GgufMetadata, source: string): UnigramVocabulary {
  const get = (key: string) => metadata.get(`tokenizer.ggml.${key}`);
  const model = get('model');
  if (model === undefined)
    throw new KotobaError('ERR_TOKENIZER_MISSING', `${source} has no tokenizer.ggml.model metadata`);
  if (model !== 't5')
    throw formatError(
      source,
      `expected tokenizer.ggml.model "t5" but found ${JSON.stringify(model)?.slice(0, 40)}`,
    );
  const pieces = list(get('tokens'), 'tokens', source).map((piece, id) => {
    if (typeof piece !== 'string') throw formatError(source, `expected token ${id} to be text`);
    return piece;
  });
  const scores = list(get('scores'), 'scores', source).map(Number);
  const unknownId = integer(get('unknown_token_id'), pieces.indexOf('<unk>'));
  const eosId = integer(get('eos_token_id'), pieces.indexOf('</s>'));
  const padId = integer(get('padding_token_id'), Math.max(0, pieces.indexOf('<pad>')));
  const types = get('token_type');
  const kinds =
    types === undefined
      ? pieces.map((_, id): PieceKind =>
          id === unknownId ? 'unknown' : id === eosId || id === padId ? 'control' : 'normal',
        )
      : list(types, 'token_type', source).map((type, id) => kindOf(Number(type), id, source));
  return checkVocabulary({
    source,
    pieces,
    scores,
    kinds,
    unknownId,
    eosId,
    padId,
    normalizer: {
      charsmap: charsmapBytes(get('precompiled_charsmap'), source),
      addDummyPrefix: flag(get('add_space_prefix')),
      removeExtraWhitespaces: flag(get('remove_extra_whitespaces')),
    },
    specials: new Map(
      pieces.flatMap((piece, id) =>
        kinds[id] === 'control' || kinds[id] === 'unknown' ? [[piece, id]] : [],
      ),
    ),
  });
}

function kindOf(type: number, id: number, source: string): PieceKind {
  const kind = KINDS[type];
  if (!kind) throw formatError(source, `token ${id} has the unknown type ${type}`);
  return kind;
}

function list(value: unknown, key: string, source: string): unknown[] {
  const isList = Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
  const length = isList ? (value as ArrayLike<unknown>).length : -1;
  if (length < 0 || length > MAX_PIECES) {
    throw formatError(
      source,
      `expected tokenizer.ggml.${key} to be a list of at most ${MAX_PIECES} entries but found ${length < 0 ? typeof value : `${length}`}`,
    );
  }
  return Array.from(value as ArrayLike<unknown>);
}

function integer(value: unknown, fallback: number): number {
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) : fallback;
}

/** Absent flags are true: SentencePiece's own defaults, which T5 keeps. */
function flag(value: unknown): boolean {
  return value === undefined ? true : Boolean(value);
}

/** Stored as an array of (un)signed bytes. */
function charsmapBytes(value: unknown, source: string): Uint8Array | null {
  if (value === undefined) return null;
  if (!Array.isArray(value) && !ArrayBuffer.isView(value))
    throw formatError(source, 'expected precompiled_charsmap to be bytes');
  const bytes = Uint8Array.from(value as unknown as ArrayLike<number>, Number);
  return bytes.length === 0 ? null : bytes;
}
