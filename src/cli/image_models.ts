/** Which files an image command runs: the parts of --model, each replaceable; without it, the model that ships. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { KotobaError } from '../errors.js';
import { isDenoiser, identify, openModel, selectPart, type Part, type Slot } from '../formats/index.js';
import { encoderSlots } from '../pipeline/conditioning/encoder_widths.js';
import { findModel, modelDirs } from '../pipeline/find_model.js';
import {
  ENCODER_SLOTS,
  type EncoderChoice,
  type EncoderSlot,
  type ImageModel,
  type PipelinePart,
} from '../pipeline/image_types.js';
import { shippedModel } from '../pipeline/shipped_model.js';
import type { CliContext } from './io.js';

/** In the order they are listed everywhere. */
export const IMAGE_PARTS: readonly PipelinePart[] = ['denoiser', ...ENCODER_SLOTS, 'vae'];

export const PART_NAMES: Readonly<Record<PipelinePart, string>> = {
  denoiser: 'UNet, SD3 or Flux.1 transformer',
  clip_l: 'CLIP-L text encoder',
  clip_g: 'CLIP-G text encoder',
  clip_h: 'CLIP-H text encoder',
  t5: 'T5 text encoder',
  vae: 'autoencoder',
};
const PART_OPTIONS: Readonly<Record<PipelinePart, string>> = {
  denoiser: '--model',
  clip_l: '--clip-l',
  clip_g: '--clip-g',
  clip_h: '--clip-h',
  t5: '--t5',
  vae: '--vae',
};

/** What leaves out an encoder that the model can do without. */
export const NONE = 'none' as const;

/** As named on the command line. */
export interface ImageModelFiles {
  readonly model?: string | undefined;
  readonly vae?: string | undefined;
  readonly clipL?: string | undefined;
  readonly clipG?: string | undefined;
  readonly clipH?: string | undefined;
  /** `none` leaves it out */
  readonly t5?: string | undefined;
}

/** A file for the denoiser and the autoencoder, and for each encoder that the denoiser takes. */
export type PartFiles = Readonly<Record<'denoiser' | 'vae', string> & Partial<Record<EncoderSlot, string>>>;

/** Where model names are searched: as everywhere, then in the model that ships, whose parts thus have names too. */
export const imageModelDirs = (context: CliContext, given: readonly string[]): string[] => [
  ...modelDirs(given, context.io.env),
  ...shippedFolders(),
];

function shippedFolders(): string[] {
  const folder = join(shippedModel().denoiser, '..');
  return existsSync(folder) ? [folder] : [];
}

/**
 * What --model holds of what its denoiser needs, without the parts that nothing gives.
 * @throws KotobaError ERR_FILE_*, ERR_FORMAT_*; ERR_MODEL_SLOT for a file without a denoiser
 */
export function partsOfModel(
  name: string | undefined,
  dirs: readonly string[],
): Partial<PartFiles> & Pick<PartFiles, 'denoiser'> {
  if (name === undefined) return shippedParts();
  const path = findModel(name, dirs);
  requireSlot('--model', path, 'denoiser');
  const parts = identify(openModel(path));
  const encoders = encoderSlots(parts.find(isDenoiser)!).map(({ slot }) => slot);
  const held = [...encoders, 'vae' as const].filter((slot) => parts.some((part) => fits(part, slot)));
  return { denoiser: path, ...Object.fromEntries(held.map((slot) => [slot, path])) };
}

function shippedParts(): PartFiles {
  const { denoiser, vae, encoders } = shippedModel();
  if (!existsSync(denoiser))
    throw new KotobaError(
      'ERR_FILE_NOT_FOUND',
      `${denoiser}: the small model that ships with Kotoba is not here; give another one with --model, or install again`,
    );
  const paths = Object.entries(encoders).map(([slot, { path }]) => [slot, path]);
  return { denoiser, vae, ...Object.fromEntries(paths) };
}

/**
 * @returns a file for each part
 * @throws KotobaError ERR_ARGUMENT naming every part that is missing, with its option; ERR_MODEL_SLOT, ERR_FILE_*
 */
export function imageModelFiles(files: ImageModelFiles, dirs: readonly string[]): PartFiles {
  const { vae, clipL: clip_l, clipG: clip_g, clipH: clip_h, t5 } = files;
  const own = partsOfModel(files.model, dirs);
  if (t5 === NONE) requireNoT5(own.denoiser);
  const named = Object.entries({ vae, clip_l, clip_g, clip_h, t5 }).flatMap(([slot, name]) =>
    name === undefined ? [] : [[slot, partFile(slot as PipelinePart, name, dirs)] as const],
  );
  return completed({ ...own, ...Object.fromEntries(named) }, files.model);
}

/** @throws KotobaError ERR_ARGUMENT for a denoiser that cannot do without T5 */
function requireNoT5(path: string): void {
  const denoiser = identify(openModel(path)).find(isDenoiser)!;
  const needsT5 = encoderSlots(denoiser).some(({ slot, isOptional }) => slot === 't5' && !isOptional);
  if (needsT5)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `--t5 ${NONE}: ${denoiser.description} cannot do without a T5: leave the option out, or give --t5 FILE`,
    );
}

/** A file that an option names, which must hold what the option is for; undefined for `none`, where that is possible. */
export function partFile(slot: PipelinePart, name: string, dirs: readonly string[]): string | undefined {
  if (slot === 't5' && name === NONE) return undefined;
  const path = findModel(name, dirs);
  requireSlot(PART_OPTIONS[slot], path, slot);
  return path;
}

/**
 * @param model as named, for messages
 * @throws KotobaError ERR_ARGUMENT for parts that are missing, and for encoders that the denoiser does not take
 */
export function completed(
  parts: Partial<PartFiles> & Pick<PartFiles, 'denoiser'>,
  model: string | undefined,
): PartFiles {
  const denoiser = identify(openModel(parts.denoiser)).find(isDenoiser)!;
  const taken = encoderSlots(denoiser);
  const option = (slot: PipelinePart): string => `the ${PART_NAMES[slot]} (${PART_OPTIONS[slot]} FILE)`;
  const superfluous = ENCODER_SLOTS.find(
    (slot) => parts[slot] !== undefined && taken.every((one) => one.slot !== slot),
  );
  if (superfluous !== undefined)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${PART_OPTIONS[superfluous]} ${parts[superfluous]}: ${denoiser.description} takes ` +
        listed(taken.map(({ slot }) => `the ${PART_NAMES[slot]} (${PART_OPTIONS[slot]})`)),
    );
  const needed = taken.flatMap(({ slot, isOptional }) => (isOptional ? [] : [slot]));
  const missing = [...needed, 'vae' as const].filter((slot) => parts[slot] === undefined);
  if (missing.length === 0) return parts as PartFiles;
  throw new KotobaError(
    'ERR_ARGUMENT',
    `--model ${model}: holds not everything; missing: ${listed(missing.map(option))}`,
  );
}

/** "a, b and c" */
function listed(texts: readonly string[]): string {
  const [last, ...rest] = texts.toReversed();
  return rest.length > 0 ? `${rest.reverse().join(', ')} and ${last}` : last!;
}

const fits = (part: Part, slot: PipelinePart): boolean => {
  if (slot === 'denoiser') return isDenoiser(part);
  return part.fits.includes(slot) || (slot === 'clip_l' && part.slot === 'longclip_l');
};

/** The part of a pipeline that fills this slot, if any does. */
export function pipelinePart(slot: Slot): PipelinePart | undefined {
  if (slot === 'unet' || slot === 'transformer') return 'denoiser';
  if (slot === 'longclip_l') return 'clip_l';
  return IMAGE_PARTS.find((part) => part === slot);
}

function requireSlot(option: string, path: string, slot: PipelinePart): void {
  const model = openModel(path);
  const parts = identify(model);
  if (parts.some((part) => fits(part, slot))) return;
  if (parts.length === 0) selectPart(model); // throws, with what it looks like instead
  const [only, another] = parts;
  const right = another === undefined ? pipelinePart(only!.slot) : undefined;
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `${option} ${path}: expected a file with a ${PART_NAMES[slot]}, it holds ` +
      parts.map(({ description }) => description).join('; ') +
      (right ? `: that is for ${PART_OPTIONS[right]}` : ''),
  );
}

/** As the pipeline takes it. @param settings what an encoder's choice has besides its file */
export function imageModel(
  { denoiser, vae, ...encoders }: PartFiles,
  settings: (slot: EncoderSlot) => Omit<EncoderChoice, 'path'>,
): ImageModel {
  const choices = ENCODER_SLOTS.flatMap((slot) => {
    const path = encoders[slot];
    return path === undefined ? [] : [[slot, { path, ...settings(slot) }] as const];
  });
  return { denoiser, vae, encoders: Object.fromEntries(choices) };
}
