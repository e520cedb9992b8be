/** Options that commands which make pictures share, and what the pipeline takes for them. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { KotobaError } from '../errors.js';
import type { Slot } from '../formats/index.js';
import { readPicture } from '../image/index.js';
import {
  ENCODER_SLOTS,
  PROFILES,
  type EncoderChoice,
  type EncoderSlot,
  type GenerateOptions,
  type Profile,
  type Residency,
} from '../pipeline/image_types.js';
import type { Precision } from '../pipeline/precision.js';
import { PRESETS } from '../pipeline/painting/presets.js';
import { MAX_SEED, SCHEDULES, SOLVERS } from '../sampling/index.js';
import type { PromptDialect } from '../text/index.js';
import { deviceOption, threadsOption, vramOption, type DeviceFlags } from './device.js';
import type { CliContext } from './io.js';
import * as option from './options.js';

const RESIDENCIES = ['auto', 'lean', 'keep'] as const satisfies readonly Residency[];
const NOISES = ['torch', 'philox'] as const;

export interface ImageCommandOptions extends DeviceFlags {
  model?: string;
  vae?: string;
  t5Tokenizer?: string;
  config?: option.PerSlot<Readonly<Record<string, unknown>>>;
  residency: Residency;
  profile?: Profile;
  preset?: string;
  size?: PictureSize;
  width?: number;
  height?: number;
  steps?: number;
  sampler?: string;
  schedule?: string;
  guidance?: number;
  cfg?: number;
  negative?: string;
  shift?: number;
  slg?: SkipLayersFlag;
  clipSkip?: number;
  noise?: 'torch' | 'philox';
  image?: string;
  mask?: string;
  strength?: number;
  dialect?: PromptDialect;
  t5Length?: option.T5LengthValue;
  tile?: number;
  promptFile: readonly string[];
  modelsDir: readonly string[];
  force?: boolean;
  json?: boolean;
}

export interface PictureSize {
  readonly width: number;
  readonly height: number;
}

/** As --precision and --config name the network that pictures are sampled from. */
export const DENOISER_SLOTS = ['transformer', 'unet'] as const satisfies readonly Slot[];

/** Files; those of the encoders are the commands' own: some take several. */
export function addModelOptions(command: Command): Command {
  return command
    .optionsGroup('Model:')
    .option(
      '--model <file>',
      'checkpoint, UNet, SD3 or Flux.1 transformer (default: the small model that ships)',
    )
    .option('--vae <file>', "autoencoder (default: the model's)")
    .addOption(option.t5TokenizerOption())
    .addOption(option.modelsDirOption())
    .addOption(
      new Option(
        '--config <file|json>',
        "what the denoiser's file does not tell; also t5=FILE, clip_l=FILE",
      ).argParser(option.perSlot(option.parseConfig)),
    );
}

/** How the picture is made. */
export function addSamplingOptions(command: Command): Command {
  const number = (flags: string, text: string, parse: (value: string) => number): Option =>
    new Option(flags, text).argParser(parse);
  const pixels = option.wholeNumber(1);
  return command
    .optionsGroup('Picture:')
    .addOption(
      new Option(
        '--profile <name>',
        'whose rules prompts are read by and seeds stand for (default: bfl for Flux, else comfy)',
      ).choices(PROFILES),
    )
    .addOption(
      new Option(
        '--preset <name>',
        "steps, sampler, schedule and guidance of distilled models (default: by the file's name)",
      ).choices(PRESETS),
    )
    .addOption(
      new Option(
        '--size <WxH>',
        'pixels, multiples of 16, of 64 for UNets (default: what the model was trained on)',
      )
        .argParser(parseSize)
        .conflicts(['width', 'height']),
    )
    .addOption(number('--width <n>', 'pixels, in the place of --size', pixels))
    .addOption(number('--height <n>', 'pixels, in the place of --size', pixels))
    .addOption(
      number(
        '--steps <n>',
        'denoising steps (default: 4 for schnell and distilled models, 25 for UNets, else 28)',
        option.wholeNumber(1),
      ),
    )
    .addOption(
      new Option('--sampler <name>', 'solver (default: euler for Flux, else dpmpp_2m)').choices(
        Object.keys(SOLVERS),
      ),
    )
    .addOption(
      new Option(
        '--schedule <name>',
        'noise levels (default: flux, karras for UNets, normal for SD3)',
      ).choices(Object.keys(SCHEDULES)),
    )
    .addOption(number('--guidance <n>', 'distilled guidance of Flux dev (default: 3.5)', decimal))
    .addOption(
      number(
        '--cfg <n>',
        'guidance against the negative prompt, 1: none (default: Flux 1, UNets 7, SD3 4.5)',
        decimal,
      ),
    )
    .option('--negative <prompt>', 'what not to show; needs a --cfg above 1')
    .addOption(number('--shift <n>', 'of the noise levels of SD3 (default: 3) and Flux', decimal))
    .addOption(
      new Option(
        '--slg <scale[:layers]>',
        'skip-layer guidance of SD3.5 Medium: 2.5, or 2.5:7,8,9',
      ).argParser(parseSkipLayers),
    )
    .addOption(
      number(
        '--clip-skip <n>',
        "which of CLIP's states, 1: the last (default: SD1 1, others 2)",
        option.wholeNumber(1),
      ),
    )
    .addOption(
      new Option(
        '--noise <generator>',
        "whose random numbers: torch as ComfyUI's, philox as A1111's (default: the profile's)",
      ).choices(NOISES),
    )
    .option('--image <file>', 'a picture to start from')
    .option('--mask <file>', 'where to paint in it: white anew, black kept')
    .addOption(
      number(
        '--strength <n>',
        'how much of it to replace, up to 1 (default: 0.75, for inpainting models 1)',
        decimal,
      ),
    )
    .addOption(
      new Option('--dialect <name>', "how (word:1.2) is read (default: the profile's)").choices(
        option.DIALECTS,
      ),
    )
    .addOption(
      new Option(
        '--t5-length <name|n>',
        "T5's tokens, or as a model has them (default: the profile's, or what the file says)",
      ).argParser(option.parseT5Length),
    )
    .addOption(number('--tile <pixels>', 'side of the tiles that are decoded (default: 1024)', pixels));
}

/** Where and with what means. */
export function addRunOptions(command: Command): Command {
  return command
    .optionsGroup('Run:')
    .addOption(
      new Option('--prompt-file <file>', 'more prompts, one a line; may be repeated')
        .default([], 'none')
        .argParser(option.repeated),
    )
    .addOption(
      new Option('--residency <policy>', 'lean: each part is released after its work; keep: all stay')
        .choices(RESIDENCIES)
        .default('auto'),
    )
    .addOption(deviceOption())
    .addOption(vramOption())
    .addOption(threadsOption())
    .option('--force', 'overwrite files that are there')
    .addOption(option.jsonOption());
}

/** Everything about sampling; reads the picture to start from. @throws KotobaError ERR_ARGUMENT, ERR_IMAGE_*, ERR_FILE_* */
export async function samplingOptions(
  { signal }: CliContext,
  options: ImageCommandOptions,
): Promise<GenerateOptions> {
  const { size, steps, sampler, schedule, guidance, cfg, noise, strength, dialect, t5Length, tile } = options;
  const { profile, preset, shift, clipSkip, slg: skipLayers } = options;
  if (strength !== undefined && options.image === undefined)
    throw wrong('--strength', 'needs a picture to start from: --image FILE');
  if (options.mask !== undefined && options.image === undefined)
    throw wrong('--mask', 'needs a picture to start from: --image FILE');
  if (strength !== undefined && !(strength > 0 && strength <= 1))
    throw wrong('--strength', `expected more than 0, up to 1, got ${strength}`);
  if (options.negative !== undefined && cfg === 1)
    throw wrong('--negative', 'has no effect at --cfg 1: give --cfg 2, for example');
  return {
    signal,
    width: size?.width ?? options.width,
    height: size?.height ?? options.height,
    ...{ steps, sampler, schedule, guidance, cfg, noise, strength, dialect, t5Length, tile },
    ...{ profile, preset, shift, clipSkip, skipLayers },
    negativePrompt: options.negative,
    image: options.image === undefined ? undefined : await readPicture(options.image),
    mask: options.mask === undefined ? undefined : await readPicture(options.mask),
  };
}

const wrong = (name: string, what: string): KotobaError =>
  new KotobaError('ERR_ARGUMENT', `${name}: ${what}`);

/** What an encoder's choice has besides its file. */
export function encoderSettings(
  slot: EncoderSlot,
  options: Pick<ImageCommandOptions, 'config' | 't5Tokenizer'>,
  precision: Precision | undefined,
): Omit<EncoderChoice, 'path'> {
  const config = options.config?.slots.get(slot);
  return {
    ...(precision && { precision }),
    ...(config && { config }),
    ...(slot === 't5' && options.t5Tokenizer !== undefined && { tokenizer: options.t5Tokenizer }),
  };
}

/** --config is for these: without a slot, for the denoiser. */
export const CONFIG_SLOTS: readonly Slot[] = [...DENOISER_SLOTS, ...ENCODER_SLOTS];

export const denoiserConfig = ({ config }: Pick<ImageCommandOptions, 'config'>) => denoiserValue(config);

/** Of the denoiser, which people call by what it is. */
export const denoiserValue = <T>(values: option.PerSlot<T> | undefined): T | undefined =>
  DENOISER_SLOTS.map((slot) => values?.slots.get(slot)).find((value) => value !== undefined) ?? values?.all;

/** --slg */
type SkipLayersFlag = NonNullable<GenerateOptions['skipLayers']>;

function parseSkipLayers(text: string): SkipLayersFlag {
  const [, scale, layers] = /^([^:]+)(?::(\d+(?:,\d+)*))?$/.exec(text.trim()) ?? [];
  if (scale === undefined)
    throw new InvalidArgumentError(`expected a scale, or a scale and blocks as in 2.5:7,8,9, got "${text}".`);
  return { scale: decimal(scale), ...(layers && { layers: layers.split(',').map(Number) }) };
}

/** "768x512", "768×512" or "512". */
export function parseSize(text: string): PictureSize {
  const [, width, height = width] = /^(\d{1,9})(?:[x×*](\d{1,9}))?$/i.exec(text.trim()) ?? [];
  if (width === undefined)
    throw new InvalidArgumentError(`expected WIDTHxHEIGHT in pixels, for example 768x512, got "${text}".`);
  return { width: Number(width), height: Number(height) };
}

export function decimal(text: string): number {
  const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text.trim()) ? Number(text) : NaN;
  if (!Number.isFinite(value)) throw new InvalidArgumentError(`expected a number, got "${text}".`);
  return value;
}

export function parseSeed(text: string): bigint {
  const seed = /^\d{1,20}$/.test(text.trim()) ? BigInt(text.trim()) : -1n;
  if (seed < 0n || seed > MAX_SEED)
    throw new InvalidArgumentError(`expected a whole number from 0 to ${MAX_SEED}, got "${text}".`);
  return seed;
}
