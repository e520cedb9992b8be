/** Guidance: denoisers made of denoisers, as weighted sums of their predictions. */
import { History, type Algebra, type Denoiser, type Term } from './algebra.js';

/** D = Σ weight · D_i. Denoisers of weight 0 are not run. */
export function guided<V extends Disposable>(
  algebra: Algebra<V>,
  parts: readonly (readonly [weight: number, denoise: Denoiser<V>])[],
): Denoiser<V> {
  const active = parts.filter(([weight]) => weight !== 0);
  const [only] = active;
  if (active.length === 1 && only![0] === 1) return only![1];
  return (x, sigma) => {
    using predictions = new History<V>(active.length);
    const terms = active.map(([weight, denoise]): Term<V> => [weight, predictions.push(denoise(x, sigma))]);
    return algebra.combine(terms);
  };
}

/**
 * Classifier-free guidance, arXiv:2207.12598: D = uncond + scale · (cond − uncond). At scale 1 only `cond` is run.
 * Flux.1 [dev] needs none of it: its guidance is distilled into the network.
 */
export function cfg<V extends Disposable>(
  algebra: Algebra<V>,
  cond: Denoiser<V>,
  uncond: Denoiser<V>,
  scale: number,
): Denoiser<V> {
  return guided(algebra, [
    [scale, cond],
    [1 - scale, uncond],
  ]);
}

export interface SkipLayerParts<V> {
  readonly cond: Denoiser<V>;
  readonly uncond: Denoiser<V>;
  /** `cond` with some of the network's blocks left out. */
  readonly skipped: Denoiser<V>;
  readonly scale: number;
  readonly skipScale: number;
  /** Whether the extra term is on at this level; off, `skipped` is not run. SD3.5: between 1 % and 20 % of the steps. */
  readonly isActive: (sigma: number) => boolean;
}

/** SD3.5's skip-layer guidance: CFG + skipScale · (cond − skipped), away from what the crippled network predicts. */
export function skipLayerGuidance<V extends Disposable>(
  algebra: Algebra<V>,
  { cond, uncond, skipped, scale, skipScale, isActive }: SkipLayerParts<V>,
): Denoiser<V> {
  const plain = cfg(algebra, cond, uncond, scale);
  const full = guided(algebra, [
    [scale + skipScale, cond],
    [1 - scale, uncond],
    [-skipScale, skipped],
  ]);
  return (x, sigma) => (isActive(sigma) ? full : plain)(x, sigma);
}
