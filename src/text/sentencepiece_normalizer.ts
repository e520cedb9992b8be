// Text → the string a unigram model cuts into pieces: replacement rules, one space between words, "▁" for a space.
import { parseCharsmap } from './charsmap.js';
import type { NormalizerSpec } from './unigram_vocabulary.js';

/** U+2581, which stands for a space inside pieces. */
export const SPACE_MARK = '▁';

const SPACE = 0x20;
const SPACE_MARK_BYTES = [0xe2, 0x96, 0x81] as const;
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/**
 * @param protectedPieces user-defined pieces, which no rule may change
 * @throws ERR_TOKENIZER_FORMAT for a damaged table
 */
export function sentencePieceNormalizer(
  spec: NormalizerSpec,
  source: string,
  protectedPieces: readonly string[] = [],
): (text: string) => string {
  const charsmap = spec.charsmap && spec.charsmap.length > 0 ? parseCharsmap(spec.charsmap, source) : null;
  const guarded = protectedPieces.map((piece) => encoder.encode(piece)).sort((a, b) => b.length - a.length);
  return (text) => {
    const input = encoder.encode(text); // lone surrogates become U+FFFD
    const out = new SpacedBytes(input.length, spec);
    for (let at = 0; at < input.length;) {
      const kept = guarded.find((piece) => startsWith(input, piece, at));
      const rule = kept ? { length: kept.length, text: kept } : charsmap?.(input, at);
      const length = rule?.length ?? utf8Length(input[at]!);
      out.append(rule?.text ?? input.subarray(at, at + length));
      at += length;
    }
    return out.finish();
  };
}

/** Output bytes with the white-space rules applied as they arrive. */
class SpacedBytes {
  #bytes: Uint8Array;
  #length = 0;
  #afterSpace: boolean;
  readonly #spec: NormalizerSpec;

  constructor(inputLength: number, spec: NormalizerSpec) {
    this.#bytes = new Uint8Array(inputLength * 2 + 16);
    this.#spec = spec;
    this.#afterSpace = spec.removeExtraWhitespaces;
  }

  append(text: Uint8Array): void {
    let start = 0;
    while (this.#afterSpace && text[start] === SPACE) start++;
    if (this.#length === 0 && this.#spec.addDummyPrefix) this.#pushSpaceMark(); // finish() takes a lone one off
    for (let i = start; i < text.length; i++) {
      if (text[i] === SPACE) this.#pushSpaceMark();
      else this.#push(text[i]!);
    }
    if (start < text.length) this.#afterSpace = this.#spec.removeExtraWhitespaces && text.at(-1) === SPACE;
  }

  finish(): string {
    let end = this.#length;
    if (this.#spec.removeExtraWhitespaces) {
      while (end >= 3 && SPACE_MARK_BYTES.every((byte, i) => this.#bytes[end - 3 + i] === byte)) end -= 3;
    }
    return decoder.decode(this.#bytes.subarray(0, end));
  }

  #pushSpaceMark(): void {
    for (const byte of SPACE_MARK_BYTES) this.#push(byte);
  }

  #push(byte: number): void {
    if (this.#length === this.#bytes.length) {
      const grown = new Uint8Array(this.#bytes.length * 2);
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes[this.#length++] = byte;
  }
}

function startsWith(input: Uint8Array, piece: Uint8Array, at: number): boolean {
  if (at + piece.length > input.length) return false;
  for (let i = 0; i < piece.length; i++) if (input[at + i] !== piece[i]) return false;
  return true;
}

function utf8Length(lead: number): number {
  return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}
