/** Refuses pictures whose activations cannot fit, before the system's out-of-memory killer ends the process. */
import { KotobaError } from '../../errors.js';
import type { FluxConfig, UnetConfig, VaeConfig } from '../../formats/index.js';
import type { OpPrecision } from '../../runtime/ops.js';
import type { DenoiserPart } from '../image_types.js';

const FLOAT = 4;

/** Of a number that only matmuls and attention read. */
const innerBytes = (precision: OpPrecision): number =>
  precision === 'fp16' || precision === 'bf16' ? 2 : FLOAT;

/**
 * Of one evaluation, bytes: the largest moment.
 * @param latents pixels of the latents, of all pictures that share the evaluation
 * @param text    tokens of the text
 */
export function denoiserActivations(
  part: DenoiserPart,
  latents: number,
  text: number,
  precision: OpPrecision,
): number {
  if (part.slot === 'unet') return unetActivations(part.config, latents, precision);
  return transformerActivations(part.config, latents / 4 + text, precision);
}

/** The finest level's last block: the image and its skip, side by side and apart, a norm of both, and the result. */
function unetActivations({ widths }: UnetConfig, pixels: number, precision: OpPrecision): number {
  const finest = widths[0]!;
  const skip = widths[1] ?? finest;
  return pixels * (FLOAT * (2 * (finest + skip) + finest) + innerBytes(precision) * (finest + skip));
}

/** A single block's tensors. */
function transformerActivations(
  { hidden_size, mlp_ratio }: Pick<FluxConfig, 'hidden_size' | 'mlp_ratio'>,
  tokens: number,
  precision: OpPrecision,
): number {
  const heads = 4; // q, k, v and a projection before its rotation
  const inner = hidden_size * (1 + heads + 1 + mlp_ratio); // norm, heads, and what the block's last matrix reads
  return tokens * (FLOAT * hidden_size + innerBytes(precision) * inner);
}

/** Of decoding a tile, bytes: the finest level's first block, with the channels of the level before it. */
export function decoderActivations(
  { ch, ch_mult }: VaeConfig,
  pixels: number,
  precision: OpPrecision,
): number {
  const widest = ch * (ch_mult[1] ?? ch_mult[0]!);
  return pixels * widest * (2 * FLOAT + innerBytes(precision)); // the image, the convolution's result, a norm
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
