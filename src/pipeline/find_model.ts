/**
 * Model files by name: searched in models folders, with the layouts of ComfyUI (`models/clip`, `text_encoders`,
 * `unet`, `diffusion_models`, `checkpoints`, `vae`), Forge (`models/text_encoder`, `VAE`, `Stable-diffusion`) and
 * programs that spell them otherwise (`Models/TextEncoders`), down to two folders deeper, as those programs list them.
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { delimiter, extname, isAbsolute, join } from 'node:path';
import { KotobaError } from '../errors.js';
import { cachedName, cacheFolder, namedOffline } from '../hub/index.js';

/** Compared without case, hyphens and underscores. */
const LAYOUT_FOLDERS = new Set([
  'clip',
  'textencoder',
  'textencoders',
  'unet',
  'diffusionmodels',
  'checkpoints',
  'stablediffusion',
  'vae',
]);
const EXTENSIONS = ['.safetensors', '.sft', '.gguf'] as const;
const SUB_FOLDERS_DEEP = 2;
const MOST_SUGGESTIONS = 5;

/** Folders to search: those given, then KOTOBA_MODELS. */
export function modelDirs(
  given: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): string[] {
  return [...given, ...(env['KOTOBA_MODELS'] ?? '').split(delimiter)].filter((dir) => dir !== '');
}

/**
 * @param name a path, or the name of a file or folder in one of `dirs`, with or without its extension; else a name that
 *   `kotoba pull` takes, of what is in the Hub's cache already: nothing is downloaded here
 * @returns a path that exists; for an absolute or dotted path the path itself, whether it exists or not
 * @throws KotobaError ERR_FILE_NOT_FOUND with the folders looked in and similar names; ERR_ARGUMENT for a name that
 *   several files have
 */
export function findModel(name: string, dirs: readonly string[]): string {
  if (existsSync(name) || isAbsolute(name) || /^\.\.?(\/|$)/.test(name) || name === '') return name;
  const folders = dirs.flatMap(searchedFolders);
  for (const candidates of [[name], EXTENSIONS.map((extension) => name + extension)]) {
    const found = differentFiles(
      folders.flatMap((folder) => candidates.map((candidate) => join(folder, candidate))),
    );
    if (found.length === 1) return found[0]!;
    if (found.length > 1)
      throw new KotobaError(
        'ERR_ARGUMENT',
        `${name}: ${found.length} files have this name: ${found.join(' and ')}; give the path of one of them`,
      );
  }
  const pulled = cachedName(cacheFolder(process.env), name);
  if (pulled !== undefined) return pulled;
  throw notFound(name, dirs, folders);
}

function notFound(name: string, dirs: readonly string[], folders: readonly string[]): KotobaError {
  if (namedOffline(name))
    return new KotobaError(
      'ERR_FILE_NOT_FOUND',
      `${name}: a name of the Hugging Face Hub, not downloaded yet: kotoba pull ${name}`,
    );
  const similar = similarNames(name, folders);
  const where = dirs.length
    ? `nor in ${dirs.join(', ')} and ${folders.length - dirs.length} folders there`
    : 'and no models folder to search: set KOTOBA_MODELS or --models-dir';
  const hint = similar.length ? `. Similar names: ${similar.join(', ')}` : '';
  return new KotobaError('ERR_FILE_NOT_FOUND', `${name}: not here, ${where}${hint}`);
}

/** The folder itself, its layout folders and those of its `models`, each with what lies below. */
function searchedFolders(dir: string): string[] {
  const models = subFolders(dir).filter((sub) => plainName(sub) === 'models');
  const layout = [dir, ...models].flatMap((base) =>
    subFolders(base).filter((sub) => LAYOUT_FOLDERS.has(plainName(sub))),
  );
  return [dir, ...models, ...layout.flatMap((folder) => withSubFolders(folder, SUB_FOLDERS_DEEP))];
}

function withSubFolders(folder: string, deep: number): string[] {
  const below = deep === 0 ? [] : subFolders(folder).flatMap((sub) => withSubFolders(sub, deep - 1));
  return [folder, ...below];
}

/** Paths; none where the folder cannot be read: a search goes on elsewhere. */
function subFolders(folder: string): string[] {
  return entries(folder)
    .map((name) => join(folder, name))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isDirectory());
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

const plainName = (path: string): string =>
  path
    .slice(path.lastIndexOf('/') + 1)
    .toLowerCase()
    .replace(/[-_ ]/g, '');

/** Paths that exist, one for each file: a link to another of them is the same file. */
function differentFiles(paths: readonly string[]): string[] {
  const byFile = new Map<string, string>();
  for (const path of paths) {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat) continue;
    const file = `${stat.dev}:${stat.ino}`;
    if (!byFile.has(file)) byFile.set(file, path);
  }
  return [...byFile.values()];
}

/** Names that hold the one asked for, or are held by it. */
function similarNames(name: string, folders: readonly string[]): string[] {
  const stem = (text: string): string =>
    text
      .slice(0, text.length - extname(text).length)
      .toLowerCase()
      .replace(/[-_. ]/g, '');
  const asked = stem(name);
  const all = new Set(folders.flatMap(entries).filter((file) => /\.(safetensors|sft|gguf)$/i.test(file)));
  return [...all]
    .filter((file) => asked !== '' && (stem(file).includes(asked) || asked.includes(stem(file))))
    .slice(0, MOST_SUGGESTIONS);
}
