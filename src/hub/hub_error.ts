/** What the Hub's refusals mean, and what to do about each. */
import { KotobaError } from '../errors.js';
import type { HubAccess } from './access.js';

/** What was asked for. */
export interface Asked {
  readonly repository: string;
  /** absent: the repository itself */
  readonly file?: string | undefined;
}

export type AskedFile = Asked & { readonly file: string };

/** An answer that may be another one later. */
export class HubRefusal extends KotobaError {
  readonly status: number;
  /** what the Hub asks to wait, seconds */
  readonly waitSeconds: number | undefined;

  constructor(message: string, response: Response) {
    super('ERR_HUB', message);
    this.status = response.status;
    const wait = Number(response.headers.get('retry-after') ?? NaN);
    this.waitSeconds = wait >= 0 ? wait : undefined;
  }

  get isPassing(): boolean {
    return this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

export function refusal(access: HubAccess, asked: Asked, response: Response): HubRefusal {
  const { repository, file } = asked;
  const what = file === undefined ? repository : `${repository}:${file}`;
  const page = `${access.endpoint}/${repository}`;
  return new HubRefusal(
    `${what}: expected the file, got HTTP ${response.status} from ${access.endpoint}: ${reason(access, response, page)}`,
    response,
  );
}

function reason({ token }: HubAccess, { status, headers }: Response, page: string): string {
  const code = headers.get('x-error-code');
  if (code === 'GatedRepo' || status === 403)
    return token
      ? `its licence must be accepted first: open ${page} with the account of your token, accept, then pull again`
      : `its licence must be accepted first: open ${page}, log in and accept; then make a token at ${new URL(page).origin}/settings/tokens and give it as HF_TOKEN`;
  if (status === 401)
    return token
      ? 'the token is not valid, or the repository does not exist or is private: check HF_TOKEN and the name'
      : `no such repository, or it is private: check the name; for a private one give HF_TOKEN`;
  if (code === 'EntryNotFound') return `the repository has no such file: ${page}/tree/main lists what it has`;
  if (code === 'RevisionNotFound') return 'the repository has no such revision';
  if (status === 404) return `no such repository or file: ${page} should be its page`;
  if (status === 429) return 'too many requests: wait some minutes, or give a token as HF_TOKEN';
  if (status >= 500) return 'the server has trouble: try again later; what has arrived is kept';
  return 'not an answer of a hub: check HF_ENDPOINT';
}

/** A connection that could not be made, or broke. */
export function unreachable(
  { endpoint }: HubAccess,
  { repository, file }: Asked,
  cause: unknown,
): KotobaError {
  const { message, cause: inner } = cause as Error;
  const why = inner instanceof Error ? inner.message || (inner as NodeJS.ErrnoException).code : message;
  return new KotobaError(
    'ERR_HUB',
    `${repository}${file === undefined ? '' : `:${file}`}: ${endpoint} cannot be reached: ${why}. Check the network, or HF_ENDPOINT for a mirror; what has arrived is kept`,
    { cause },
  );
}

export const cancelled = (): KotobaError =>
  new KotobaError(
    'ERR_CANCELLED',
    'cancelled; what has arrived is kept, and the next pull goes on from there',
  );
