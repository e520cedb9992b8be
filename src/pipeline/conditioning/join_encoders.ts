/**
 * States of several text encoders → one context for the denoiser.
 *
 * Encoders side by side (CLIP-L ⊕ CLIP-G) need equally many rows, but a prompt may fill several chunks of one and a single
 * longer chunk of the other: Long-CLIP-L takes 248 tokens at once, CLIP-G 77. The rule, by which nothing of the prompt
 * is lost:
 *
 * 1. needed = the most rows that any encoder's content takes, up to the end-of-text of its last chunk.
 * 2. Each encoder is followed by chunks of the empty prompt until it has that many rows, as ComfyUI and A1111 fill up the
 *    shorter of two prompts.
 * 3. All are cut to the shortest, as ComfyUI does. It has the needed rows at least, so this cuts padding only.
 *
 * Chunks of one length and number are joined as they are. A short prompt with Long-CLIP-L and CLIP-G gives 77 rows, 100
 * tokens give 154, 300 tokens 308. Beyond the first chunk the two columns of a row are not the same token's; that is so
 * wherever chunks differ, and nothing in training tells which would be.
 */
import { KotobaError } from '../../errors.js';
import { emphasizeKeepingMean, emphasizeTogether, type TokenizedPrompt } from '../../text/index.js';
import { concatenate } from '../token_rows.js';

/** How many rows one encoder gave, of how many chunks. */
export interface ChunkedRows {
  /** of all chunks */
  readonly tokens: number;
  /** of one chunk */
  readonly chunkTokens: number;
  /** up to the end-of-text of the last chunk */
  readonly contentTokens: number;
}

export function chunkedRows({ chunks }: TokenizedPrompt): ChunkedRows {
  const chunkTokens = chunks[0]!.ids.length;
  const tokens = chunks.length * chunkTokens;
  return { tokens, chunkTokens, contentTokens: tokens - chunkTokens + chunks.at(-1)!.eosIndex + 1 };
}

/** Rows that all sides are cut to: see above. */
export function joinedRows(sides: readonly ChunkedRows[]): number {
  const needed = Math.max(...sides.map(({ contentTokens }) => contentTokens));
  return Math.min(...sides.map(({ chunkTokens }) => Math.ceil(needed / chunkTokens) * chunkTokens));
}

/** Chunks of the empty prompt that must follow a side for it to have `rows`. */
export const chunksToFill = ({ tokens, chunkTokens }: ChunkedRows, rows: number): number =>
  Math.max(0, Math.ceil((rows - tokens) / chunkTokens));

/** States of one encoder. */
export interface Columns {
  /** [rows or more, width] */
  readonly hidden: Float32Array;
  readonly width: number;
}

/**
 * Joins widths, then adds columns of zeros (SD3).
 * @returns [rows, width]
 * @throws KotobaError ERR_MODEL_SLOT where the columns are more than `width`
 */
export function sideBySide(parts: readonly Columns[], rows: number, width: number): Float32Array {
  const total = parts.reduce((sum, part) => sum + part.width, 0);
  if (total > width)
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `text encoders: expected states of ${width} columns at most, got ${parts.map((part) => part.width).join(' + ')}`,
    );
  const [only] = parts;
  if (parts.length === 1 && only!.width === width) return only!.hidden.subarray(0, rows * width);
  const joined = new Float32Array(rows * width);
  let column = 0;
  for (const part of parts) {
    for (let row = 0; row < rows; row++)
      joined.set(part.hidden.subarray(row * part.width, (row + 1) * part.width), row * width + column);
    column += part.width;
  }
  return joined;
}

/** States whose weights are still to be applied. */
export interface UnweightedRows extends ChunkedRows, Columns {
  /** [tokens]; absent: all 1 */
  readonly weights?: Float64Array | undefined;
}

/**
 * A1111's weights with one mean for a chunk of all sides (SD3). Sides of different chunks keep a mean each.
 * @returns states [tokens, width] of each side
 */
export function emphasizeSides(sides: readonly UnweightedRows[]): Float32Array[] {
  if (sides.every(({ weights }) => weights === undefined)) return sides.map(({ hidden }) => hidden);
  const [{ tokens, chunkTokens } = { tokens: 0, chunkTokens: 1 }] = sides;
  const isAlike = sides.every((side) => side.tokens === tokens && side.chunkTokens === chunkTokens);
  const chunks = sides.map(chunksOf);
  const weighted = isAlike
    ? transposed(transposed(chunks).map((together) => emphasizeTogether(together)))
    : chunks.map((own) => own.map(({ hidden, weights }) => emphasizeKeepingMean(hidden, weights)));
  return weighted.map(concatenate);
}

function chunksOf({ hidden, width, weights, tokens, chunkTokens }: UnweightedRows) {
  const all = weights ?? new Float64Array(tokens).fill(1);
  return Array.from({ length: tokens / chunkTokens }, (_, i) => ({
    hidden: hidden.subarray(i * chunkTokens * width, (i + 1) * chunkTokens * width),
    weights: all.subarray(i * chunkTokens, (i + 1) * chunkTokens),
  }));
}

const transposed = <T>(rows: readonly (readonly T[])[]): T[][] =>
  (rows[0] ?? []).map((_, i) => rows.map((row) => row[i]!));
