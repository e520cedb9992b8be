/** A denoiser or VAE found in a file: recognised and counted, its tensors under the file's own names. */
import type { ConfigSource } from './config.js';
import { describeDTypes } from './describe.js';
import type { ModelFile } from './model_file.js';
import type { DiffusionScheme } from './names/diffusion.js';
import { namingOf } from './names/prefixes.js';
import { usedTensors } from './part.js';
import type { DiffusionPart, TensorSource } from './part.js';
import { parseLoosely, record } from './resolve.js';

export function buildDiffusion(
  model: ModelFile,
  scheme: DiffusionScheme,
  prefix: string,
  given?: ConfigSource,
): DiffusionPart {
  const tensors = new Map<string, TensorSource>();
  for (const [name, tensor] of model.tensors) {
    if (!name.startsWith(prefix)) continue;
    const own = name.slice(prefix.length);
    if (scheme.members.test(own)) tensors.set(own, { tensor, shape: tensor.shape });
  }
  const count = (pattern: RegExp): number =>
    new Set([...tensors.keys()].flatMap((name) => pattern.exec(name)?.[1] ?? [])).size;
  const { family, title } = scheme.describe((name) => tensors.get(name)?.shape, count);
  const used = [...usedTensors(tensors)];
  const naming = namingOf(scheme.naming, prefix);
  const stored = model.metadata.get('config');
  return {
    family,
    slot: scheme.slot,
    fits: [scheme.slot],
    naming,
    description: `${title}, ${naming}, ${describeDTypes(tensors)}`,
    prefix,
    path: used[0]!.path,
    config: given?.values ?? record(typeof stored === 'string' ? parseLoosely(stored) : undefined) ?? {},
    tensors,
    missing: [],
    unexpected: [],
    wrong: [],
    undecided: [],
    notes: [],
    bytesRead: used.reduce((sum, { bytes }) => sum + bytes, 0),
    tensorCount: used.length,
  };
}
