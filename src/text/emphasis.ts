// Prompt weights applied to an encoder's output. Rows are tokens; all arithmetic is in double, results in the
// type that came in.
import { KotobaError } from '../errors.js';

export type FloatArray = Float32Array | Float64Array;

/**
 * ComfyUI: each token moves from the empty prompt's encoding towards its own, or past it:
 * out[t] = (hidden[t] − empty[t]) · weight[t] + empty[t]. Tokens of weight 1 are untouched.
 * CLIP and T5 alike; a prompt without weights never gets here, so its result does not depend on the empty one.
 * @param hidden  [tokens, channels] of one chunk
 * @param empty   [tokens, channels], the encoding of emptyPromptChunk at the same length
 * @param weights [tokens]
 */
export function interpolateFromEmpty<T extends FloatArray>(
  hidden: T,
  empty: FloatArray,
  weights: ArrayLike<number>,
): T {
  const channels = channelsOf(hidden, weights);
  if (empty.length !== hidden.length) {
    throw new KotobaError(
      'ERR_ARGUMENT',
      `prompt weights: expected the empty prompt's encoding to have ${hidden.length} values but received ${empty.length}`,
    );
  }
  const out = hidden.slice() as T;
  for (let token = 0; token < weights.length; token++) {
    const weight = weights[token]!;
    if (weight === 1) continue;
    for (let i = token * channels; i < (token + 1) * channels; i++) {
      out[i] = (hidden[i]! - empty[i]!) * weight + empty[i]!;
    }
  }
  return out;
}

/** States and the weight of each of their tokens. */
export interface Weighted<T extends FloatArray> {
  /** [tokens, channels], tokens of all rows of the batch in order */
  readonly hidden: T;
  /** [tokens] */
  readonly weights: ArrayLike<number>;
}

/**
 * A1111 ("Original"): out = hidden · weight, then scaled so that the mean over *everything passed* is what it was.
 * A1111 passes one chunk of every prompt of a batch at once, so batching changes its result; pass one chunk to be
 * independent of that. With a mean of zero there is nothing to restore, and the product stays.
 * @param hidden  [tokens, channels], tokens of all rows of the batch in order
 * @param weights [tokens]
 */
export function emphasizeKeepingMean<T extends FloatArray>(hidden: T, weights: ArrayLike<number>): T {
  return emphasizeTogether([{ hidden, weights }])[0]!;
}

/**
 * The same with one mean over several encoders: A1111 joins SD3's CLIP-L and CLIP-G before it weights them (the zeros
 * beside them change no sum).
 */
export function emphasizeTogether<T extends FloatArray>(parts: readonly Weighted<T>[]): T[] {
  let before = 0;
  let after = 0;
  const products = parts.map(({ hidden, weights }) => {
    const channels = channelsOf(hidden, weights);
    const weighted = new Float64Array(hidden.length);
    for (let i = 0; i < hidden.length; i++) {
      weighted[i] = hidden[i]! * weights[Math.floor(i / channels)]!;
      before += hidden[i]!;
      after += weighted[i]!;
    }
    return weighted;
  });
  const restore = after === 0 ? 1 : before / after;
  return parts.map(({ hidden }, k) => {
    const out = hidden.slice() as T;
    for (let i = 0; i < out.length; i++) out[i] = products[k]![i]! * restore;
    return out;
  });
}

function channelsOf(hidden: FloatArray, weights: ArrayLike<number>): number {
  const channels = hidden.length / weights.length;
  if (!Number.isInteger(channels) || channels === 0) {
    throw new KotobaError(
      'ERR_ARGUMENT',
      `prompt weights: expected one weight per token but received ${weights.length} weights for ${hidden.length} values`,
    );
  }
  return channels;
}
