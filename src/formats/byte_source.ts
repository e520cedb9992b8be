/** Positioned reads of a file's header, with coded errors; tests and the fuzzer read from memory instead. */
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { KotobaError } from '../errors.js';

export interface ByteSource {
  readonly path: string;
  /** bytes in the whole file */
  readonly size: number;
  /** Exactly `length` bytes; the caller has checked them against `size`. */
  read(offset: number, length: number): Buffer;
}

export function memorySource(bytes: Uint8Array, path = '(memory)'): ByteSource {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { path, size: buffer.length, read: (offset, length) => buffer.subarray(offset, offset + length) };
}

/** Opens `path`, hands it to `use`, closes it. */
export function withFile<T>(path: string, use: (source: ByteSource) => T): T {
  return guarded(path, () => {
    // Opening a FIFO waits for a writer unless told not to.
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) throw new KotobaError('ERR_FILE_READ', `${path}: not a regular file`);
      return use({
        path,
        size: stat.size,
        read: (offset, length) => readAll(fd, path, offset, length),
      });
    } finally {
      closeSync(fd);
    }
  });
}

function readAll(fd: number, path: string, offset: number, length: number): Buffer {
  const buffer = Buffer.allocUnsafe(length);
  for (let done = 0; done < length;) {
    const n = readSync(fd, buffer, done, length - done, offset + done);
    if (n === 0)
      throw new KotobaError(
        'ERR_FILE_READ',
        `${path}: the file ended at byte ${offset + done} while it was read`,
      );
    done += n;
  }
  return buffer;
}

export function statFile(path: string): Stats {
  return guarded(path, () => statSync(path));
}

/** Runs a file system call, turning Node's errors into coded ones. */
export function guarded<T>(path: string, call: () => T): T {
  try {
    return call();
  } catch (cause) {
    if (cause instanceof KotobaError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === undefined) throw cause;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ERR_INVALID_ARG_VALUE')
      throw new KotobaError('ERR_FILE_NOT_FOUND', `${printable(path)}: no such file or folder`, { cause });
    const why = code === 'EACCES' || code === 'EPERM' ? 'no permission to read it' : message;
    throw new KotobaError('ERR_FILE_READ', `${printable(path)}: cannot be read: ${why}`, { cause });
  }
}

const printable = (path: string): string => path.replaceAll('\0', '\\0');
