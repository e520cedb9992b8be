/** Writing a file through a temporary name beside it, so that nobody ever sees, or keeps, half a file. */
import { open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { KotobaError } from './errors.js';

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full: free some space or choose another folder',
  EDQUOT: 'the disk quota is used up: free some space or choose another folder',
  EFBIG: 'the file is larger than this disk or process may write',
  ENOENT: 'its folder does not exist: make it first',
  ENOTDIR: 'its folder is a file',
  EACCES: 'no permission to write there',
  EPERM: 'no permission to write there',
  EROFS: 'the disk is read-only',
  EISDIR: 'it is a folder: give a file name',
};

/** Looks at a file that is written and whole, under its temporary name; what it throws undoes the writing. */
export type CheckFile = (temporary: string) => Promise<void>;

/**
 * @param parts written one after the other; an error of theirs that has a code is passed on
 * @throws KotobaError ERR_FILE_WRITE; what was at `path` is then as it was before, and nothing is left beside it
 */
export async function writeAtomically(
  path: string,
  parts: Iterable<NodeJS.ArrayBufferView> | AsyncIterable<NodeJS.ArrayBufferView>,
  check?: CheckFile,
): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.${serial++}.tmp`);
  try {
    const file = await open(temporary, 'wx');
    try {
      for await (const part of parts)
        await file.writeFile(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
      await file.sync();
    } finally {
      await file.close();
    }
    await check?.(temporary);
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => undefined); // the first error is the one to tell
    if (cause instanceof KotobaError) throw cause;
    const { code = '', message } = cause as NodeJS.ErrnoException;
    throw new KotobaError('ERR_FILE_WRITE', `${path}: cannot write: ${REASONS[code] ?? message}`, { cause });
  }
}

/** Two writes of one name at once each have their own temporary file. */
let serial = 0;
