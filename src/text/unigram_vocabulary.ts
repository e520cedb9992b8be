// One description of a SentencePiece unigram vocabulary, whatever file it came from (arXiv:1808.06226).
import { KotobaError } from '../errors.js';

export type PieceKind = 'normal' | 'unknown' | 'control' | 'user' | 'unused' | 'byte';

/** How text becomes the string that is cut into pieces; SentencePiece's NormalizerSpec. */
export interface NormalizerSpec {
  /** SentencePiece's compiled replacement rules (nmt_nfkc and the like); null is the identity. */
  readonly charsmap: Uint8Array | null;
  /** Put a space before the text, so that a first word looks like any other. */
  readonly addDummyPrefix: boolean;
  readonly removeExtraWhitespaces: boolean;
}

export interface UnigramVocabulary {
  /** The file or metadata it came from, for messages. */
  readonly source: string;
  readonly pieces: readonly string[];
  /** Log probabilities; only those of normal pieces count. */
  readonly scores: readonly number[];
  readonly kinds: readonly PieceKind[];
  readonly unknownId: number;
  readonly eosId: number;
  readonly padId: number;
  readonly normalizer: NormalizerSpec;
  /** Texts that `specialTokens: 'recognise'` reads as one token (`</s>`, `<extra_id_0>`). */
  readonly specials: ReadonlyMap<string, number>;
}

/** More would not fit any T5 (32128 rows; umT5 has 256384); a corrupt count must not allocate without end. */
export const MAX_PIECES = 1_000_000;
/** Files beyond this are no vocabulary. Bytes. */
export const MAX_VOCABULARY_BYTES = 256 * 1024 * 1024;

export function formatError(source: string, problem: string, options?: ErrorOptions): KotobaError {
  return new KotobaError('ERR_TOKENIZER_FORMAT', `T5 vocabulary ${source}: ${problem}`, options);
}

/** @throws ERR_TOKENIZER_FORMAT unless lists agree, ids are in range and some piece has a finite score */
export function checkVocabulary(vocabulary: UnigramVocabulary): UnigramVocabulary {
  const { source, pieces, scores, kinds } = vocabulary;
  if (pieces.length === 0) throw formatError(source, 'expected pieces but found none');
  if (pieces.length > MAX_PIECES)
    throw formatError(source, `expected at most ${MAX_PIECES} pieces but found ${pieces.length}`);
  if (scores.length !== pieces.length || kinds.length !== pieces.length) {
    throw formatError(
      source,
      `expected as many scores and types as pieces (${pieces.length}) but found ${scores.length} and ${kinds.length}`,
    );
  }
  for (const [name, id] of [
    ['unknown', vocabulary.unknownId],
    ['end', vocabulary.eosId],
    ['padding', vocabulary.padId],
  ] as const) {
    if (!Number.isInteger(id) || id < 0 || id >= pieces.length) {
      throw formatError(source, `expected the ${name} token's id below ${pieces.length} but found ${id}`);
    }
  }
  checkScores(vocabulary);
  return vocabulary;
}

function checkScores({ source, pieces, scores, kinds }: UnigramVocabulary): void {
  let normal = 0;
  for (const [id, kind] of kinds.entries()) {
    if (kind !== 'normal' && kind !== 'user') continue;
    if (pieces[id] === '') throw formatError(source, `piece ${id} is empty`);
    if (kind === 'user') continue;
    normal++;
    if (!Number.isFinite(scores[id]))
      throw formatError(source, `piece ${id} "${pieces[id]}" has the score ${scores[id]}`);
  }
  if (normal === 0) throw formatError(source, 'expected ordinary pieces but found only special ones');
}
