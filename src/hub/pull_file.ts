/** One file of a repository, from the cache or into it; or into a folder of its own. */
import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { KotobaError } from '../errors.js';
import type { HubAccess } from './access.js';
import { blobPath, cachedFile, linkSnapshot, snapshotPath, writeRef } from './cache.js';
import { checksumOf } from './checksum.js';
import { downloadTo, type DownloadOptions } from './download.js';
import { remoteFile, type RemoteFile } from './remote_file.js';

export interface PullOptions extends DownloadOptions {
  /** a folder to put it in, under its name alone, in the place of the cache */
  readonly dir?: string | undefined;
  /** default main */
  readonly revision?: string | undefined;
}

export interface Pulled {
  readonly path: string;
  readonly bytes: number;
  /** `offline`: the cache has it, and whether it is the latest could not be asked */
  readonly from: 'hub' | 'cache' | 'offline';
  readonly commit?: string | undefined;
}

const REPOSITORY = /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/;

/** @throws KotobaError ERR_ARGUMENT for what can be no repository, or a path that leaves it */
export function requireNames(repository: string, file: string): void {
  if (!REPOSITORY.test(repository) || repository.includes('..'))
    throw new KotobaError('ERR_ARGUMENT', `${repository}: expected a repository, ORGANISATION/NAME`);
  const steps = file.split('/');
  if (file.includes('\\') || file.includes('\0') || steps.some((step) => ['', '.', '..'].includes(step)))
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${repository}:${file}: expected the path of a file in the repository`,
    );
}

/** @throws KotobaError ERR_ARGUMENT, ERR_HUB, ERR_CANCELLED, ERR_FILE_WRITE, ERR_FILE_EXISTS */
export async function pullFile(
  access: HubAccess,
  repository: string,
  file: string,
  options: PullOptions = {},
): Promise<Pulled> {
  requireNames(repository, file);
  const { revision = 'main', signal, dir } = options;
  const cached = cachedFile(access.cache, repository, file);
  if (access.isOffline) return offline(repository, file, cached, undefined);
  let remote: RemoteFile;
  try {
    remote = await remoteFile(access, { repository, file }, revision, signal);
  } catch (error) {
    const isUnreachable =
      error instanceof KotobaError && error.code === 'ERR_HUB' && error.cause !== undefined;
    if (isUnreachable && dir === undefined) return offline(repository, file, cached, error);
    throw error;
  }
  try {
    return dir === undefined
      ? await intoCache(access, remote, revision, options)
      : await intoFolder(access, remote, dir, options);
  } catch (cause) {
    if (cause instanceof KotobaError) throw cause;
    const { message } = cause as Error;
    throw new KotobaError('ERR_FILE_WRITE', `${repository}:${file}: cannot be stored: ${message}`, { cause });
  }
}

function offline(repository: string, file: string, cached: string | undefined, error: unknown): Pulled {
  if (cached !== undefined) return { path: cached, bytes: statSync(cached).size, from: 'offline' };
  if (error !== undefined) throw error;
  throw new KotobaError(
    'ERR_HUB',
    `${repository}:${file}: not in the cache, and HF_HUB_OFFLINE forbids to ask for it; unset it and pull again`,
  );
}

async function intoCache(
  access: HubAccess,
  remote: RemoteFile,
  revision: string,
  options: PullOptions,
): Promise<Pulled> {
  const { repository, file, commit, etag, bytes } = remote;
  const path = snapshotPath(access.cache, repository, commit, file);
  const isThere = existsSync(path) && statSync(path).size === bytes;
  if (!isThere) {
    const blob = blobPath(access.cache, repository, etag);
    const isBlobThere = existsSync(blob) && statSync(blob).size === bytes;
    if (!isBlobThere) await downloadTo(access, remote, [blob, `${blob}.incomplete`], options);
    await linkSnapshot(path, blob);
    await writeRef(access.cache, repository, revision, commit);
    return { path, bytes, from: isBlobThere ? 'cache' : 'hub', commit };
  }
  await writeRef(access.cache, repository, revision, commit);
  return { path, bytes, from: 'cache', commit };
}

async function intoFolder(
  access: HubAccess,
  remote: RemoteFile,
  dir: string,
  options: PullOptions,
): Promise<Pulled> {
  const { file, etag, bytes, commit } = remote;
  const path = join(dir, basename(file));
  if (existsSync(path)) {
    await requireSame(path, remote);
    return { path, bytes, from: 'cache', commit };
  }
  await downloadTo(
    access,
    remote,
    [path, join(dir, `.${basename(file)}.${etag.slice(0, 16)}.incomplete`)],
    options,
  );
  return { path, bytes, from: 'hub', commit };
}

/** By size, and by checksum where that is quick. */
async function requireSame(path: string, remote: RemoteFile): Promise<void> {
  const { size } = statSync(path);
  const isSmall = size < 1 << 24;
  const checksum = isSmall
    ? checksumOf(remote)
        ?.update(await readFile(path))
        .digest('hex')
    : undefined;
  if (size === remote.bytes && (checksum === undefined || checksum === remote.etag)) return;
  throw new KotobaError(
    'ERR_FILE_EXISTS',
    `${path}: is there already, and is another file than ${remote.repository}:${remote.file}; move it away, or choose another --dir`,
  );
}
