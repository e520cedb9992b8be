/**
 * Model sets: `x-00001-of-00005.safetensors` with its index, and GGUF's split files.
 * Any member finds the others; only headers are read; what is missing is named.
 */
import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { KotobaError } from '../errors.js';
import { guarded, withFile } from './byte_source.js';
import { parseGguf } from './gguf.js';
import { JsonError, parseJson } from './json.js';
import type { JsonValue } from './json.js';
import type { MetadataValue, ModelFile, ParsedFile, TensorInfo } from './model_file.js';
import { parseSafetensors } from './safetensors.js';
import { sniffContainer } from './sniff.js';

const kShardName = /^(.*)-(\d{5,6})-of-(\d{5,6})(\.(?:safetensors|sft|gguf))$/;
const kPickleShard = /\.(bin|pt|pth|ckpt)$/i;
const kMaxShards = 10_000;
const kMaxJsonBytes = 64 << 20;

export const isIndexName = (name: string): boolean => /\.index(\.[\w-]+)?\.json$/.test(name);
export const isShardName = (name: string): boolean => kShardName.test(name);

export function parseFile(path: string): ParsedFile {
  return withFile(path, (source) =>
    sniffContainer(source) === 'gguf' ? parseGguf(source) : parseSafetensors(source),
  );
}

/** One file, or the whole set where it is one of a set. */
export function openFileOrSet(path: string): ModelFile {
  const match = kShardName.exec(basename(path));
  const count = Number(match?.[3]);
  if (match === null || count <= 1) return merge(path, [parseFile(path)]);
  // The file itself speaks first: a pickle or a web page under a shard's name is no question of its siblings.
  withFile(path, sniffContainer);
  if (count > kMaxShards) throw shardError(path, `a set of ${count} files is more than any model has`);
  const [, stem, number, , extension] = match;
  const member = (i: number): string =>
    join(dirname(path), `${stem}-${pad(i, number)}-of-${match[3]}${extension}`);
  const paths = Array.from({ length: count }, (_, i) => member(i + 1));
  requireAll(path, paths);
  const files = paths.map(parseFile);
  if (extension === '.gguf') checkSplits(files);
  return merge(path, files);
}

const pad = (i: number, like: string | undefined): string => String(i).padStart(like?.length ?? 5, '0');

/** `model.safetensors.index.json`: `weight_map` gives the file of each tensor. */
export function openIndex(path: string): ModelFile {
  const map = readWeightMap(path);
  const names = [...new Set(map.values())].sort();
  for (const name of names) {
    if (kPickleShard.test(name))
      throw new KotobaError(
        'ERR_FORMAT_PICKLE',
        `${path}: its weights (${name}) are pickles, which are never opened; take the model's safetensors or GGUF files`,
      );
    if (name === '' || basename(name) !== name || name === '..')
      throw shardError(path, `names ${JSON.stringify(name)}, not a file beside it`);
  }
  const paths = names.map((name) => join(dirname(path), name));
  requireAll(path, paths);
  const files = paths.map(parseFile);
  const byName = new Map(names.map((name, i) => [name, files[i]]));
  const lost = [...map].filter(([tensor, file]) => !byName.get(file)?.tensors.has(tensor));
  if (lost.length > 0) {
    const list = lost.slice(0, 10).map(([tensor, file]) => `${tensor} in ${file}`);
    throw shardError(
      path,
      `${lost.length} tensors are not in the file it names: ${list.join(', ')}${lost.length > 10 ? ', …' : ''}`,
    );
  }
  return merge(path, files, map);
}

function readWeightMap(path: string): Map<string, string> {
  const text = withFile(path, ({ size, read }) => {
    if (size > kMaxJsonBytes) throw shardError(path, `an index of ${size} bytes`);
    return read(0, size).toString('utf8');
  });
  let index: JsonValue;
  try {
    index = parseJson(text);
  } catch (error) {
    if (error instanceof JsonError) throw shardError(path, `not valid JSON: ${error.message}`);
    throw error;
  }
  const map = index instanceof Map ? index.get('weight_map') : undefined;
  if (!(map instanceof Map) || map.size === 0)
    throw shardError(path, 'has no "weight_map" of tensor and file names');
  for (const [tensor, file] of map)
    if (typeof file !== 'string')
      throw shardError(path, `weight_map names no file for ${JSON.stringify(tensor)}`);
  return map as Map<string, string>;
}

function requireAll(path: string, paths: readonly string[]): void {
  const missing = paths.filter((file) => !existsSync(file)).map((file) => basename(file));
  if (missing.length === 0) return;
  const shown = missing.slice(0, 10).join(', ') + (missing.length > 10 ? ', …' : '');
  throw shardError(path, `${missing.length} of its ${paths.length} files are missing: ${shown}`);
}

/** llama.cpp numbers split files in their metadata, which must agree with their names. */
function checkSplits(files: readonly ParsedFile[]): void {
  let expected: MetadataValue | undefined;
  for (const [i, { path, metadata }] of files.entries()) {
    const count = metadata.get('split.count');
    const number = metadata.get('split.no');
    if (count !== undefined && count !== files.length)
      throw shardError(path, `says it is one of ${String(count)}, not ${files.length}`);
    if (number !== undefined && number !== i)
      throw shardError(path, `says it is number ${String(number)}, expected ${i}`);
    expected ??= metadata.get('split.tensors.count');
  }
  const found = files.reduce((sum, { tensors }) => sum + tensors.size, 0);
  if (expected !== undefined && expected !== found)
    throw shardError(files[0]!.path, `the set holds ${found} tensors, expected ${String(expected)}`);
}

/** @param owner which file holds a tensor, where an index says so */
export function merge(
  path: string,
  parsed: readonly ParsedFile[],
  owner?: ReadonlyMap<string, string>,
): ModelFile {
  const first = parsed[0]!;
  const tensors = new Map<string, TensorInfo>();
  for (const file of parsed) {
    for (const [name, tensor] of file.tensors) {
      const other = tensors.get(name);
      const owned = owner?.get(name);
      if (owned !== undefined && owned !== basename(file.path)) continue;
      if (other !== undefined)
        throw shardError(
          path,
          `${JSON.stringify(name)} is both in ${basename(other.path)} and in ${basename(file.path)}`,
        );
      tensors.set(name, tensor);
    }
  }
  return {
    path,
    container: first.container,
    files: parsed.map((file) => ({ path: file.path, size: file.size })),
    tensors,
    metadata: first.metadata,
    weightsDir: dirname(first.path),
  };
}

/** Weights files of a folder, an index instead of its shards; `fp16`-like variants only where there is nothing else. */
export function weightsInFolder(folder: string): string[] {
  const names = guarded(folder, () => readdirSync(folder)).sort();
  const indices = names.filter((name) => isIndexName(name) && name.includes('.safetensors.index'));
  const covered = indices.map((name) => name.replace(/\.safetensors\.index.*$/, ''));
  const loose = names.filter(
    (name) =>
      /\.(safetensors|sft|gguf)$/.test(name) &&
      !(isShardName(name) && covered.some((stem) => name.startsWith(stem))),
  );
  const first = loose.filter((name) => !isShardName(name) || /-0*1-of-/.test(name));
  return preferPlain([...indices, ...first]).map((name) => join(folder, name));
}

const isIndexVariant = (name: string): boolean => /\.index\.[\w-]+\.json$/.test(name);

/** `model.safetensors` goes before its shards and before `model.fp16.safetensors`, which hold the same network. */
function preferPlain(names: readonly string[]): string[] {
  const stem = (name: string): string =>
    name.replace(/\.safetensors\.index.*$|-\d+-of-.*$|\.(safetensors|sft|gguf)$/, '');
  const stems = new Set(names.map(stem));
  return names.filter((name) => {
    const plainStem = /^(.+)\.(fp16|bf16|fp32|non_ema)$/.exec(stem(name))?.[1];
    if (plainStem !== undefined && stems.has(plainStem)) return false;
    if (isIndexName(name) && names.includes(`${stem(name)}.safetensors`)) return false;
    return !isIndexVariant(name) || !names.includes(name.replace(/\.[\w-]+\.json$/, '.json'));
  });
}

function shardError(path: string, what: string): KotobaError {
  return new KotobaError('ERR_SHARDS', `${path}: ${what}`);
}
