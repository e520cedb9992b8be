/**
 * How a latent, a network's output and noise relate at level σ, as coefficients. eps and v: x = x0 + σ·noise, and the
 * network sees x/√(1 + σ²); flow: x = (1 − σ)·x0 + σ·noise, seen as it is.
 */
import { copy, type Algebra, type Denoiser } from './algebra.js';
import type { Prediction } from './noise_level.js';
import type { SigmaModel } from './sigma_model.js';

export interface Parameterization {
  /** The network's input is this times x. */
  readonly inputScale: (sigma: number) => number;
  /** Denoised = x · [0] + output · [1]. */
  readonly denoised: (sigma: number) => readonly [x: number, output: number];
  /** x at level σ = noise · [0] + latent · [1]. */
  readonly noised: (sigma: number) => readonly [noise: number, latent: number];
  /** Factor on an x that a schedule leaves at σ > 0: the signal back to scale 1 (of x as it is, for flow). */
  readonly finalScale: (sigma: number) => number;
}

const exploding = {
  inputScale: (sigma: number) => 1 / Math.sqrt(1 + sigma * sigma),
  noised: (sigma: number) => [sigma, 1] as const,
  finalScale: (sigma: number) => 1 / Math.sqrt(1 + sigma * sigma),
};

export const PARAMETERIZATIONS: Readonly<Record<Prediction, Parameterization>> = {
  eps: { ...exploding, denoised: (sigma) => [1, -sigma] },
  // Progressive distillation's v, arXiv:2202.00512 appendix D.
  v: { ...exploding, denoised: (sigma) => [1 / (1 + sigma * sigma), -sigma / Math.sqrt(1 + sigma * sigma)] },
  flow: {
    inputScale: () => 1,
    denoised: (sigma) => [1, -sigma],
    noised: (sigma) => [sigma, 1 - sigma],
    finalScale: (sigma) => 1 / (1 - sigma),
  },
};

/** The network itself: the output for `input` at the model's `timestep`. The caller owns the result. */
export type Network<V> = (input: V, timestep: number) => V;

export interface DenoiserParts<V extends Disposable> {
  readonly algebra: Algebra<V>;
  readonly model: SigmaModel;
  readonly network: Network<V>;
  /** 'nearest' (ComfyUI): the table's timestep, whole for eps and v. 'fractional' (k-diffusion): between them. */
  readonly timesteps?: 'nearest' | 'fractional';
}

/** Makes a denoiser D(x, σ) of a network. */
export function denoiserOf<V extends Disposable>(parts: DenoiserParts<V>): Denoiser<V> {
  const { algebra, model, network, timesteps = 'nearest' } = parts;
  const rules = PARAMETERIZATIONS[model.prediction];
  return (x, sigma) => {
    const timestep = timesteps === 'nearest' ? model.nearestTimestep(sigma) : model.timestep(sigma);
    using output = predict(algebra, network, x, rules.inputScale(sigma), timestep);
    const [ofX, ofOutput] = rules.denoised(sigma);
    return algebra.combine([
      [ofX, x],
      [ofOutput, output],
    ]);
  };
}

function predict<V extends Disposable>(
  algebra: Algebra<V>,
  network: Network<V>,
  x: V,
  scale: number,
  timestep: number,
): V {
  if (scale === 1) return network(x, timestep);
  using input = algebra.combine([[scale, x]]);
  return network(input, timestep);
}

export interface StartParts<V> {
  /** N(0, 1) */
  readonly noise: V;
  /** The encoded picture to start from; none for text to image. */
  readonly latent?: V;
  readonly prediction: Prediction;
  readonly sigma: number;
  /**
   * eps and v, from pure noise: 'unit' scales the noise by √(1 + σ²), so that the network sees variance 1 exactly
   * (ComfyUI); 'sigma' by σ (k-diffusion, A1111). The default is 'sigma'.
   */
  readonly noiseScale?: 'unit' | 'sigma';
}

/** The x a sampling starts from. */
export function startLatent<V extends Disposable>(algebra: Algebra<V>, parts: StartParts<V>): V {
  const { noise, latent, prediction, sigma, noiseScale = 'sigma' } = parts;
  const [ofNoise, ofLatent] = PARAMETERIZATIONS[prediction].noised(sigma);
  const scale = noiseScale === 'unit' && prediction !== 'flow' ? Math.sqrt(1 + sigma * sigma) : ofNoise;
  if (latent === undefined || ofLatent === 0)
    return scale === 1 ? copy(algebra, noise) : algebra.combine([[scale, noise]]);
  return algebra.combine([
    [scale, noise],
    [ofLatent, latent],
  ]);
}
