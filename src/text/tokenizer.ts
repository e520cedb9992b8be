// What CLIP's and T5's tokenizers have in common: text in, ids without any BOS, EOS or padding out.
// Framing, padding, truncation and chunks are chunks.ts.
import { KotobaError } from '../errors.js';

/** Ids and the vocabulary's own spelling of each, in parallel. No BOS, EOS or padding. */
export interface EncodedText {
  readonly ids: number[];
  readonly pieces: string[];
}

export interface EncodeAsyncOptions {
  readonly signal?: AbortSignal;
  /** How long one turn may hold the thread before others get theirs, milliseconds. Default 5. */
  readonly sliceMs?: number;
}

export interface Tokenizer {
  readonly family: 'clip' | 't5';
  /** Where the vocabulary came from, for messages. */
  readonly source: string;
  /** Number of ids: every id is below it. The embedding table may have more rows (T5: 32128 for 32100). */
  readonly vocabularySize: number;
  /** CLIP's start token; T5 has none. */
  readonly bosId: number | null;
  readonly eosId: number;
  /** The vocabulary's own padding id; what a model really pads with is a choice of chunks.ts. */
  readonly padId: number;
  /** CLIP's comma as a word of its own, for A1111's chunk rule; null in T5. */
  readonly commaId: number | null;
  /** Never throws for any string: lone surrogates are read as U+FFFD. */
  encode(text: string): EncodedText;
  /**
   * Same result as `encode`, giving the thread back every few milliseconds. Words are independent of each other
   * in both models, so nothing changes; a single word of 100,000 characters is still one step.
   * @throws ERR_CANCELLED when the signal fires
   */
  encodeAsync(text: string, options?: EncodeAsyncOptions): Promise<EncodedText>;
  /** The vocabulary's spelling of an id (`cat</w>`, `▁cat`). @throws ERR_TOKEN_ID */
  piece(id: number): string;
  /** A piece as a person reads it: `cat`, ` cat`, or `<0xF0><0x9F>` for bytes that are no text. */
  readable(piece: string): string;
}

/** Ids and pieces of one word, in parallel. */
export interface EncodedWord {
  readonly ids: readonly number[];
  readonly pieces: readonly string[];
}

/** The independent steps of a tokenizer, a word each. */
export type WordSteps = Iterable<EncodedWord>;

/**
 * Words seen before: prompts repeat them, and the searches cost 10 to 100 times a look-up. Emptied when full rather
 * than ordered by use, which costs a Map of this size more than it saves.
 */
export class WordCache {
  static readonly #capacity = 10_000;
  static readonly #longestWord = 64;
  readonly #words = new Map<string, EncodedWord>();

  get(word: string, encode: (word: string) => EncodedWord): EncodedWord {
    const cached = this.#words.get(word);
    if (cached) return cached;
    const encoded = encode(word);
    if (word.length <= WordCache.#longestWord) {
      if (this.#words.size >= WordCache.#capacity) this.#words.clear();
      this.#words.set(word, encoded);
    }
    return encoded;
  }
}

export function collectWords(words: WordSteps): EncodedText {
  const out: EncodedText = { ids: [], pieces: [] };
  for (const word of words) append(out, word);
  return out;
}

export async function collectWordsAsync(
  words: WordSteps,
  { signal, sliceMs = 5 }: EncodeAsyncOptions = {},
): Promise<EncodedText> {
  const out: EncodedText = { ids: [], pieces: [] };
  let sliceStart = performance.now();
  for (const word of words) {
    append(out, word);
    if (performance.now() - sliceStart < sliceMs) continue;
    await new Promise<void>((resume) => setImmediate(resume));
    throwIfCancelled(signal);
    sliceStart = performance.now();
  }
  throwIfCancelled(signal);
  return out;
}

// A loop, not push(...): a word of 200,000 tokens would overflow the stack.
function append(out: EncodedText, word: EncodedWord): void {
  for (const id of word.ids) out.ids.push(id);
  for (const piece of word.pieces) out.pieces.push(piece);
}

function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new KotobaError('ERR_CANCELLED', 'tokenizing was cancelled', { cause: signal.reason });
  }
}
