/** Denoisers as far as texts are concerned: what they take and how wide, without a file. */
import type { DenoiserPart } from '../../src/pipeline/image_types.js';

const part = (family: string, slot: string, config: Readonly<Record<string, unknown>>): DenoiserPart =>
  ({ family, slot, path: `${family}.safetensors`, description: family, config }) as unknown as DenoiserPart;

/** @param context columns attended to */
export const sd1Part = (context: number): DenoiserPart =>
  part('sd1', 'unet', { context_dim: context, adm_in_channels: 0 });
export const sd2Part = (context: number): DenoiserPart =>
  part('sd2', 'unet', { context_dim: context, adm_in_channels: 0 });
/** @param pooled columns of the text beside six sinusoids of 256 */
export const sdxlPart = (context: number, pooled: number): DenoiserPart =>
  part('sdxl', 'unet', { context_dim: context, adm_in_channels: pooled + 6 * 256 });
export const refinerPart = (context: number): DenoiserPart =>
  part('sdxl', 'unet', { context_dim: context, adm_in_channels: context + 5 * 256 });
export const sd3Part = (context: number, pooled: number): DenoiserPart =>
  part('sd3', 'transformer', { context_dim: context, adm_in_channels: pooled });

export const fluxPart = (
  context: number,
  pooled: number,
  more: { guidance_embed?: boolean; max_sequence_length?: number } = {},
): DenoiserPart =>
  part('flux', 'transformer', {
    context_in_dim: context,
    vec_in_dim: pooled,
    guidance_embed: true,
    ...more,
  });
