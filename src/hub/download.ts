/**
 * One file from the Hub: goes on where an earlier attempt ended, tries again what may pass, and is named as asked only
 * when its size and checksum are those that the Hub said. @huggingface/hub's own cache download begins anew each time and
 * checks nothing; its ranged blobs are what this is built on.
 */
import type { Hash } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import { mkdir, open, rename, rm, statfs, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { KotobaError } from '../errors.js';
import type { HubAccess } from './access.js';
import { checksumOf } from './checksum.js';
import { withLock } from './lock.js';
import { HubRefusal, cancelled, refusal, unreachable } from './hub_error.js';
import { authorization, type RemoteFile } from './remote_file.js';

export interface DownloadOptions {
  readonly signal?: AbortSignal | undefined;
  /** bytes there, of those that come before the whole */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** In a row, without a byte in between. */
const MOST_ATTEMPTS = 5;
const MOST_WAIT_SECONDS = 120;

/**
 * @param target the path it gets when it is whole
 * @param incomplete the path it has until then; left there by what interrupts it
 * @throws KotobaError ERR_HUB, ERR_CANCELLED, ERR_FILE_WRITE
 */
export async function downloadTo(
  access: HubAccess,
  remote: RemoteFile,
  [target, incomplete]: readonly [target: string, incomplete: string],
  options: DownloadOptions = {},
): Promise<void> {
  try {
    await mkdir(dirname(incomplete), { recursive: true });
    await withLock(`${incomplete}.lock`, options.signal, async () => {
      if (existsSync(target)) return; // another pull was faster
      const file = await open(incomplete, constants.O_RDWR | constants.O_CREAT, 0o666);
      try {
        await complete(access, remote, { file, path: incomplete }, options);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(incomplete, target);
    });
  } catch (cause) {
    if (cause instanceof KotobaError) throw cause;
    throw new KotobaError('ERR_FILE_WRITE', `${target}: cannot write: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** What has arrived, and the checksum of it. */
interface Arrived {
  readonly file: FileHandle;
  readonly path: string;
  bytes: number;
  checksum: Hash | undefined;
}

async function complete(
  access: HubAccess,
  remote: RemoteFile,
  { file, path }: { readonly file: FileHandle; readonly path: string },
  options: DownloadOptions,
): Promise<void> {
  const arrived: Arrived = { file, path, bytes: 0, checksum: checksumOf(remote) };
  await readBack(arrived, remote, options);
  await requireRoom(path, remote.bytes - arrived.bytes);
  for (let attempt = 1; arrived.bytes < remote.bytes; attempt++) {
    const before = arrived.bytes;
    try {
      await receive(access, remote, arrived, options);
    } catch (error) {
      if (arrived.bytes > before) attempt = 1;
      if (!mayPass(error) || attempt >= MOST_ATTEMPTS) throw error;
      await pause(access, attempt, error, options.signal);
    }
  }
  const found = arrived.checksum?.digest('hex');
  if (found === undefined || found === remote.etag) return;
  await rm(path, { force: true });
  throw new KotobaError(
    'ERR_HUB',
    `${remote.repository}:${remote.file}: expected checksum ${remote.etag}, got ${found}: the bytes were damaged on their way and are thrown away; pull again`,
  );
}

/** Reads what an earlier attempt left, for the checksum; more than the whole cannot be a part of it. */
async function readBack(arrived: Arrived, remote: RemoteFile, options: DownloadOptions): Promise<void> {
  const { size } = await arrived.file.stat();
  if (size > remote.bytes) return await arrived.file.truncate(0);
  const buffer = Buffer.allocUnsafe(1 << 20);
  while (arrived.bytes < size) {
    if (options.signal?.aborted) throw cancelled();
    const { bytesRead } = await arrived.file.read(buffer, 0, buffer.length, arrived.bytes);
    if (bytesRead === 0) break;
    arrived.checksum?.update(buffer.subarray(0, bytesRead));
    arrived.bytes += bytesRead;
    options.onProgress?.(arrived.bytes, remote.bytes);
  }
}

async function receive(
  access: HubAccess,
  remote: RemoteFile,
  arrived: Arrived,
  { signal, onProgress }: DownloadOptions,
): Promise<void> {
  const answer = { failure: undefined as unknown };
  const body = await rangeFrom(access, remote, arrived, answer, signal);
  const parts = body.stream()[Symbol.asyncIterator]();
  for (;;) {
    const part = await parts.next().catch((cause: unknown) => {
      if (signal?.aborted) throw cancelled();
      throw (
        answer.failure ??
        unreachable(access, remote, cause instanceof Error ? cause : new Error(String(cause)))
      );
    });
    if (part.done) break;
    const bytes = part.value as Uint8Array;
    if (arrived.bytes + bytes.length > remote.bytes)
      throw new KotobaError(
        'ERR_HUB',
        `${remote.file}: expected ${remote.bytes} bytes, got more; pull again`,
      );
    await arrived.file.write(bytes, 0, bytes.length, arrived.bytes);
    arrived.checksum?.update(bytes);
    arrived.bytes += bytes.length;
    onProgress?.(arrived.bytes, remote.bytes);
  }
  if (arrived.bytes < remote.bytes)
    throw unreachable(
      access,
      remote,
      new Error(`the answer ended after ${arrived.bytes} of ${remote.bytes} bytes`),
    );
}

/** The blob keeps only an error's text, so that its reason is kept in `answer`. */
async function rangeFrom(
  access: HubAccess,
  remote: RemoteFile,
  arrived: Arrived,
  answer: { failure: unknown },
  signal: AbortSignal | undefined,
): Promise<Blob> {
  const { repository, file, commit, bytes, etag, url } = remote;
  const from = arrived.bytes;
  const request: typeof fetch = async (input, init = {}) => {
    const headers = { 'accept-encoding': 'identity', ...authorization(access), ...init.headers };
    try {
      const response = await fetch(input, { ...init, headers, ...(signal && { signal }) });
      if (!response.ok) throw refusal(access, remote, response);
      if (from > 0 && response.status !== 206) await beginAnew(arrived, remote);
      return response;
    } catch (cause) {
      answer.failure = cause instanceof KotobaError ? cause : unreachable(access, remote, cause);
      throw cause;
    }
  };
  const info = { size: bytes, etag, url };
  const { downloadFile } = await import('@huggingface/hub'); // only where it is needed: it takes a while
  const blob = await downloadFile({
    repo: repository,
    path: file,
    revision: commit,
    hubUrl: access.endpoint,
    fetch: request,
    xet: false, // its chunks come in another order than the checksum needs them
    downloadInfo: info,
  });
  return blob!.slice(from);
}

/** A server that ignores ranges sends the whole from its beginning. */
async function beginAnew(arrived: Arrived, remote: RemoteFile): Promise<void> {
  await arrived.file.truncate(0);
  arrived.bytes = 0;
  arrived.checksum = checksumOf(remote);
}

/** Broken connections and short answers have no status. */
const mayPass = (error: unknown): boolean =>
  error instanceof HubRefusal ? error.isPassing : error instanceof KotobaError && error.cause !== undefined;

async function pause(
  { retryMilliseconds }: HubAccess,
  attempt: number,
  error: unknown,
  signal: AbortSignal | undefined,
): Promise<void> {
  const asked = error instanceof HubRefusal ? error.waitSeconds : undefined;
  const wait = asked === undefined ? retryMilliseconds * 2 ** (attempt - 1) : asked * 1000;
  await sleep(Math.min(wait, MOST_WAIT_SECONDS * 1000), undefined, { ...(signal && { signal }) }).catch(
    () => {
      throw cancelled();
    },
  );
}

async function requireRoom(path: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(path));
  if (bytes > bavail * bsize)
    throw new KotobaError(
      'ERR_FILE_WRITE',
      `${path}: expected room for ${bytes} bytes, the disk has ${bavail * bsize}: free some, or set HF_HUB_CACHE or --dir to another disk`,
    );
}
