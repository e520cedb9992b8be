/** Where a command writes to: everything that can be wrong with it is found before the work begins. */
import { accessSync, constants, statSync, type Stats } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { KotobaError } from '../errors.js';

/** Also where a file stands in the place of a folder above: what is there is then found by asking for that folder. */
export function statIfThere(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

/** @throws KotobaError ERR_FILE_WRITE if `path` is a folder, or its folder is not there or takes no files */
export function requireWritableFile(option: string, path: string): void {
  if (statIfThere(path)?.isDirectory())
    throw new KotobaError('ERR_FILE_WRITE', `${option} ${path}: expected a file, got a folder`);
  requireAccess(option, path, dirname(resolve(path)));
}

/** The folder may be there or not: then the nearest one above it must take it. @throws KotobaError ERR_FILE_WRITE */
export function requireWritableFolder(option: string, path: string): void {
  const stat = statIfThere(path);
  if (stat && !stat.isDirectory())
    throw new KotobaError('ERR_FILE_WRITE', `${option} ${path}: expected a folder, got a file`);
  let above = resolve(path);
  while (!statIfThere(above) && dirname(above) !== above) above = dirname(above);
  requireAccess(option, path, above);
}

function requireAccess(option: string, path: string, folder: string): void {
  try {
    if (!statSync(folder).isDirectory()) throw new Error(`${folder} is a file, not a folder`);
    accessSync(folder, constants.W_OK);
  } catch (cause) {
    throw new KotobaError('ERR_FILE_WRITE', `${option} ${path}: ${(cause as Error).message}`, { cause });
  }
}

/** @throws KotobaError ERR_FILE_EXISTS if writing `path` would lose a file that the command reads */
export function requireNoInput(option: string, path: string, inputs: readonly string[]): void {
  const existing = statIfThere(path);
  if (!existing) return;
  for (const input of inputs) {
    const stat = statIfThere(input);
    if (stat && existing.dev === stat.dev && existing.ino === stat.ino)
      throw new KotobaError(
        'ERR_FILE_EXISTS',
        `${option} ${path}: is an input too, and would be overwritten`,
      );
  }
}

/** @throws KotobaError ERR_FILE_EXISTS */
export function requireNew(option: string, path: string): void {
  if (statIfThere(path))
    throw new KotobaError('ERR_FILE_EXISTS', `${option} ${path}: is there already; --force overwrites it`);
}

/**
 * With the folders above it. One by one: Node's own recursive mkdir never ends where a file system refuses with ENOENT.
 * @throws KotobaError ERR_FILE_WRITE
 */
export async function makeFolder(option: string, path: string): Promise<void> {
  const missing: string[] = [];
  for (let folder = resolve(path); !statIfThere(folder); folder = dirname(folder)) missing.unshift(folder);
  try {
    for (const folder of missing) await mkdir(folder);
  } catch (cause) {
    throw new KotobaError('ERR_FILE_WRITE', `${option} ${path}: ${(cause as Error).message}`, { cause });
  }
}
