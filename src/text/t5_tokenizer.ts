// T5's tokenizer: SentencePiece normalisation, then the most probable pieces word by word (arXiv:1804.10959 §3.1);
// the search over pieces is @huggingface/tokenizers' Unigram.
import { KotobaError } from '../errors.js';
import { unigramModel, type UnigramModel } from './hf_models.js';
import { SPACE_MARK, sentencePieceNormalizer } from './sentencepiece_normalizer.js';
import {
  collectWords,
  collectWordsAsync,
  type EncodeAsyncOptions,
  type EncodedText,
  type Tokenizer,
  WordCache,
  type WordSteps,
} from './tokenizer.js';
import type { UnigramVocabulary } from './unigram_vocabulary.js';

export interface T5TokenizerOptions {
  /**
   * What `</s>`, `<pad>`, `<extra_id_0>` in a prompt mean. `text` (default): ordinary characters, as SentencePiece
   * itself reads them. `recognise`: those tokens, as transformers' T5Tokenizer and therefore ComfyUI read them.
   */
  readonly specialTokens?: 'text' | 'recognise';
}

export interface T5Tokenizer extends Tokenizer {
  readonly family: 't5';
  readonly bosId: null;
}

/** SentencePiece's penalty of an unknown character below the least probable piece. */
const UNKNOWN_PENALTY = 10;
/** No well-formed text starts with this, so a piece under this name can never be found in a prompt. */
const UNMATCHABLE = '\udc00';

/** Builds the tokenizer of a vocabulary (0.1 s for 32,000 pieces). It holds no file or native resource. */
export function t5Tokenizer(vocabulary: UnigramVocabulary, options: T5TokenizerOptions = {}): T5Tokenizer {
  return new UnigramTokenizer(vocabulary, options);
}

class UnigramTokenizer implements T5Tokenizer {
  readonly family = 't5';
  readonly bosId = null;
  readonly commaId = null;
  readonly source: string;
  readonly vocabularySize: number;
  readonly eosId: number;
  readonly padId: number;
  readonly #vocabulary: UnigramVocabulary;
  readonly #normalize: (text: string) => string;
  readonly #model: UnigramModel;
  readonly #specials: RegExp | null;
  readonly #splitsAtSpaces: boolean;
  readonly #byteIds: readonly number[] | null;
  readonly #cache = new WordCache();

  constructor(vocabulary: UnigramVocabulary, { specialTokens = 'text' }: T5TokenizerOptions) {
    const { source, pieces, kinds } = vocabulary;
    this.#vocabulary = vocabulary;
    this.source = source;
    this.eosId = vocabulary.eosId;
    this.padId = vocabulary.padId;
    this.vocabularySize = 1 + largest(vocabulary.specials.values(), pieces.length - 1);
    const user = pieces.filter((_, id) => kinds[id] === 'user');
    this.#normalize = sentencePieceNormalizer(vocabulary.normalizer, source, user);
    this.#model = modelOf(vocabulary);
    this.#specials = specialTokens === 'recognise' ? specialsPattern(vocabulary.specials.keys()) : null;
    this.#splitsAtSpaces = canSplitAtSpaces(vocabulary);
    this.#byteIds = byteIds(vocabulary);
  }

  encode(text: string): EncodedText {
    return collectWords(this.#steps(text));
  }

  encodeAsync(text: string, options?: EncodeAsyncOptions): Promise<EncodedText> {
    return collectWordsAsync(this.#steps(text), options);
  }

  piece(id: number): string {
    const piece =
      this.#vocabulary.pieces[id] ??
      [...this.#vocabulary.specials].find(([, special]) => special === id)?.[0];
    if (piece === undefined) {
      throw new KotobaError(
        'ERR_TOKEN_ID',
        `T5 token id: expected 0 to ${this.vocabularySize - 1} but received ${id}`,
      );
    }
    return piece;
  }

  readable(piece: string): string {
    return piece.replaceAll(SPACE_MARK, ' ');
  }

  *#steps(text: string): WordSteps {
    for (const section of this.#specials ? text.split(this.#specials) : [text]) {
      const special = this.#specials ? this.#vocabulary.specials.get(section) : undefined;
      if (special !== undefined) {
        yield { ids: [special], pieces: [section] };
        continue;
      }
      for (const word of this.#words(this.#normalize(section))) {
        yield this.#cache.get(word, (w) => this.#withIds(this.#model.tokenize(w)));
      }
    }
  }

  #words(normalized: string): Iterable<string> {
    if (normalized === '') return [];
    return this.#splitsAtSpaces ? normalized.split(/(?=▁)/) : [normalized];
  }

  /** Neighbouring unknown characters are one unknown token, or their bytes where the vocabulary has bytes. */
  #withIds(found: readonly string[]): EncodedText {
    const out: EncodedText = { ids: [], pieces: [] };
    let unknown: string[] = [];
    for (const piece of [...found, null]) {
      const id = piece === null ? undefined : this.#model.tokens_to_ids.get(piece);
      if (piece !== null && id === undefined) {
        unknown.push(piece);
        continue;
      }
      if (unknown.length > 0) this.#pushUnknown(out, unknown.join(''));
      unknown = [];
      if (piece !== null) {
        out.ids.push(id!);
        out.pieces.push(piece);
      }
    }
    return out;
  }

  #pushUnknown(out: EncodedText, text: string): void {
    if (!this.#byteIds) {
      out.ids.push(this.#vocabulary.unknownId);
      out.pieces.push(text);
      return;
    }
    for (const byte of new TextEncoder().encode(text)) {
      out.ids.push(this.#byteIds[byte]!);
      out.pieces.push(this.#vocabulary.pieces[this.#byteIds[byte]!]!);
    }
  }
}

/** The library's model with every piece that text must not match renamed, so that ids stay positions. */
function modelOf({ pieces, scores, kinds, unknownId }: UnigramVocabulary): UnigramModel {
  let lowest = Infinity;
  let highest = -Infinity;
  for (const [id, kind] of kinds.entries()) {
    if (kind !== 'normal') continue;
    lowest = Math.min(lowest, scores[id]!);
    highest = Math.max(highest, scores[id]!);
  }
  const vocab = pieces.map((piece, id): [string, number] => {
    if (kinds[id] === 'normal') return [piece, scores[id]!];
    if (kinds[id] === 'user') return [piece, new TextEncoder().encode(piece).length * highest - 0.1];
    return [`${UNMATCHABLE}${id}`, lowest];
  });
  const model = unigramModel({ type: 'Unigram', vocab, unk_id: unknownId });
  model.unk_score = lowest - UNKNOWN_PENALTY; // the library would take user pieces into the minimum
  return model;
}

/**
 * Every path through the search passes each "▁" boundary when no piece runs across one, so words can be cut one by
 * one with the same result. "▁" itself must be a piece, or an unknown run could span two words.
 */
function canSplitAtSpaces({ pieces, kinds }: UnigramVocabulary): boolean {
  const crosses = pieces.some(
    (piece, id) => (kinds[id] === 'normal' || kinds[id] === 'user') && piece.lastIndexOf(SPACE_MARK) > 0,
  );
  return !crosses && pieces.some((piece, id) => piece === SPACE_MARK && kinds[id] === 'normal');
}

/** Byte → id when the vocabulary has all 256 byte pieces `<0x00>`…`<0xFF>`. */
function byteIds({ pieces, kinds }: UnigramVocabulary): readonly number[] | null {
  const ids = new Map<string, number>();
  for (const [id, kind] of kinds.entries()) if (kind === 'byte') ids.set(pieces[id]!, id);
  if (ids.size === 0) return null;
  const all = Array.from({ length: 256 }, (_, byte) =>
    ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`),
  );
  return all.every((id) => id !== undefined) ? (all as number[]) : null;
}

function largest(numbers: Iterable<number>, least: number): number {
  let max = least;
  for (const n of numbers) max = Math.max(max, n);
  return max;
}

function specialsPattern(texts: Iterable<string>): RegExp | null {
  const longestFirst = [...texts].filter((text) => text !== '').sort((a, b) => b.length - a.length);
  if (longestFirst.length === 0) return null;
  return new RegExp(`(${longestFirst.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})`);
}
