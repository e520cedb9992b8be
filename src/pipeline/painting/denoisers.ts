/** The networks that pictures are sampled from, by family. */
import type { Weights } from '../../runtime/weights.js';
import type { Denoiser } from './denoiser.js';
import { fluxDenoiser } from './flux_denoiser.js';
import type { DenoiserPart } from '../image_types.js';
import { mmditDenoiser } from './mmdit_denoiser.js';
import { unetDenoiser } from './unet_denoiser.js';

/** Must be called inside a job of the device. @throws KotobaError ERR_MODEL_TENSORS */
export function loadDenoiser(weights: Weights, part: DenoiserPart): Denoiser {
  if (part.slot === 'unet') return unetDenoiser(weights, part);
  return part.family === 'sd3' ? mmditDenoiser(weights, part) : fluxDenoiser(weights, part);
}

/** Channels of the latents that a denoiser works on. */
export function latentChannels(part: DenoiserPart): number {
  if (part.slot === 'unet') return part.config.out_channels;
  return part.family === 'sd3' ? part.config.in_channels : part.config.in_channels / 4;
}
