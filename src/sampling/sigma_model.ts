/**
 * Which noise level σ belongs to which timestep of a trained model, and back. Timesteps are in the model's own unit:
 * 0 … 999 for SD1.x, SDXL and SD3, 0 … 1 for Flux.
 */
import { KotobaError } from '../errors.js';
import type { NoiseLevels, Prediction } from './noise_level.js';

export interface SigmaModel extends NoiseLevels {
  /** The levels the model knows, ascending: what `simple`, `beta` and `ddim_uniform` choose from. */
  readonly table: Float64Array;
  readonly sigmaMin: number;
  readonly sigmaMax: number;
  sigma(timestep: number): number;
  /** Inverse of `sigma`, fractional. */
  timestep(sigma: number): number;
  /** Timestep of the table's level nearest in ln σ: what ComfyUI feeds eps and v models. Flow: as `timestep`. */
  nearestTimestep(sigma: number): number;
}

const kTrainSteps = 1000;
const kBetaStart = 0.00085;
const kBetaEnd = 0.012;
/** ᾱ of the last step after rescaling to zero terminal SNR; exactly 0 would make σ infinite. */
const kTerminalAlphaBar = 4.8973451890853435e-8;

export interface ScaledLinearOptions {
  readonly prediction?: 'eps' | 'v';
  /** arXiv:2305.08891: rescaled so that the last step is pure noise. */
  readonly zeroTerminalSnr?: boolean;
}

/** SD1.x and SDXL: √β runs linearly from √0.00085 to √0.012 in 1000 steps; σ = √((1 − ᾱ)/ᾱ), ᾱ = Π(1 − β). */
export function scaledLinear(options: ScaledLinearOptions = {}): SigmaModel {
  let alphaBar = scaledLinearAlphaBar();
  if (options.zeroTerminalSnr) alphaBar = withZeroTerminalSnr(alphaBar);
  return discreteModel(
    options.prediction ?? 'eps',
    alphaBar.map((alpha) => Math.sqrt((1 - alpha) / alpha)),
  );
}

function scaledLinearAlphaBar(): Float64Array {
  const alphaBar = new Float64Array(kTrainSteps);
  const [from, to] = [Math.sqrt(kBetaStart), Math.sqrt(kBetaEnd)];
  let product = 1;
  for (let t = 0; t < kTrainSteps; t++) {
    product *= 1 - (from + ((to - from) * t) / (kTrainSteps - 1)) ** 2;
    alphaBar[t] = product;
  }
  return alphaBar;
}

function withZeroTerminalSnr(alphaBar: Float64Array): Float64Array {
  const first = Math.sqrt(alphaBar[0]!);
  const last = Math.sqrt(alphaBar.at(-1)!);
  const rescaled = alphaBar.map((alpha) => (((Math.sqrt(alpha) - last) * first) / (first - last)) ** 2);
  rescaled[rescaled.length - 1] = kTerminalAlphaBar;
  return rescaled;
}

/** Between the table's entries, ln σ is linear in the timestep. */
function discreteModel(prediction: Prediction, table: Float64Array): SigmaModel {
  const logs = table.map(Math.log);
  const last = table.length - 1;
  const sigma = (timestep: number): number => {
    const t = Math.min(Math.max(timestep, 0), last);
    const low = Math.floor(t);
    const weight = t - low;
    return Math.exp((1 - weight) * logs[low]! + weight * logs[Math.ceil(t)]!);
  };
  return {
    prediction,
    table,
    sigmaMin: table[0]!,
    sigmaMax: table[last]!,
    sigma,
    timestep: (level) => interpolatedIndex(logs, Math.log(level)),
    nearestTimestep: (level) => nearestIndex(logs, Math.log(level)),
    percentToSigma: (percent) =>
      percent <= 0 ? Infinity : percent >= 1 ? 0 : sigma((1 - percent) * (kTrainSteps - 1)),
  };
}

/** Where `value` lies among ascending `values`, clamped to their ends. */
function interpolatedIndex(values: Float64Array, value: number): number {
  const above = values.findIndex((v) => v > value);
  if (above === 0) return 0;
  if (above < 0) return values.length - 1;
  const low = values[above - 1]!;
  return above - 1 + (value - low) / (values[above]! - low);
}

/** Of two equally near entries the lower. */
function nearestIndex(values: Float64Array, value: number): number {
  let best = 0;
  for (let i = 1; i < values.length; i++)
    if (Math.abs(values[i]! - value) < Math.abs(values[best]! - value)) best = i;
  return best;
}

/** A flow model: σ = shift(t), t from 0 (clean) to 1 (noise). `timestep` counts in `unit` per 1. */
function flowModel(shift: (t: number) => number, unit: number, entries: number): SigmaModel {
  const table = Float64Array.from({ length: entries }, (_, i) => shift((i + 1) / entries));
  const timestep = (sigma: number): number => sigma * unit;
  return {
    prediction: 'flow',
    table,
    sigmaMin: table[0]!,
    sigmaMax: table.at(-1)!,
    sigma: (t) => shift(t / unit),
    // The network is told the level itself, not the t it came from.
    timestep,
    nearestTimestep: timestep,
    percentToSigma: (percent) => (percent <= 0 ? 1 : percent >= 1 ? 0 : shift(1 - percent)),
  };
}

/** s·t/(1 + (s − 1)t), arXiv:2403.03206 §5.3.2; s = 1 leaves t as it is. */
export const shiftTime = (shift: number, t: number): number => (shift * t) / (1 + (shift - 1) * t);

/** SD3 and SD3.5: shift 3. */
export function sd3(shift = 3): SigmaModel {
  if (!(shift > 0)) throw new KotobaError('ERR_ARGUMENT', `shift is ${shift}: expected a number above 0`);
  return flowModel((t) => shiftTime(shift, t), 1000, 1000);
}

/** Flux.1 [schnell]: no shift. */
export const fluxSchnell = (): SigmaModel => flowModel((t) => t, 1, 1000);

/** What ComfyUI takes for every size of Flux.1 [dev]; BFL's at 1024 × 1024. */
export const kFluxDevMu = 1.15;

/** Flux.1 [dev]: shift e^mu, with mu from the size of the picture (`fluxMu`) or ComfyUI's 1.15. */
export function fluxDev(mu: number = kFluxDevMu): SigmaModel {
  if (!Number.isFinite(mu)) throw new KotobaError('ERR_ARGUMENT', `mu is ${mu}: expected a finite number`);
  const shift = Math.exp(mu);
  return flowModel((t) => shiftTime(shift, t), 1, 10_000);
}

/**
 * BFL's mu for a picture: linear in the number of image tokens, 0.5 at 256 and 1.15 at 4096.
 * @param width  pixels; rounded up to whole tokens of 16 × 16, as is height
 */
export function fluxMu(width: number, height: number): number {
  for (const [name, pixels] of Object.entries({ width, height }))
    if (!(pixels > 0 && Number.isFinite(pixels)))
      throw new KotobaError('ERR_ARGUMENT', `${name} is ${pixels}: expected pixels above 0`);
  const tokens = Math.ceil(width / 16) * Math.ceil(height / 16);
  return 0.5 + ((1.15 - 0.5) * (tokens - 256)) / (4096 - 256);
}
