/** A denoiser or VAE found in a file, complete and checked. */
import type { ConfigFamily, ConfigSource } from './config.js';
import { buildFlux, fluxFamily } from './flux_part.js';
import { buildMmdit, mmditFamily } from './mmdit_part.js';
import type { ModelFile } from './model_file.js';
import type { DiffusionScheme } from './names/diffusion.js';
import type { DiffusionPart } from './part.js';
import { buildUnet, unetFamily } from './unet_part.js';
import { buildVae, vaeFamily } from './vae_part.js';

export const diffusionFamilies: Readonly<Record<DiffusionScheme['network'], ConfigFamily>> = {
  flux: fluxFamily,
  unet: unetFamily,
  mmdit: mmditFamily,
  vae: vaeFamily,
};

export function buildDiffusion(
  model: ModelFile,
  scheme: DiffusionScheme,
  prefix: string,
  given?: ConfigSource,
): DiffusionPart {
  switch (scheme.network) {
    case 'flux':
      return buildFlux(model, scheme, prefix, given);
    case 'unet':
      return buildUnet(model, scheme, prefix, given);
    case 'mmdit':
      return buildMmdit(model, scheme, prefix, given);
    case 'vae':
      return buildVae(model, scheme, prefix, given);
  }
}
