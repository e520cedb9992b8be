/** What a GenerateOptions comes to for one model: every default filled in, everything checked. */
import { randomBytes } from 'node:crypto';
import { KotobaError } from '../errors.js';
import type { FluxConfig } from '../formats/index.js';
import { fluxDev, fluxMu, fluxSchnell, makeSigmas, solverNamed, type SigmaModel } from '../sampling/index.js';
import type { GenerateOptions } from './image_types.js';

export interface Request {
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly seeds: readonly bigint[];
  readonly sampler: string;
  readonly schedule: string;
  readonly sigmas: readonly number[];
  readonly levels: SigmaModel;
  /** distilled guidance; undefined where the model has none */
  readonly guidance: number | undefined;
  readonly cfg: number;
  readonly noise: 'torch' | 'philox';
  readonly tile: number;
}

/** Sides of pictures must be multiples of this: the autoencoder's factor times a patch of two latents. */
export const SIDE_UNIT = 16;
const MOST_SIDE = 16384;
const MOST_PICTURES = 1000;
const DEFAULT_TILE = 1024;
const MAX_SEED = 2n ** 64n - 1n;

/**
 * @param side pixels of the square pictures that the model was trained on
 * @throws KotobaError ERR_ARGUMENT, naming the option
 */
export function resolveRequest(options: GenerateOptions, config: FluxConfig, side: number): Request {
  const { guidance = 3.5, cfg = 1, image, strength = image ? 0.75 : 1, tile = DEFAULT_TILE } = options;
  const width = checkedSide('width', options.width ?? side);
  const height = checkedSide('height', options.height ?? side);
  const steps = options.steps ?? (config.guidance_embed ? 28 : 4);
  const sampler = options.sampler ?? 'euler';
  const schedule = options.schedule ?? 'flux';
  const noise = options.noise ?? 'torch';
  const { discardPenultimate } = solverNamed(sampler);
  const levels = config.guidance_embed ? fluxDev(fluxMu(width, height)) : fluxSchnell();
  if (options.strength !== undefined && !image) throw wrong('strength', 'an image to start from', 'none');
  if (noise !== 'torch' && noise !== 'philox') throw wrong('noise', 'torch or philox', noise);
  checkNumber('guidance', guidance, 0, 1000);
  checkNumber('cfg', cfg, 0, 1000);
  if (options.negativePrompt !== undefined && options.negativePrompt !== '' && cfg === 1)
    throw wrong('negativePrompt', 'a cfg above 1, without which it has no effect', `cfg ${cfg}`);
  checkWhole('tile', tile, 64, MOST_SIDE);
  const sigmas = makeSigmas({
    schedule,
    model: levels,
    steps,
    strength,
    stepsCount: 'whole',
    discardPenultimate,
  });
  return {
    width,
    height,
    steps: sigmas.length - 1,
    seeds: seedsOf(options),
    sampler,
    schedule,
    sigmas,
    levels,
    guidance: config.guidance_embed ? guidance : undefined,
    cfg,
    noise,
    tile,
  };
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

export const isSide = (pixels: number): boolean =>
  Number.isInteger(pixels) && pixels >= SIDE_UNIT && pixels <= MOST_SIDE && pixels % SIDE_UNIT === 0;

function checkedSide(name: string, pixels: number): number {
  if (isSide(pixels)) return pixels;
  const down = Math.floor(pixels / SIDE_UNIT) * SIDE_UNIT;
  const near = pixels > SIDE_UNIT && pixels < MOST_SIDE ? `; ${down} and ${down + SIDE_UNIT} are near` : '';
  throw wrong(
    name,
    `a multiple of ${SIDE_UNIT} from ${SIDE_UNIT} to ${MOST_SIDE} pixels`,
    `${pixels}${near}`,
  );
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
