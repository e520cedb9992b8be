/** How long each encoder's rows of tokens are and where they break, by a profile's rules or the caller's own. */
import { T5_LENGTHS, type ChunkLayout, type PromptDialect, type T5Length } from '../../text/index.js';
import type { DenoiserPart } from '../image_types.js';
import type { ProfileRules, T5Rules } from './profiles.js';

/** Lengths of a CLIP's chunks are its own: as many tokens as it has positions. */
export function clipPromptLayout(
  { padId }: Pick<ChunkLayout, 'padId'>,
  { overflow, breaks }: Pick<ProfileRules, 'overflow' | 'breaks'>,
  dialect: PromptDialect,
): Partial<ChunkLayout> {
  return { padId, overflow, rules: dialect === 'plain' ? breaks : dialect };
}

export type T5Layout = Partial<ChunkLayout> & { t5Length?: T5Length };

/** What T5's length may depend on. */
export interface T5Surroundings {
  /** Tokens that the transformer was trained with. */
  readonly trained: number;
  /** Rows of the CLIPs' states. */
  readonly clipRows: number;
}

/** @param given what the caller says about lengths: it takes the place of all that the profile says */
export function t5PromptLayout(
  rules: T5Rules,
  surroundings: T5Surroundings,
  given: T5Layout | undefined,
): T5Layout {
  const { padId, overflow } = rules;
  if (!given) {
    const [minLength, maxLength] = t5Lengths(rules, surroundings);
    return { padId, overflow, minLength, maxLength };
  }
  const name = given.t5Length;
  if (name === undefined || !Object.hasOwn(T5_LENGTHS, name)) return { padId, ...given };
  const [minLength, maxLength] = T5_LENGTHS[name];
  return { padId, minLength, maxLength, ...given };
}

export function t5Lengths(
  { length }: Pick<T5Rules, 'length'>,
  { trained, clipRows }: T5Surroundings,
): readonly [least: number, most: number] {
  if (length === 'clip') return [clipRows, clipRows];
  return length === 'trained' ? [trained, trained] : length;
}

/** T5 tokens that Flux.1 and SD3 (arXiv:2403.03206) were trained with. */
export const TRAINED_TOKENS = { dev: 512, schnell: 256, sd3: 77 } as const;

/** T5 tokens that a transformer was trained with: Flux.1's files tell by what they are, or say so. */
export function trainedTokens(denoiser: DenoiserPart): number {
  if (denoiser.family !== 'flux') return TRAINED_TOKENS.sd3;
  const { guidance_embed, max_sequence_length } = denoiser.config;
  return max_sequence_length ?? TRAINED_TOKENS[guidance_embed ? 'dev' : 'schnell'];
}
