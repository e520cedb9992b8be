/** A denoiser or VAE found in a file: Flux and VAEs complete and checked, the others recognised and counted. */
import type { ConfigSource } from './config.js';
import { buildFlux } from './flux_part.js';
import type { ModelFile } from './model_file.js';
import type { DiffusionScheme, UncheckedScheme } from './names/diffusion.js';
import { members, summarize } from './part_summary.js';
import type { DiffusionPart, UncheckedPart } from './part.js';
import { folderOf, parseLoosely, record } from './resolve.js';
import { buildVae } from './vae_part.js';

export function buildDiffusion(
  model: ModelFile,
  scheme: DiffusionScheme,
  prefix: string,
  given?: ConfigSource,
): DiffusionPart {
  if (scheme.network === 'flux') return buildFlux(model, scheme, prefix, given);
  if (scheme.network === 'vae') return buildVae(model, scheme, prefix, given);
  return buildUnchecked(model, scheme, prefix);
}

function buildUnchecked(model: ModelFile, scheme: UncheckedScheme, prefix: string): UncheckedPart {
  const tensors = new Map(
    [...members(model, scheme, prefix)].map(([name, tensor]) => [name, { tensor, shape: tensor.shape }]),
  );
  const stored = model.metadata.get(`${folderOf(prefix)}config`);
  return {
    ...summarize(model, scheme, prefix, tensors),
    slot: scheme.slot,
    config: record(typeof stored === 'string' ? parseLoosely(stored) : undefined) ?? {},
    missing: [],
    unexpected: [],
    wrong: [],
    undecided: [],
    notes: [],
  };
}
