/** What a denoiser or VAE is, in words and numbers. */
import { describeDTypes } from './describe.js';
import type { ModelFile, TensorInfo } from './model_file.js';
import type { DiffusionScheme } from './names/diffusion.js';
import { isExplained } from './names/leftovers.js';
import { namingOf } from './names/prefixes.js';
import type { TensorSource } from './part.js';
import { usedTensors } from './part.js';
import { isScaleName } from './resolve.js';

/** The network's tensors under the file's own names, without the prefix. */
export function members(model: ModelFile, scheme: DiffusionScheme, prefix: string): Map<string, TensorInfo> {
  const found = new Map<string, TensorInfo>();
  for (const [name, tensor] of model.tensors)
    if (name.startsWith(prefix) && scheme.members.test(name.slice(prefix.length)))
      found.set(name.slice(prefix.length), tensor);
  return found;
}

/** File names of the network's tensors that nothing uses and nothing explains. */
export function unusedMembers(
  model: ModelFile,
  scheme: DiffusionScheme,
  prefix: string,
  tensors: ReadonlyMap<string, TensorSource>,
): string[] {
  const used = usedTensors(tensors);
  return [...members(model, scheme, prefix).values()]
    .filter((tensor) => !used.has(tensor) && !isScaleName(tensor.name) && !isExplained(tensor.name))
    .map(({ name }) => name);
}

/** @param tensors what a loader reads, by canonical name */
export function summarize<S extends DiffusionScheme>(
  model: ModelFile,
  scheme: S,
  prefix: string,
  tensors: ReadonlyMap<string, TensorSource>,
) {
  const own = members(model, scheme, prefix);
  const count = (pattern: RegExp): number =>
    new Set([...own.keys()].flatMap((name) => pattern.exec(name)?.[1] ?? [])).size;
  const described = scheme.describe((name) => own.get(name)?.shape, count);
  const used = [...usedTensors(tensors)];
  const naming = namingOf(scheme.naming, prefix);
  return {
    family: described.family as ReturnType<S['describe']>['family'],
    fits: [scheme.slot],
    naming,
    description: `${described.title}, ${naming}, ${describeDTypes(tensors)}`,
    prefix,
    path: used[0]!.path,
    tensors,
    bytesRead: used.reduce((sum, { bytes }) => sum + bytes, 0),
    tensorCount: used.length,
  };
}
