/** What the pictures of one command line are called. */
import { extname, join } from 'node:path';
import { KotobaError } from '../errors.js';
import { requireNew, requireWritableFile, requireWritableFolder, statIfThere } from './output_path.js';

export interface PlannedPicture {
  readonly prompt: string;
  readonly seed: bigint;
}

const DEFAULT_NAME = '{prompt}-{seed}.png';
/** Bytes of a prompt in a name: file systems allow 255, and a temporary name needs some more. */
const MOST_SLUG_BYTES = 100;

/**
 * @param output a .png file, with {prompt}, {seed} and {n} replaced; or a folder, there or ending with "/". Several
 *   pictures of one name are numbered.
 * @returns a path for each picture
 * @throws KotobaError ERR_ARGUMENT, ERR_FILE_WRITE, ERR_FILE_EXISTS: nothing is made that could not be written
 */
export function picturePaths(
  output: string | undefined,
  pictures: readonly PlannedPicture[],
  overwrite: 'allow' | 'refuse',
): string[] {
  const pattern = patternOf(output, pictures.length);
  const digits = String(pictures.length).length;
  const paths = pictures.map(({ prompt, seed }, i) =>
    pattern
      .replaceAll('{seed}', String(seed))
      .replaceAll('{n}', String(i + 1).padStart(digits, '0'))
      .replaceAll('{prompt}', () => slug(prompt)),
  );
  const twice = paths.find((path, i) => paths.indexOf(path) < i);
  if (twice !== undefined)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `--output ${output ?? pattern}: several pictures would be ${twice}; add {n} or {seed} to the name`,
    );
  for (const path of paths) {
    if (isFolderName(output)) requireWritableFolder('--output', output!);
    else requireWritableFile('--output', path);
    if (overwrite === 'refuse') requireNew('--output', path);
  }
  return paths;
}

/** A folder that is there, or a name that asks for one. */
export const isFolderName = (output: string | undefined): boolean =>
  output !== undefined && (/[/\\]$/.test(output) || statIfThere(output)?.isDirectory() === true);

function patternOf(output: string | undefined, pictures: number): string {
  if (output === undefined || isFolderName(output)) {
    const name = join(output ?? '', DEFAULT_NAME);
    return name;
  }
  if (extname(output).toLowerCase() !== '.png')
    throw new KotobaError(
      'ERR_ARGUMENT',
      `--output: expected a .png file, or a folder with "/" at its end, got ${output}`,
    );
  if (pictures === 1 || /\{(seed|n|prompt)\}/.test(output)) return output;
  return `${output.slice(0, -extname(output).length)}-{n}${extname(output)}`;
}

/** "A red circle, please!" → "a-red-circle-please" */
export function slug(prompt: string): string {
  const words = prompt
    .normalize('NFKC')
    .toLowerCase()
    .match(/[\p{L}\p{N}\p{M}]+/gu);
  let name = '';
  for (const word of words ?? []) {
    const longer = name ? `${name}-${word}` : word;
    if (Buffer.byteLength(longer) > MOST_SLUG_BYTES) break;
    name = longer;
  }
  return name || 'picture';
}
