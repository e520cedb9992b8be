/** The small trained model that ships with the package: exactly Flux.1's parts, 64×64 pictures (models/README.md). */
import { join } from 'node:path';
import { packageRoot } from '../package_root.js';
import type { EncoderChoice, ImageModel } from './image_types.js';

const at = (...names: string[]): string => join(packageRoot(), 'models', 'kotoba-small', ...names);

/** Its T5s: the better-trained one, and the ordinary one that it is compared with. */
export const SHIPPED_T5 = {
  'flan-t5': (): EncoderChoice => ({ path: at('flan_t5') }),
  t5: (): EncoderChoice => ({ path: at('t5') }),
} as const;

/** A Flux.1, by its parts. */
export interface FluxFiles extends ImageModel {
  readonly encoders: Readonly<Record<'clip_l' | 't5', EncoderChoice>>;
}

export function shippedModel(): FluxFiles {
  return {
    denoiser: at('flux1-schnell-small.safetensors'),
    vae: at('ae.safetensors'),
    encoders: { clip_l: { path: at('text_encoder') }, t5: SHIPPED_T5['flan-t5']() },
  };
}
