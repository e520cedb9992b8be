// SentencePiece's precompiled replacement rules: a double-array trie (Darts-clone) over UTF-8 bytes whose leaves are
// offsets of NUL-terminated replacement texts. Layout: u32 trie bytes, trie of u32 units, texts.
import { formatError } from './unigram_vocabulary.js';

export interface Replacement {
  /** Bytes of input it replaces. */
  readonly length: number;
  readonly text: Uint8Array;
}

/** The longest rule that matches at a position, or null. */
export type Charsmap = (bytes: Uint8Array, at: number) => Replacement | null;

// A unit: bit 31 marks a leaf's value; bits 0–7 are the byte that led here; bit 8 says a value hangs below;
// bits 10–30 are the jump to the children, times 256 when bit 9 is set.
const LEAF_MASK = 0x7fffffff;
const LABEL_MASK = 0x800000ff;

/** @throws ERR_TOKENIZER_FORMAT when sizes do not add up; a broken inner link is found, and thrown, when met */
export function parseCharsmap(blob: Uint8Array, source: string): Charsmap {
  const broken = (problem: string) => formatError(source, `normalisation table: ${problem}`);
  if (blob.length < 8) throw broken(`expected at least 8 bytes but found ${blob.length}`);
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  const trieBytes = view.getUint32(0, true);
  if (trieBytes === 0 || trieBytes % 4 !== 0 || 4 + trieBytes > blob.length) {
    throw broken(`expected a trie within ${blob.length} bytes but its size is given as ${trieBytes}`);
  }
  const units = Uint32Array.from({ length: trieBytes / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  const texts = blob.subarray(4 + trieBytes);
  if (texts.length > 0 && texts.at(-1) !== 0) throw broken('its last replacement text is cut off');

  const unit = (index: number): number => {
    if (index >= units.length) throw broken(`a link points to unit ${index} of ${units.length}`);
    return units[index]!;
  };
  return (bytes, at) => {
    let node = jump(unit(0));
    let leaf = -1;
    let length = 0;
    for (let i = at; i < bytes.length; i++) {
      node ^= bytes[i]!;
      const current = unit(node >>> 0);
      if ((current & LABEL_MASK) >>> 0 !== bytes[i]) break;
      node ^= jump(current);
      if ((current >>> 8) & 1) {
        leaf = unit(node >>> 0) & LEAF_MASK;
        length = i + 1 - at;
      }
    }
    if (leaf < 0) return null;
    if (leaf >= texts.length) throw broken(`a rule points to text ${leaf} of ${texts.length} bytes`);
    return { length, text: texts.subarray(leaf, texts.indexOf(0, leaf)) };
  };
}

function jump(unit: number): number {
  return (unit >>> 10) << ((unit & (1 << 9)) >>> 6);
}
