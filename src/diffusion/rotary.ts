/** Rotary position embedding over several axes (arXiv:2104.09864; Flux: channel group, row, column). */
import { KotobaError } from '../errors.js';

/** Positions of tokens, one number per axis. */
export type TokenIds = readonly (readonly number[])[];

/** Flux: text stands at the origin. */
export function textIds(tokens: number, axes = 3): TokenIds {
  return Array.from({ length: tokens }, () => new Array<number>(axes).fill(0));
}

/** Flux: an image token knows its row and column, in patches. */
export function imageIds(rows: number, columns: number): TokenIds {
  return Array.from({ length: rows * columns }, (_, i) => [0, Math.floor(i / columns), i % columns]);
}

/**
 * @param ids  a position per axis for each token
 * @param axes columns of a head that belong to each axis, even
 * @returns [tokens, Σ axes]: cosine and sine of pair i side by side, angle = id · theta^(−2i / axis)
 */
export function rotation(ids: TokenIds, axes: readonly number[], theta: number): Float32Array {
  const width = axes.reduce((a, b) => a + b, 0);
  const out = new Float32Array(ids.length * width);
  let at = 0;
  for (const position of ids) {
    if (position.length !== axes.length)
      throw new KotobaError(
        'ERR_ARGUMENT',
        `rotary ids: expected ${axes.length} numbers a token, got ${position.length}`,
      );
    for (const [axis, columns] of axes.entries())
      for (let pair = 0; pair < columns / 2; pair++) {
        const angle = position[axis]! * theta ** ((-2 * pair) / columns);
        out[at++] = Math.cos(angle);
        out[at++] = Math.sin(angle);
      }
  }
  return out;
}
