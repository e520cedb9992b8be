/** From a path (file, shard, index or folder) to tensors by name, whatever the container. Only headers are read. */
import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { KotobaError } from '../errors.js';
import { guarded, statFile } from './byte_source.js';
import type { MetadataValue, ModelFile, TensorInfo } from './model_file.js';
import { isIndexName, openFileOrSet, openIndex, weightsInFolder } from './shards.js';

/** Sub-folders of a diffusers pipeline that hold networks, and what else may lie in one. */
const kComponents = [
  'text_encoder',
  'text_encoder_2',
  'text_encoder_3',
  'transformer',
  'unet',
  'vae',
] as const;

export function openModel(path: string): ModelFile {
  if (typeof path !== 'string')
    throw new KotobaError('ERR_ARGUMENT', `expected the path of a model file, got ${typeof path}`);
  if (path === '') throw new KotobaError('ERR_FILE_NOT_FOUND', 'an empty path names no model file');
  const stat = statFile(path);
  if (stat.isDirectory()) return openFolder(path);
  if (!stat.isFile()) throw new KotobaError('ERR_FILE_READ', `${path}: not a regular file`);
  if (basename(path) === 'model_index.json') return openPipeline(dirname(path), path);
  return isIndexName(basename(path)) ? openIndex(path) : openFileOrSet(path);
}

function openFolder(folder: string): ModelFile {
  if (existsSync(join(folder, 'model_index.json'))) return openPipeline(folder, folder);
  const weights = weightsInFolder(folder);
  if (weights.length === 1) return { ...openWeights(weights[0]!), path: folder };
  if (weights.length > 1)
    throw new KotobaError(
      'ERR_FILE_READ',
      `${folder}: holds ${weights.length} models; give one of them: ${weights.map((file) => basename(file)).join(', ')}`,
    );
  if (componentsOf(folder).length > 0) return openPipeline(folder, folder);
  const names = guarded(folder, () => readdirSync(folder));
  const pickles = names.filter((name) => /\.(bin|pt|pth|ckpt)$/i.test(name));
  if (pickles.length > 0)
    throw new KotobaError(
      'ERR_FORMAT_PICKLE',
      `${folder}: holds only pickles (${pickles.slice(0, 5).join(', ')}), which are never opened; take safetensors or GGUF files`,
    );
  throw new KotobaError('ERR_FILE_READ', `${folder}: a folder with no .safetensors or .gguf file in it`);
}

const openWeights = (path: string): ModelFile =>
  isIndexName(basename(path)) ? openIndex(path) : openFileOrSet(path);

function componentsOf(folder: string): { name: string; weights: string }[] {
  return kComponents.flatMap((name) => {
    const sub = join(folder, name);
    if (!existsSync(sub) || !statFile(sub).isDirectory()) return [];
    const [weights, ...more] = weightsInFolder(sub);
    if (more.length > 0)
      throw new KotobaError('ERR_FILE_READ', `${sub}: holds several models; give the file of one of them`);
    return weights === undefined ? [] : [{ name, weights }];
  });
}

/** A whole diffusers folder as one model: names of tensors and of metadata begin with their sub-folder. */
function openPipeline(folder: string, path: string): ModelFile {
  const components = componentsOf(folder).map(({ name, weights }) => ({ name, model: openWeights(weights) }));
  const first = components[0];
  if (first === undefined)
    throw new KotobaError(
      'ERR_FILE_READ',
      `${folder}: a diffusers folder without weights: none of ${kComponents.join(', ')} holds a .safetensors file`,
    );
  const tensors = new Map<string, TensorInfo>();
  const metadata = new Map<string, MetadataValue>();
  for (const { name, model } of components) {
    for (const [key, tensor] of model.tensors)
      tensors.set(`${name}/${key}`, { ...tensor, name: `${name}/${key}` });
    for (const [key, value] of model.metadata) metadata.set(`${name}/${key}`, value);
  }
  return {
    path,
    container: first.model.container,
    files: components.flatMap(({ model }) => model.files),
    tensors,
    metadata,
    weightsDir: folder,
  };
}
