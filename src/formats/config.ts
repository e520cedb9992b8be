/**
 * Dimensions and choices of a network, in the key names of its reference. Shapes say most; what they cannot say comes from
 * --config, else the file's metadata, else a config.json beside it, else the known models.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { KotobaError } from '../errors.js';
import { guarded, statFile } from './byte_source.js';
import type { ModelFile, TensorInfo } from './model_file.js';
import { folderOf, parseLoosely, record } from './resolve.js';

export type ConfigValue = number | string | boolean | readonly number[];
type ConfigRecord = Readonly<Record<string, unknown>>;

/** One key of a family's config. */
export interface ConfigKey {
  readonly name: string;
  /** `number`: none below 0 */
  readonly type: 'count' | 'counts' | 'number' | 'real' | 'string' | 'boolean';
  /** other names for it */
  readonly aliases?: readonly string[];
}

export interface ConfigFamily {
  readonly title: string;
  readonly keys: readonly ConfigKey[];
  /** a config found beside the weights is this family's if it has one of these */
  readonly telling: readonly string[];
  /** adds what one source's keys imply, so that a lower source cannot contradict them */
  readonly implied?: (values: ConfigRecord) => ConfigRecord;
}

export interface ConfigSource {
  readonly title: string;
  readonly values: ConfigRecord;
  /** found, not given: ignored with a note where it contradicts the tensors */
  readonly found?: true;
}

export interface Settled {
  readonly values: Map<string, ConfigValue>;
  readonly notes: readonly string[];
}

/**
 * @param sources most important first
 * @param shapes  what the tensors say (0: nothing); no source may contradict it
 */
export function settleConfig(
  path: string,
  family: ConfigFamily,
  sources: readonly ConfigSource[],
  shapes: Readonly<Record<string, ConfigValue | undefined>>,
): Settled {
  const values = new Map<string, ConfigValue>();
  const notes: string[] = [];
  for (const [key, value] of Object.entries(shapes))
    if (value !== undefined && value !== 0) values.set(key, value);
  for (const source of sources) {
    const read = readSource(family, source, shapes);
    if (typeof read === 'string') {
      if (!source.found) throw new KotobaError('ERR_MODEL_CONFIG', `${path}: ${read}`);
      notes.push(`ignored ${read}`);
      continue;
    }
    for (const [key, value] of read) if (!values.has(key)) values.set(key, value);
  }
  return { values, notes };
}

/** The values of one source, or the sentence that says why it cannot be right. */
function readSource(
  family: ConfigFamily,
  source: ConfigSource,
  shapes: Readonly<Record<string, ConfigValue | undefined>>,
): Map<string, ConfigValue> | string {
  const values = new Map<string, ConfigValue>();
  const stated = family.implied?.(source.values) ?? source.values;
  for (const { name, type, aliases = [] } of family.keys) {
    const key = [name, ...aliases].find((alias) => Object.hasOwn(stated, alias));
    const value = key === undefined ? undefined : stated[key];
    if (value === undefined || value === null) continue;
    if (!isOfType(value, type))
      return `${source.title}: ${key} is ${JSON.stringify(value)}, expected ${kTypeWords[type]}`;
    const known = shapes[name];
    if (known !== undefined && known !== 0 && String(known) !== String(value))
      return `${source.title}: ${key} is ${String(value)}, but the tensors say ${String(known)}`;
    values.set(name, value);
  }
  return values;
}

const kTypeWords: Readonly<Record<ConfigKey['type'], string>> = {
  count: 'a count',
  counts: 'a list of counts',
  number: 'a number',
  real: 'a number',
  string: 'a string',
  boolean: 'a boolean',
};

function isOfType(value: unknown, type: ConfigKey['type']): value is ConfigValue {
  if (type === 'string' || type === 'boolean') return typeof value === type;
  if (type === 'counts')
    return Array.isArray(value) && value.length > 0 && value.every((n) => isOfType(n, 'count'));
  if (typeof value !== 'number' || !Number.isFinite(value)) return false;
  if (type === 'real') return true;
  if (value < 0) return false;
  return type === 'number' || Number.isSafeInteger(value);
}

const isTelling = (family: ConfigFamily, values: ConfigRecord): boolean =>
  family.telling.some((key) => Object.hasOwn(values, key));

/** Metadata and config.json, as far as they are about this family. */
export function foundConfigs(model: ModelFile, family: ConfigFamily, tensor: TensorInfo): ConfigSource[] {
  const sources: ConfigSource[] = [];
  const stored = model.metadata.get(`${folderOf(tensor.name)}config`);
  const inFile = typeof stored === 'string' ? unwrap(parseLoosely(stored)) : undefined;
  if (inFile !== undefined && isTelling(family, inFile))
    sources.push({ title: 'the config in the metadata', values: inFile });
  const beside = configIn(join(dirname(tensor.path), 'config.json'));
  if (beside !== undefined && isTelling(family, beside.values)) sources.push(beside);
  return sources;
}

/** What a JSON file near the weights says, if it is there. */
export function configIn(path: string): ConfigSource | undefined {
  const values = unwrap(readJson(path));
  return values && { title: path, values, found: true };
}

const kMaxConfigBytes = 1 << 20;

function readJson(path: string): unknown {
  if (!existsSync(path)) return undefined;
  return guarded(path, () => {
    const stat = statFile(path);
    return stat.isFile() && stat.size <= kMaxConfigBytes
      ? parseLoosely(readFileSync(path, 'utf8'))
      : undefined;
  });
}

/** Configs of a whole CLIP keep the text tower's in `text_config`. */
function unwrap(value: unknown): ConfigRecord | undefined {
  const config = record(value);
  return record(config?.['text_config']) ?? config;
}

/**
 * The caller's config for one part: flat, or one per slot (`{"clip_l": {…}, "t5": {…}}`).
 * @returns undefined where it says nothing about such a part
 */
export function givenConfig(
  config: ConfigRecord | undefined,
  family: ConfigFamily,
  slots: readonly string[],
): ConfigSource | undefined {
  if (config === undefined) return undefined;
  const nested = slots.map((slot) => record(config[slot])).find((found) => found !== undefined);
  const values = unwrap(nested ?? config);
  const known = family.keys.flatMap(({ name, aliases = [] }) => [name, ...aliases]);
  if (values === undefined || !known.some((key) => Object.hasOwn(values, key))) return undefined;
  return { title: 'the given config', values };
}
