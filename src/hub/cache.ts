/**
 * The Hub's cache on disk, which other programs read and fill too:
 *   models--ORG--NAME/blobs/ETAG                     the bytes
 *   models--ORG--NAME/snapshots/COMMIT/path/of/file  a link to them
 *   models--ORG--NAME/refs/main                      the commit
 */
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';

export const repositoryFolder = (cache: string, repository: string): string =>
  join(cache, `models--${repository.replaceAll('/', '--')}`);

export const blobPath = (cache: string, repository: string, etag: string): string =>
  join(repositoryFolder(cache, repository), 'blobs', etag);

export const snapshotPath = (cache: string, repository: string, commit: string, file: string): string =>
  join(repositoryFolder(cache, repository), 'snapshots', commit, file);

/**
 * A whole file: of the commit that main was when the repository was last asked, else of the latest that has it.
 * @returns its path among the snapshots, where the files beside it are those of the repository
 */
export function cachedFile(cache: string, repository: string, file: string): string | undefined {
  return commitsOf(repositoryFolder(cache, repository))
    .map((commit) => snapshotPath(cache, repository, commit, file))
    .find((path) => existsSync(path)); // false for a link whose bytes are gone
}

function commitsOf(folder: string): string[] {
  try {
    const age = (commit: string): number => statSync(join(folder, 'snapshots', commit)).mtimeMs;
    const commits = readdirSync(join(folder, 'snapshots')).sort((a, b) => age(b) - age(a));
    const main = join(folder, 'refs', 'main');
    return existsSync(main) ? [readFileSync(main, 'utf8').trim(), ...commits] : commits;
  } catch {
    return [];
  }
}

/** Makes `pointer` lead to `blob`; where the disk knows no links, the bytes themselves move there. */
export async function linkSnapshot(pointer: string, blob: string): Promise<void> {
  await mkdir(dirname(pointer), { recursive: true });
  const link = `${pointer}.${process.pid}.${serial++}.link`;
  try {
    await symlink(relative(dirname(pointer), blob), link);
    await rename(link, pointer); // takes the place of a link whose bytes are gone, too
  } catch (error) {
    await rm(link, { force: true });
    if (!NO_LINKS.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
    if (existsSync(blob)) await rename(blob, pointer);
  }
}
let serial = 0;

/** What file systems without links answer. */
const NO_LINKS = new Set(['EPERM', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP']);

export async function writeRef(
  cache: string,
  repository: string,
  revision: string,
  commit: string,
): Promise<void> {
  if (revision === commit) return;
  const ref = join(repositoryFolder(cache, repository), 'refs', revision);
  await mkdir(dirname(ref), { recursive: true });
  await writeFile(ref, commit);
}
