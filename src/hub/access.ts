/** How the Hugging Face Hub is reached: the environment variables that all programs share for it. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export type Env = Readonly<Record<string, string | undefined>>;

export interface HubAccess {
  /** HF_ENDPOINT, without a slash at its end */
  readonly endpoint: string;
  /** the folder that all programs keep downloads in */
  readonly cache: string;
  /** HF_TOKEN, else what `hf auth login` left */
  readonly token?: string | undefined;
  /** HF_HUB_OFFLINE: nothing is asked of the network */
  readonly isOffline: boolean;
  /** before the first attempt again; doubled for each further one */
  readonly retryMilliseconds: number;
}

const homeOf = (env: Env): string =>
  env['HF_HOME'] || join(env['XDG_CACHE_HOME'] || join(env['HOME'] || homedir(), '.cache'), 'huggingface');

/** HF_HUB_CACHE, else hub/ in HF_HOME, else ~/.cache/huggingface/hub. */
export const cacheFolder = (env: Env): string =>
  env['HF_HUB_CACHE'] || env['HUGGINGFACE_HUB_CACHE'] || join(homeOf(env), 'hub');

export function hubAccess(env: Env): HubAccess {
  return {
    endpoint: (env['HF_ENDPOINT'] || 'https://huggingface.co').replace(/\/+$/, ''),
    cache: cacheFolder(env),
    token: tokenOf(env),
    isOffline: /^(1|true|yes|on)$/i.test(env['HF_HUB_OFFLINE'] ?? ''),
    retryMilliseconds: 1000,
  };
}

function tokenOf(env: Env): string | undefined {
  const given = (env['HF_TOKEN'] || env['HUGGING_FACE_HUB_TOKEN'])?.trim();
  if (given) return given;
  try {
    return readFileSync(env['HF_TOKEN_PATH'] || join(homeOf(env), 'token'), 'utf8').trim() || undefined;
  } catch {
    return undefined; // most people have none, and need none
  }
}
