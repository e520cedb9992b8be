/** SDXL is told the sizes of its pictures beside the pooled text (arXiv:2307.01952 §2.2). */
import { sinusoids } from '../../diffusion/timestep_embedding.js';
import { KotobaError } from '../../errors.js';
import type { UnetConfig } from '../../formats/index.js';
import { SINUSOIDS } from './text_rules.js';

/** Aesthetic scores that the SDXL refiner is told: of the prompt and of the negative prompt. */
const SCORES = { prompt: 6, negative: 2.5 } as const;

export interface PictureSides {
  readonly width: number;
  readonly height: number;
}

/** Pixels. */
export interface ToldSizes extends PictureSides {
  /** Of the picture that this one is a part of. Default: this one. */
  readonly original?: PictureSides | undefined;
  /** What was cut off that. Default: nothing. */
  readonly crop?: { readonly top: number; readonly left: number } | undefined;
}

/**
 * Pooled text, then sinusoids of height and width of the original, top and left of the crop, height and width wanted. The
 * refiner's vector has room for five numbers: it is told a score in the place of the size wanted.
 * @returns [adm_in_channels]
 * @throws KotobaError ERR_MODEL_SLOT where the widths do not add up
 */
export function withSizes(
  pooled: Float32Array,
  { adm_in_channels }: Pick<UnetConfig, 'adm_in_channels'>,
  { width, height, original = { width, height }, crop = { top: 0, left: 0 } }: ToldSizes,
  text: keyof typeof SCORES,
): Float32Array {
  const before = [original.height, original.width, crop.top, crop.left];
  const count = (adm_in_channels - pooled.length) / SINUSOIDS;
  const told = count === 5 ? [...before, SCORES[text]] : [...before, height, width];
  if (count !== told.length)
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `UNet: takes vectors of ${adm_in_channels}: expected pooled text of ${adm_in_channels - 6 * SINUSOIDS}, got ${pooled.length}`,
    );
  const vector = new Float32Array(adm_in_channels);
  vector.set(pooled);
  vector.set(sinusoids(told, SINUSOIDS), pooled.length);
  return vector;
}
