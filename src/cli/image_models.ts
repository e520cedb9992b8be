/** Which files an image command runs: the parts of --model, each replaceable; without it, the model that ships. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { KotobaError } from '../errors.js';
import { identify, openModel, selectPart, type Part, type Slot } from '../formats/index.js';
import { findModel, modelDirs } from '../pipeline/find_model.js';
import type { ImageModel } from '../pipeline/image_types.js';
import { shippedModel } from '../pipeline/shipped_model.js';
import type { CliContext } from './io.js';

/** In the order they are listed everywhere. */
export const IMAGE_PARTS = ['transformer', 'clip_l', 't5', 'vae'] as const;
export type ImagePart = (typeof IMAGE_PARTS)[number];

export const PART_NAMES: Readonly<Record<ImagePart, string>> = {
  transformer: 'Flux.1 transformer',
  clip_l: 'CLIP-L text encoder',
  t5: 'T5 text encoder',
  vae: 'autoencoder',
};
const PART_OPTIONS: Readonly<Record<ImagePart, string>> = {
  transformer: '--model',
  clip_l: '--clip-l',
  t5: '--t5',
  vae: '--vae',
};

/** As named on the command line; an option that may be repeated hands in one at a time. */
export interface ImageModelFiles {
  readonly model?: string | undefined;
  readonly vae?: string | undefined;
  readonly clipL?: string | undefined;
  readonly t5?: string | undefined;
}

export type PartFiles = Readonly<Record<ImagePart, string>>;

/** Where model names are searched: as everywhere, then in the model that ships, whose parts thus have names too. */
export const imageModelDirs = (context: CliContext, given: readonly string[]): string[] => [
  ...modelDirs(given, context.io.env),
  ...shippedFolders(),
];

function shippedFolders(): string[] {
  const folder = join(shippedModel().transformer, '..');
  return existsSync(folder) ? [folder] : [];
}

/**
 * What --model holds, without the parts that nothing gives.
 * @throws KotobaError ERR_FILE_*, ERR_FORMAT_*; ERR_MODEL_SLOT for a file without a transformer
 */
export function partsOfModel(name: string | undefined, dirs: readonly string[]): Partial<PartFiles> {
  if (name === undefined) return shippedParts();
  const path = findModel(name, dirs);
  requireSlot('--model', path, 'transformer');
  const parts = identify(openModel(path));
  return Object.fromEntries(
    IMAGE_PARTS.filter((slot) => parts.some((part) => fits(part, slot))).map((slot) => [slot, path]),
  );
}

function shippedParts(): PartFiles {
  const { transformer, vae, encoders } = shippedModel();
  if (!existsSync(transformer))
    throw new KotobaError(
      'ERR_FILE_NOT_FOUND',
      `${transformer}: the small model that ships with Kotoba is not here; give another one with --model, or install again`,
    );
  return { transformer, vae, clip_l: encoders.clip_l.path, t5: encoders.t5.path };
}

/**
 * @returns a file for each part
 * @throws KotobaError ERR_ARGUMENT naming every part that is missing, with its option; ERR_MODEL_SLOT, ERR_FILE_*
 */
export function imageModelFiles(files: ImageModelFiles, dirs: readonly string[]): PartFiles {
  const own = partsOfModel(files.model, dirs);
  const given = { vae: files.vae, clip_l: files.clipL, t5: files.t5 };
  const named = Object.entries(given).flatMap(([slot, name]) =>
    name === undefined ? [] : [[slot, partFile(slot as ImagePart, name, dirs)] as const],
  );
  return completed({ ...own, ...Object.fromEntries(named) }, files.model);
}

/** A file that an option names, which must hold what the option is for. */
export function partFile(slot: ImagePart, name: string, dirs: readonly string[]): string {
  const path = findModel(name, dirs);
  requireSlot(PART_OPTIONS[slot], path, slot);
  return path;
}

/** @throws KotobaError ERR_ARGUMENT */
export function completed(parts: Partial<PartFiles>, model: string | undefined): PartFiles {
  const missing = IMAGE_PARTS.filter((slot) => parts[slot] === undefined);
  if (missing.length === 0) return parts as PartFiles;
  const list = missing.map((slot) => `the ${PART_NAMES[slot]} (${PART_OPTIONS[slot]} FILE)`);
  const last = list.pop()!;
  const all = list.length > 0 ? `${list.join(', ')} and ${last}` : last;
  throw new KotobaError('ERR_ARGUMENT', `--model ${model}: holds not everything; missing: ${all}`);
}

const fits = (part: Part, slot: ImagePart): boolean =>
  part.fits.includes(slot) || (slot === 'clip_l' && part.slot === 'longclip_l');

/** The option that a part of this slot belongs to, if any does. */
const optionFor = (slot: Slot): string | undefined =>
  PART_OPTIONS[(slot === 'longclip_l' ? 'clip_l' : slot) as ImagePart];

function requireSlot(option: string, path: string, slot: ImagePart): void {
  const model = openModel(path);
  const parts = identify(model);
  if (parts.some((part) => fits(part, slot))) return;
  if (parts.length === 0) selectPart(model); // throws, with what it looks like instead
  const [only, another] = parts;
  const right = another === undefined ? optionFor(only!.slot) : undefined;
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `${option} ${path}: expected a file with a ${PART_NAMES[slot]}, it holds ` +
      parts.map(({ description }) => description).join('; ') +
      (right ? `: that is for ${right}` : ''),
  );
}

/** As the pipeline takes it. */
export function imageModel(
  files: PartFiles,
  encoders: { readonly clip_l: object; readonly t5: object },
): ImageModel {
  return {
    transformer: files.transformer,
    vae: files.vae,
    encoders: { clip_l: { path: files.clip_l, ...encoders.clip_l }, t5: { path: files.t5, ...encoders.t5 } },
  };
}
