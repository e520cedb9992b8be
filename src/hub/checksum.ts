/** The Hub's two checksums: SHA-256 of files in LFS, Git's SHA-1 of a blob for those in the repository itself. */
import { createHash, type Hash } from 'node:crypto';
import type { RemoteFile } from './remote_file.js';

/** @returns undefined for an ETag that is neither, as mirrors may send: then only the size can be checked */
export function checksumOf({ etag, bytes }: RemoteFile): Hash | undefined {
  if (/^[0-9a-f]{64}$/.test(etag)) return createHash('sha256');
  if (/^[0-9a-f]{40}$/.test(etag)) return createHash('sha1').update(`blob ${bytes}\0`);
  return undefined;
}
