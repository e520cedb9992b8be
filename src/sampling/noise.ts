/** Seeded noise on the host: the same on every device. */
import { KotobaError } from '../errors.js';
import type { NoiseGenerator } from './noise_generator.js';
import { PhiloxNoise } from './philox_noise.js';
import { TorchNoise } from './torch_noise.js';

/** Noise of PyTorch's CPU generator, as ComfyUI draws it. */
export const torchNoise = (seed: number | bigint): TorchNoise => new TorchNoise(seed);

/** Noise of PyTorch's CUDA generator, as A1111 and BFL's programs draw it on NVIDIA GPUs. */
export const philoxNoise = (seed: number | bigint): PhiloxNoise => new PhiloxNoise(seed);

/** The generators by name. */
export const NOISE = { torch: torchNoise, philox: philoxNoise } as const satisfies Record<
  string,
  (seed: number | bigint) => NoiseGenerator
>;
export type NoiseName = keyof typeof NOISE;

export function noiseNamed(name: string): (seed: number | bigint) => NoiseGenerator {
  if (Object.hasOwn(NOISE, name)) return NOISE[name as NoiseName];
  throw new KotobaError(
    'ERR_ARGUMENT',
    `unknown noise generator '${name}'. Choices: ${Object.keys(NOISE).join(', ')}.`,
  );
}
