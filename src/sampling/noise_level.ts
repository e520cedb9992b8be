/**
 * Noise levels as scalars. x_σ = α(σ)·x0 + σ·ε with α = 1 for eps and v models ("variance exploding" coordinates, as
 * k-diffusion has them, arXiv:2206.00364) and α = 1 − σ for rectified flow (arXiv:2209.03003).
 * λ(σ) = ln(α/σ) is half the log signal-to-noise ratio (arXiv:2206.00927).
 */

/** What a network's output is: the noise ε, the velocity v = α̂·ε − σ̂·x0, or the flow's velocity ε − x0. */
export type Prediction = 'eps' | 'v' | 'flow';

/** What a solver must know of a model's noise levels. */
export interface NoiseLevels {
  readonly prediction: Prediction;
  /** Noise level after this share of the sampling (0 … 1). */
  percentToSigma(percent: number): number;
}

export const isFlow = ({ prediction }: Pick<NoiseLevels, 'prediction'>): boolean => prediction === 'flow';

export const signalScale = (flow: boolean, sigma: number): number => (flow ? 1 - sigma : 1);

export const halfLogSnr = (flow: boolean, sigma: number): number =>
  flow ? Math.log((1 - sigma) / sigma) : -Math.log(sigma);

export const sigmaOfHalfLogSnr = (flow: boolean, lambda: number): number =>
  flow ? 1 / (1 + Math.exp(lambda)) : Math.exp(-lambda);

export interface AncestralStep {
  /** Noise level to step down to, without randomness. */
  readonly down: number;
  /** Factor on x after it: 1, or for flow the change of the signal's scale. */
  readonly scale: number;
  /** Standard deviation of the fresh noise that brings x to the next level. */
  readonly up: number;
}

/** Splits σ → σNext in a step down and fresh noise; eta 0 is deterministic, 1 the full ancestral step (arXiv:2006.11239). */
export function ancestralStep(flow: boolean, sigma: number, sigmaNext: number, eta: number): AncestralStep {
  if (eta === 0 || sigmaNext === 0) return { down: sigmaNext, scale: 1, up: 0 };
  return flow ? flowAncestralStep(sigma, sigmaNext, eta) : explodingAncestralStep(sigma, sigmaNext, eta);
}

/** σup² + σdown² = σNext² */
export function explodingAncestralStep(sigma: number, sigmaNext: number, eta: number): AncestralStep {
  const posterior = Math.sqrt((sigmaNext ** 2 * (sigma ** 2 - sigmaNext ** 2)) / sigma ** 2);
  const up = Math.min(sigmaNext, eta * posterior);
  return { down: Math.sqrt(sigmaNext ** 2 - up ** 2), scale: 1, up };
}

/** The signal must come out with scale 1 − σNext, hence `scale`; (scale · σdown)² + σup² = σNext². */
function flowAncestralStep(sigma: number, sigmaNext: number, eta: number): AncestralStep {
  const down = sigmaNext * (1 + (sigmaNext / sigma - 1) * eta);
  const scale = (1 - sigmaNext) / (1 - down);
  return { down, scale, up: Math.sqrt(Math.max(0, sigmaNext ** 2 - (scale * down) ** 2)) };
}
