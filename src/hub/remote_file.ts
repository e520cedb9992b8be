/** What the Hub says about a file before a byte of it is sent: commit, size, checksum. */
import { KotobaError } from '../errors.js';
import type { HubAccess } from './access.js';
import { cancelled, refusal, unreachable, type Asked, type AskedFile } from './hub_error.js';

export interface RemoteFile {
  readonly repository: string;
  readonly file: string;
  /** of the repository, 40 hexadecimal digits */
  readonly commit: string;
  /** SHA-256 of what lies in LFS, Git's SHA-1 of what does not: also the name of its bytes in the cache */
  readonly etag: string;
  readonly bytes: number;
  readonly url: string;
}

const MOST_REDIRECTS = 5;

/** @throws KotobaError ERR_HUB: refused, unreachable, or no answer of a hub; ERR_CANCELLED */
export async function remoteFile(
  access: HubAccess,
  asked: AskedFile,
  revision: string,
  signal?: AbortSignal,
): Promise<RemoteFile> {
  const { repository, file } = asked;
  const path = `${repository}/resolve/${encodeURIComponent(revision)}/${file.split('/').map(encodeURIComponent).join('/')}`;
  let url = `${access.endpoint}/${path}`;
  for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects++) {
    const response = await ask(access, asked, url, signal);
    const next = response.headers.get('location');
    // A renamed repository leads elsewhere on the Hub; LFS leads off it, and this answer has what is asked.
    if (isRedirect(response) && next !== null && response.headers.get('x-linked-etag') === null) {
      const target = new URL(next, url);
      if (target.origin === new URL(access.endpoint).origin) {
        url = target.href;
        continue;
      }
    }
    if (!response.ok && !isRedirect(response)) throw refusal(access, asked, response);
    const facts = factsOf(access, asked, response);
    // By its commit: what is sent is then what was described, even if main moves on meanwhile.
    const fixed = url.replace(`/resolve/${encodeURIComponent(revision)}/`, `/resolve/${facts.commit}/`);
    return { ...asked, ...facts, url: fixed };
  }
  throw new KotobaError('ERR_HUB', `${repository}:${file}: ${access.endpoint} redirects without end`);
}

const isRedirect = ({ status }: Response): boolean => status >= 300 && status < 400;

async function ask(access: HubAccess, asked: Asked, url: string, signal?: AbortSignal): Promise<Response> {
  try {
    return await fetch(url, {
      method: 'HEAD',
      redirect: 'manual',
      // Of compressed answers the length would be another one.
      headers: { 'accept-encoding': 'identity', ...authorization(access) },
      ...(signal && { signal }),
    });
  } catch (cause) {
    if (signal?.aborted) throw cancelled();
    throw unreachable(access, asked, cause);
  }
}

export const authorization = ({ token }: HubAccess): Record<string, string> =>
  token === undefined ? {} : { authorization: `Bearer ${token}` };

function factsOf(
  { endpoint }: HubAccess,
  { repository, file }: Asked,
  { headers }: Response,
): Pick<RemoteFile, 'commit' | 'etag' | 'bytes'> {
  const commit = headers.get('x-repo-commit') ?? '';
  const etag = (headers.get('x-linked-etag') ?? headers.get('etag') ?? '').replace(/^W\/|"/g, '');
  const bytes = Number(headers.get('x-linked-size') ?? headers.get('content-length') ?? NaN);
  // Both become names of files.
  if (/^[0-9a-f]{40}$/.test(commit) && /^[\w-]+$/.test(etag) && Number.isSafeInteger(bytes) && bytes >= 0)
    return { commit, etag, bytes };
  throw new KotobaError(
    'ERR_HUB',
    `${repository}:${file}: expected commit, checksum and size from ${endpoint}, got commit "${commit}", checksum "${etag}", size ${bytes}; check HF_ENDPOINT`,
  );
}
