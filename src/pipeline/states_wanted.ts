/** What a caller's options ask of an encoder's output: which layer's state, whose weights. */
import { KotobaError } from '../errors.js';
import type { PromptDialect } from '../text/index.js';
import type { EncodeOptions } from './encoder_types.js';

/** Whose weights are applied. */
export const weightsOf = ({ dialect = 'plain', weighting }: EncodeOptions): PromptDialect | undefined =>
  weighting === 'none' ? undefined : dialect;

export interface StatesWanted {
  /** The layer whose output is the conditioning. */
  readonly layer: number;
  readonly norm: 'final' | 'none';
  readonly extra: readonly number[];
}

/** @throws KotobaError ERR_ARGUMENT */
export function statesWanted(options: EncodeOptions, depth: number): StatesWanted {
  const { clipSkip = 1, norm = 'final', hiddenStates = [] } = options;
  const layer = depth + 1 - clipSkip;
  if (!Number.isInteger(layer) || layer < 1 || layer > depth)
    throw new KotobaError('ERR_ARGUMENT', `clipSkip: expected 1 to ${depth}, got ${clipSkip}`);
  if (norm !== 'final' && norm !== 'none')
    throw new KotobaError('ERR_ARGUMENT', `norm: expected final or none, got "${norm as string}"`);
  const extra = hiddenStates === 'all' ? Array.from({ length: depth + 1 }, (_, i) => i) : hiddenStates;
  const absent = extra.find((i) => !Number.isInteger(i) || i < 0 || i > depth);
  if (absent !== undefined)
    throw new KotobaError('ERR_ARGUMENT', `hiddenStates: expected numbers from 0 to ${depth}, got ${absent}`);
  return { layer, norm, extra };
}
