/** What a name on a command line means on the Hub: an entry of the catalogue, or files of a repository. */
import { KotobaError } from '../errors.js';
import type { HubAccess } from './access.js';
import { cachedFile } from './cache.js';
import { catalogue, catalogueEntry, variantsFor, type CatalogueEntry } from './catalogue.js';
import { cancelled, refusal, unreachable } from './hub_error.js';
import { requireNames } from './pull_file.js';
import { authorization } from './remote_file.js';

export interface Wanted {
  readonly repository: string;
  /** the first is the one to open */
  readonly files: readonly string[];
  readonly entry?: CatalogueEntry | undefined;
}

const MODEL_FILE = /\.(safetensors|sft|gguf)$/i;
const SHOWN = 12;

/**
 * @param name NAME of the catalogue, ORG/REPO:FILE, or ORG/REPO where it has one model file only; FILE may hold *
 * @throws KotobaError ERR_ARGUMENT for what no name means, with those that come near; ERR_HUB
 */
export async function wantedFiles(access: HubAccess, name: string, signal?: AbortSignal): Promise<Wanted> {
  const known = namedOffline(name);
  if (known) return known;
  const [repository = '', pattern] = splitRepository(name);
  if (!repository.includes('/')) throw unknownName(name);
  requireNames(repository, pattern?.replaceAll('*', 'x') ?? 'x');
  const all = await filesOf(access, repository, signal);
  if (pattern !== undefined) {
    const matcher = new RegExp(`^${pattern.split('*').map(escaped).join('.*')}$`);
    const files = all.map(({ path }) => path).filter((path) => matcher.test(path));
    if (files.length > 0) return { repository, files };
    throw choose(repository, all, `no file matches ${pattern}`);
  }
  const models = all.filter(({ path }) => MODEL_FILE.test(path));
  if (models.length === 1) return { repository, files: [models[0]!.path] };
  throw choose(repository, all, `expected one model file, it has ${models.length}: say which`);
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** What can be told without asking anybody. */
export function namedOffline(name: string): Wanted | undefined {
  const entry = catalogueEntry(name);
  if (entry) return { repository: entry.repository, files: entry.files, entry };
  const [repository = '', file] = splitRepository(name);
  if (!repository.includes('/') || file === undefined || file === '' || file.includes('*')) return undefined;
  return { repository, files: [file] };
}

/** The path of a name's first file, where the cache has all of them. */
export function cachedName(cache: string, name: string): string | undefined {
  const wanted = namedOffline(name);
  const paths = wanted?.files.map((file) => cachedFile(cache, wanted.repository, file));
  return paths?.every((path) => path !== undefined) ? paths[0] : undefined;
}

/** Only the first colon: no repository has one, a file may. */
function splitRepository(name: string): [repository: string, file: string | undefined] {
  const at = name.indexOf(':');
  return at < 0 ? [name, undefined] : [name.slice(0, at), name.slice(at + 1)];
}

function unknownName(name: string): KotobaError {
  const variants = variantsFor(name);
  const asked = name
    .toLowerCase()
    .split(':')[0]!
    .replace(/[-_. ]/g, '');
  const families = [...new Set(catalogue().map((entry) => entry.name.split(':')[0]!))];
  const near = families.filter((family) => asked.length > 1 && family.replace(/[-_. ]/g, '').includes(asked));
  const hint =
    variants.length > 0
      ? `this family has ${variants.join(', ')}`
      : `${near.length > 0 ? `similar: ${near.join(', ')}; ` : ''}kotoba pull --list shows all`;
  return new KotobaError(
    'ERR_ARGUMENT',
    `${name}: expected a name of the catalogue or ORGANISATION/REPOSITORY:FILE; ${hint}`,
  );
}

type Listed = { readonly path: string; readonly size: number };

async function filesOf(access: HubAccess, repository: string, signal?: AbortSignal): Promise<Listed[]> {
  const found: Listed[] = [];
  const request: typeof fetch = async (input, init = {}) => {
    const headers = { ...init.headers, ...authorization(access) };
    const response = await fetch(input, { ...init, headers, ...(signal && { signal }) });
    if (!response.ok) throw refusal(access, { repository }, response);
    return response;
  };
  try {
    const { listFiles } = await import('@huggingface/hub');
    const list = listFiles({ repo: repository, recursive: true, hubUrl: access.endpoint, fetch: request });
    for await (const { path, size, type } of list) if (type === 'file') found.push({ path, size });
    return found;
  } catch (cause) {
    if (signal?.aborted) throw cancelled();
    if (cause instanceof KotobaError) throw cause;
    throw unreachable(access, { repository }, cause);
  }
}

function choose(repository: string, all: readonly Listed[], problem: string): KotobaError {
  const models = all.filter(({ path }) => MODEL_FILE.test(path));
  const lines = models.slice(0, SHOWN).map(({ path, size }) => `\n  ${repository}:${path}  (${size} bytes)`);
  const more = models.length > SHOWN ? `\n  … and ${models.length - SHOWN} more` : '';
  return new KotobaError('ERR_ARGUMENT', `${repository}: ${problem}.${lines.join('')}${more}`);
}
