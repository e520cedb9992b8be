/** Refuses pictures whose activations cannot fit, before the system's out-of-memory killer ends the process. */
import { KotobaError } from '../errors.js';
import type { FluxConfig, VaeConfig } from '../formats/index.js';

const FLOAT = 4;

/** Of one evaluation of the transformer, bytes: a single block's tensors, the largest moment. */
export function fluxActivations({ hidden_size, mlp_ratio }: FluxConfig, tokens: number): number {
  const residual = 2 * hidden_size; // and its norm
  const heads = 4 * hidden_size; // q, k, v and a projection before its rotation
  return FLOAT * tokens * (residual + heads + hidden_size * (1 + mlp_ratio));
}

/** Of decoding a tile, bytes: the finest level's first block, with the channels of the level before it. */
export function decoderActivations({ ch, ch_mult }: VaeConfig, pixels: number): number {
  const widest = ch * (ch_mult[1] ?? ch_mult[0]!);
  return FLOAT * pixels * 3 * widest; // the image, its norm, the convolution's result
}

/** What the largest moments of a request need, bytes. */
export interface ActivationNeeds {
  readonly sampling: number;
  readonly decoding: number;
}

/** @throws KotobaError ERR_OUT_OF_MEMORY with the sizes and what to do */
export function requireMemory({ sampling, decoding }: ActivationNeeds, available: number): void {
  const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const refuse = (what: string, bytes: number, advice: string): never => {
    throw new KotobaError(
      'ERR_OUT_OF_MEMORY',
      `${what} takes ${gib(bytes)} of activations, but the device has ${gib(available)} in all: ${advice}`,
    );
  };
  if (sampling > available) refuse('sampling at this size', sampling, 'make the picture smaller');
  if (decoding > available) refuse('decoding a tile of this size', decoding, 'choose smaller tiles (--tile)');
}
