/** How a large picture is cut into overlapping tiles, and how their edges are blended. */

/** Planes of equal size, [channels, height, width]. */
export interface Planes {
  readonly data: Float32Array;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** Along one axis. */
export interface Span {
  readonly start: number;
  readonly length: number;
}

/**
 * Equal spans of at most `most` that cover `size`, neighbours sharing at least `overlap`.
 * @param size,most,overlap in one unit; overlap < most
 */
export function spans(size: number, most: number, overlap: number): Span[] {
  if (size <= most) return [{ start: 0, length: size }];
  const count = Math.ceil((size - overlap) / (most - overlap));
  return Array.from({ length: count }, (_, i) => ({
    start: Math.round((i * (size - most)) / (count - 1)),
    length: most,
  }));
}

/**
 * How much a tile counts at each of its positions: 1 inside, falling linearly to its edges where it has a neighbour.
 * @param fade width of the fall, in positions
 */
function edgeWeights({ start, length }: Span, size: number, fade: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => {
    const before = start > 0 ? (i + 1) / (fade + 1) : 1;
    const after = start + length < size ? (length - i) / (fade + 1) : 1;
    return Math.min(1, before, after);
  });
}

/** The pixels where `rows` and `columns` meet. */
export function crop({ data, channels, height, width }: Planes, rows: Span, columns: Span): Planes {
  if (rows.length === height && columns.length === width) return { data, channels, height, width };
  const out = new Float32Array(channels * rows.length * columns.length);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < rows.length; y++) {
      const from = (c * height + rows.start + y) * width + columns.start;
      out.set(data.subarray(from, from + columns.length), (c * rows.length + y) * columns.length);
    }
  return { data: out, channels, height: rows.length, width: columns.length };
}

/** A weighted mean of overlapping tiles. */
export class Blend {
  readonly #channels: number;
  readonly #height: number;
  readonly #width: number;
  readonly #fade: number;
  #data: Float32Array;
  /** [height, width]: what the tiles' weights add up to; absent while one tile is all */
  #weights: Float32Array | undefined;

  constructor(channels: number, height: number, width: number, fade: number) {
    this.#channels = channels;
    this.#height = height;
    this.#width = width;
    this.#fade = fade;
    this.#data = new Float32Array(0);
  }

  add(tile: Float32Array, rows: Span, columns: Span): void {
    if (rows.length === this.#height && columns.length === this.#width) {
      this.#data = tile;
      return;
    }
    const size = this.#height * this.#width;
    if (!this.#weights) {
      this.#weights = new Float32Array(size);
      this.#data = new Float32Array(this.#channels * size);
    }
    const vertical = edgeWeights(rows, this.#height, this.#fade);
    const horizontal = edgeWeights(columns, this.#width, this.#fade);
    for (let y = 0; y < rows.length; y++)
      for (let x = 0; x < columns.length; x++) {
        const weight = vertical[y]! * horizontal[x]!;
        const at = (rows.start + y) * this.#width + columns.start + x;
        this.#weights[at]! += weight;
        for (let c = 0; c < this.#channels; c++)
          this.#data[c * size + at]! += weight * tile[(c * rows.length + y) * columns.length + x]!;
      }
  }

  result(): Planes {
    const size = this.#height * this.#width;
    const weights = this.#weights;
    if (weights) for (let i = 0; i < this.#data.length; i++) this.#data[i]! /= weights[i % size]!;
    return { data: this.#data, channels: this.#channels, height: this.#height, width: this.#width };
  }
}
