/** What a GenerateOptions comes to for one model: every default filled in, everything checked. */
import { randomBytes } from 'node:crypto';
import { KotobaError } from '../../errors.js';
import { vaeFactor, type VaePart } from '../../formats/index.js';
import {
  MAX_SEED,
  fluxDev,
  fluxMu,
  fluxSchnell,
  makeSigmas,
  scaledLinear,
  sd3,
  solverNamed,
  type SigmaModel,
} from '../../sampling/index.js';
import type { DenoiserPart, GenerateOptions, Profile } from '../image_types.js';
import { familySide, presetFor, type Preset, type PresetName } from './presets.js';
import { profileFor } from '../conditioning/profiles.js';
import { isInpainting } from './starting_picture.js';

export interface Request {
  readonly width: number;
  readonly height: number;
  readonly profile: Profile;
  readonly preset: PresetName;
  readonly steps: number;
  readonly seeds: readonly bigint[];
  readonly sampler: string;
  readonly schedule: string;
  readonly sigmas: readonly number[];
  readonly levels: SigmaModel;
  /** how the start is scaled: see startLatent() */
  readonly noiseScale: 'unit' | 'sigma';
  /** how levels become timesteps: see denoiserOf() */
  readonly timesteps: 'nearest' | 'fractional';
  /** distilled guidance; undefined where the model has none */
  readonly guidance: number | undefined;
  readonly cfg: number;
  readonly skipLayers: SkippedLayers | undefined;
  readonly noise: 'torch' | 'philox';
  /** of a picture to start from */
  readonly strength: number | undefined;
  readonly tile: number;
}

/** Skip-layer guidance, settled. */
export interface SkippedLayers {
  readonly scale: number;
  readonly layers: readonly number[];
  readonly isActive: (sigma: number) => boolean;
}

/** What a request is for. */
export interface RequestModel {
  readonly denoiser: DenoiserPart;
  readonly vae: Pick<VaePart, 'config'>;
}

const MOST_SIDE = 16384;
const MOST_PICTURES = 1000;
const DEFAULT_TILE = 1024;

/** Sides of pictures must be multiples of this: a token of the transformers, what a UNet halves to a whole number. */
export function sideUnit({ denoiser, vae }: RequestModel): number {
  if (denoiser.slot === 'unet') return vaeFactor(vae.config) * 2 ** (denoiser.config.widths.length - 1);
  return TRANSFORMER_UNIT;
}

/** Of Flux.1 and SD3: the autoencoder's factor times a patch of two latents. */
export const TRANSFORMER_UNIT = 16;

/** Side of the square pictures that a model makes if nothing else is said, pixels. */
export const usualSide = ({ denoiser, vae }: RequestModel, preset: Preset): number =>
  preset.side ?? vae.config.resolution ?? familySide(denoiser);

/** @throws KotobaError ERR_ARGUMENT, naming the option */
export function resolveRequest(options: GenerateOptions, model: RequestModel): Request {
  const { denoiser } = model;
  const { image, tile = DEFAULT_TILE } = options;
  const { strength = image && !isInpainting(denoiser) ? 0.75 : 1 } = options;
  const profile = profileFor(denoiser, options.profile);
  const { name: preset, preset: usual } = presetFor(denoiser, options.preset);
  const { guidance = 3.5, cfg = usual.cfg, steps = usual.steps, sampler = usual.sampler } = options;
  const { schedule = usual.schedule, noise = profile.rules.noise } = options;
  const unit = sideUnit(model);
  const side = usualSide(model, usual);
  const width = checkedSide('width', options.width ?? side, unit);
  const height = checkedSide('height', options.height ?? side, unit);
  const levels = levelsOf(denoiser, profile.name, options, width, height);
  const { discardPenultimate } = solverNamed(sampler);
  checkOptions({ ...options, noise, guidance, cfg, tile });
  const stepsCount = profile.name === 'comfy' ? 'taken' : 'whole';
  const sigmas = makeSigmas({
    ...{ schedule, model: levels, steps, strength, stepsCount, discardPenultimate },
  });
  const isFromPureNoise = sigmas[0]! > levels.sigmaMax * (1 - 1e-5);
  return {
    ...{ width, height, profile: profile.name, preset, sampler, schedule, sigmas, levels, cfg, noise, tile },
    steps: sigmas.length - 1,
    strength: image && strength,
    seeds: seedsOf(options),
    noiseScale: isFromPureNoise ? profile.rules.noiseScale : 'sigma',
    timesteps: profile.rules.timesteps,
    guidance: denoiser.family === 'flux' && denoiser.config.guidance_embed ? guidance : undefined,
    skipLayers: skippedLayers(denoiser, options, levels),
  };
}

type CheckedOptions = GenerateOptions &
  Required<Pick<Request, 'noise' | 'cfg' | 'tile'>> & { guidance: number };

/** What depends on no model. @throws KotobaError ERR_ARGUMENT */
function checkOptions({ noise, guidance, cfg, tile, ...options }: CheckedOptions): void {
  const { image, strength, mask, negativePrompt } = options;
  if (strength !== undefined && !image) throw wrong('strength', 'an image to start from', 'none');
  if (mask && !image) throw wrong('mask', 'an image to start from', 'none');
  if (noise !== 'torch' && noise !== 'philox') throw wrong('noise', 'torch or philox', noise);
  checkNumber('guidance', guidance, 0, 1000);
  checkNumber('cfg', cfg, 0, 1000);
  if (negativePrompt !== undefined && negativePrompt !== '' && cfg === 1)
    throw wrong('negativePrompt', 'a cfg above 1, without which it has no effect', `cfg ${cfg}`);
  checkWhole('tile', tile, 64, MOST_SIDE);
}

/** The noise levels that the denoiser was trained at. @throws KotobaError ERR_ARGUMENT */
function levelsOf(
  denoiser: DenoiserPart,
  profile: Profile,
  { shift }: GenerateOptions,
  width: number,
  height: number,
): SigmaModel {
  if (shift !== undefined) checkNumber('shift', shift, 1e-3, 1000);
  if (denoiser.slot === 'unet') {
    if (shift !== undefined) throw wrong('shift', 'none for a UNet', String(shift));
    const { prediction, zero_terminal_snr: zeroTerminalSnr } = denoiser.config;
    return scaledLinear({ prediction, zeroTerminalSnr });
  }
  if (denoiser.family === 'sd3') return sd3(shift);
  if (shift !== undefined) return fluxDev(Math.log(shift));
  if (!denoiser.config.guidance_embed) return fluxSchnell();
  return profile === 'comfy' ? fluxDev() : fluxDev(fluxMu(width, height));
}

/** Defaults as Stability AI gives them for SD3.5 Medium. @throws KotobaError ERR_ARGUMENT */
function skippedLayers(
  denoiser: DenoiserPart,
  { skipLayers }: GenerateOptions,
  levels: SigmaModel,
): SkippedLayers | undefined {
  const { scale = 2.5, layers = [7, 8, 9], start = 0.01, end = 0.2 } = skipLayers ?? { scale: 0 };
  if (scale === 0) return undefined;
  if (denoiser.family !== 'sd3') throw wrong('skipLayers', 'an SD3 or SD3.5 model', denoiser.description);
  checkNumber('skipLayers.scale', scale, 0, 1000);
  checkNumber('skipLayers.start', start, 0, 1);
  checkNumber('skipLayers.end', end, start, 1);
  const { depth } = denoiser.config;
  const absent = layers.find((layer) => !Number.isInteger(layer) || layer < 0 || layer >= depth);
  if (layers.length === 0 || absent !== undefined)
    throw wrong('skipLayers.layers', `blocks from 0 to ${depth - 1}`, String(absent ?? 'none'));
  const [from, to] = [levels.percentToSigma(start), levels.percentToSigma(end)];
  return { scale, layers, isActive: (sigma) => sigma <= from && sigma >= to };
}

function seedsOf({ seed, count = 1 }: GenerateOptions): bigint[] {
  checkWhole('count', count, 1, MOST_PICTURES);
  const first = seed === undefined ? randomSeed() : checkedSeed(seed);
  return Array.from({ length: count }, (_, i) => (first + BigInt(i)) & MAX_SEED);
}

/** Short enough to be typed again. */
const randomSeed = (): bigint => BigInt(randomBytes(4).readUInt32LE());

function checkedSeed(seed: number | bigint): bigint {
  const whole = typeof seed === 'bigint' || Number.isSafeInteger(seed);
  if (!whole || seed < 0 || BigInt(seed) > MAX_SEED)
    throw wrong('seed', `a whole number from 0 to ${MAX_SEED} (beyond 2^53 as a bigint)`, String(seed));
  return BigInt(seed);
}

/** @param unit what sides must be multiples of */
export const isSide = (pixels: number, unit: number): boolean =>
  Number.isInteger(pixels) && pixels >= unit && pixels <= MOST_SIDE && pixels % unit === 0;

function checkedSide(name: string, pixels: number, unit: number): number {
  if (isSide(pixels, unit)) return pixels;
  const down = Math.floor(pixels / unit) * unit;
  const near = pixels > unit && pixels < MOST_SIDE ? `; ${down} and ${down + unit} are near` : '';
  throw wrong(name, `a multiple of ${unit} from ${unit} to ${MOST_SIDE} pixels`, `${pixels}${near}`);
}

function checkWhole(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    throw wrong(name, `a whole number from ${least} to ${most}`, String(value));
}

function checkNumber(name: string, value: number, least: number, most: number): void {
  if (!(value >= least && value <= most))
    throw wrong(name, `a number from ${least} to ${most}`, String(value));
}

const wrong = (name: string, expected: string, got: string): KotobaError =>
  new KotobaError('ERR_ARGUMENT', `${name}: expected ${expected}, got ${got}`);
