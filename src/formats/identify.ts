/** Which networks a file holds. Never throws for tensors that are missing or wrong: it lists them. */
import { KotobaError } from '../errors.js';
import { buildClip, clipFamily } from './clip_part.js';
import { givenConfig } from './config.js';
import type { ConfigFamily, ConfigSource } from './config.js';
import { buildDiffusion, diffusionFamilies } from './diffusion_part.js';
import type { ModelFile } from './model_file.js';
import { clipSchemes } from './names/clip.js';
import { diffusionSchemes } from './names/diffusion.js';
import { leftoverReason } from './names/leftovers.js';
import type { EncoderScheme } from './names/scheme.js';
import { t5Schemes } from './names/t5.js';
import { isDenoiser, usedTensors } from './part.js';
import type { Part, Slot } from './part.js';
import { isScaleName } from './resolve.js';
import { buildT5, t5Family } from './t5_part.js';
import { vaeOfFamily } from './vae_part.js';

export interface IdentifyOptions {
  /** config keys of the reference (Hugging Face's for encoders), flat or one object per slot; overrides what the file says */
  readonly config?: Readonly<Record<string, unknown>> | undefined;
  /** the slot the config is meant for, where a file holds several networks */
  readonly slot?: Slot | undefined;
  /** for work on the tensors alone: what only a running network needs to know may stay undecided */
  readonly allowUndecided?: boolean | undefined;
}

/** Tensors of a file that no part reads. */
export interface Leftover {
  readonly reason: string;
  readonly tensors: number;
  readonly bytes: number;
}

/** The most any real file holds is five; each costs a pass over all names. */
const kMaxParts = 32;

interface Found {
  readonly prefix: string;
  readonly build: (given?: ConfigSource) => Part;
  readonly family: ConfigFamily;
}

export function identify(model: ModelFile, options: IdentifyOptions = {}): Part[] {
  const found = [...findEncoders(model, options.slot), ...findDiffusion(model)];
  if (found.length > kMaxParts)
    throw new KotobaError(
      'ERR_MODEL_UNKNOWN',
      `${model.path}: ${found.length} networks in one file: not a model`,
    );
  const plain = found.map(({ build }) => attempt(build));
  const parts = applyConfig(found, plain, options);
  return nameVae(withUnexpected(model, parts));
}

/** Every prefix under which one of the names stands. */
function prefixesOf(model: ModelFile, anchors: readonly string[]): Set<string> {
  const prefixes = new Set<string>();
  for (const name of model.tensors.keys()) {
    const anchor = anchors.find((end) => name.endsWith(end));
    if (anchor === undefined) continue;
    const prefix = name.slice(0, name.length - anchor.length);
    if (prefix === '' || prefix.endsWith('.') || prefix.endsWith('/')) prefixes.add(prefix);
  }
  return prefixes;
}

function findEncoders(model: ModelFile, slot: Slot | undefined): Found[] {
  const builders: readonly (readonly [readonly EncoderScheme[], typeof buildClip | typeof buildT5])[] = [
    [clipSchemes, buildClip],
    [t5Schemes, buildT5],
  ];
  return builders.flatMap(([schemes, build]) =>
    schemes.flatMap((scheme) =>
      [...prefixesOf(model, scheme.anchors)]
        .filter((prefix) => scheme.accepts(prefix, (name) => model.tensors.has(prefix + name)))
        .map((prefix) => ({
          prefix,
          family: scheme.family === 'clip' ? clipFamily : t5Family,
          build: (given?: ConfigSource) => build(model, scheme, prefix, given, slot),
        })),
    ),
  );
}

function findDiffusion(model: ModelFile): Found[] {
  return diffusionSchemes.flatMap((scheme) =>
    [...prefixesOf(model, scheme.anchors.slice(0, 1))]
      .filter((prefix) => scheme.anchors.every((anchor) => model.tensors.has(prefix + anchor)))
      .filter((prefix) => scheme.unless === undefined || !model.tensors.has(prefix + scheme.unless))
      .map((prefix) => ({
        prefix,
        family: diffusionFamilies[scheme.network],
        build: (given?: ConfigSource) => buildDiffusion(model, scheme, prefix, given),
      })),
  );
}

/** A file's own config may contradict its tensors; a given one may yet put that right. */
function attempt(build: Found['build']): Part | KotobaError {
  try {
    return build();
  } catch (error) {
    if (error instanceof KotobaError && error.code === 'ERR_MODEL_CONFIG') return error;
    throw error;
  }
}

/**
 * With a slot, a given config is for the part of that slot; without, it goes to every part of the family that it does
 * not contradict. One that contradicts all of them is an error.
 */
function applyConfig(
  found: readonly Found[],
  plain: readonly (Part | KotobaError)[],
  options: IdentifyOptions,
): Part[] {
  const failures: KotobaError[] = [];
  const targets = configTargets(plain, options.slot);
  let applied = 0;
  const parts = plain.map((part, i) => {
    const given = targets.has(i) ? configFor(found[i]!, part, options) : undefined;
    if (given === undefined) return part;
    const built = attempt(() => found[i]!.build(given));
    if (built instanceof KotobaError) failures.push(built);
    else applied++;
    return built instanceof KotobaError ? part : built;
  });
  if (applied === 0 && failures.length > 0) throw failures[0]!;
  const hasTarget = found.some((_, i) => targets.has(i));
  if (applied === 0 && options.config !== undefined && hasTarget) throw unusedConfig(options);
  const broken = parts.find((part) => part instanceof KotobaError);
  if (broken !== undefined) throw broken;
  return parts as Part[];
}

/** Numbers of the parts a config may be meant for. */
function configTargets(plain: readonly (Part | KotobaError)[], slot: Slot | undefined): Set<number> {
  const where = (test: (part: Part) => boolean): number[] =>
    plain.flatMap((part, i) => (part instanceof KotobaError || test(part) ? [i] : []));
  if (slot === undefined) return new Set(plain.keys());
  const isExact = plain.some((part) => !(part instanceof KotobaError) && part.slot === slot);
  return new Set(where((part) => (isExact ? part.slot === slot : part.fits.includes(slot))));
}

function configFor(
  { family }: Found,
  part: Part | KotobaError,
  { config, slot }: IdentifyOptions,
): ConfigSource | undefined {
  if (config === undefined) return undefined;
  const fits = part instanceof KotobaError ? [] : part.fits;
  const slots = slot === undefined ? fits : [slot, ...fits];
  return givenConfig(config, family, slots);
}

function unusedConfig({ slot }: IdentifyOptions): KotobaError {
  const families = [clipFamily, t5Family, ...Object.values(diffusionFamilies)];
  const keys = families.flatMap((family) => family.keys).map(({ name }) => name);
  return new KotobaError(
    'ERR_MODEL_CONFIG',
    `the given config says nothing about ${slot === undefined ? 'any network of the file' : slot}; ` +
      `known keys are ${[...new Set(keys)].join(', ')}`,
  );
}

/** Unread tensors belong to the network with the longest prefix; at the root only where it is alone in the file. */
function withUnexpected(model: ModelFile, parts: readonly Part[]): Part[] {
  const used = new Set(parts.flatMap(({ tensors }) => [...usedTensors(tensors)]));
  const unexpected = new Map<Part, string[]>();
  const scales = new Map<Part, string[]>();
  for (const [name, tensor] of model.tensors) {
    if (used.has(tensor) || leftoverReason(name) !== undefined) continue;
    const owner = parts
      .filter(({ prefix }) => name.startsWith(prefix) && (prefix !== '' || parts.length === 1))
      .sort((a, b) => b.prefix.length - a.prefix.length)[0];
    if (owner === undefined) continue;
    const lists = isScaleName(name) ? scales : unexpected;
    const list = lists.get(owner);
    if (list === undefined) lists.set(owner, [name]);
    else list.push(name);
  }
  return parts.map((part) => ({
    ...part,
    unexpected: [...new Set([...part.unexpected, ...(unexpected.get(part) ?? [])])],
    wrong: [...part.wrong, ...(scales.get(part) ?? []).map((name) => `${name} has no FP8 weight to scale`)],
  }));
}

/** The VAEs of SD1 and SDXL have the same shapes, those of Flux and SD3 too; the denoiser beside tells which it is. */
function nameVae(parts: readonly Part[]): Part[] {
  const families = parts.flatMap((part) => (isDenoiser(part) ? part.family : []));
  const [family, another] = families;
  return parts.map((part) => {
    if (part.slot !== 'vae' || family === undefined || another !== undefined) return part;
    return vaeOfFamily(part, family) ?? part;
  });
}

/** What the file holds beside its parts, by reason, most bytes first. */
export function leftovers(model: ModelFile, parts: readonly Part[]): Leftover[] {
  const used = new Set(parts.flatMap(({ tensors }) => [...usedTensors(tensors)]));
  const groups = new Map<string, Leftover>();
  for (const [name, tensor] of model.tensors) {
    if (used.has(tensor)) continue;
    const reason = leftoverReason(name) ?? 'not known';
    const { tensors = 0, bytes = 0 } = groups.get(reason) ?? {};
    groups.set(reason, { reason, tensors: tensors + 1, bytes: bytes + tensor.bytes });
  }
  return [...groups.values()].sort((a, b) => b.bytes - a.bytes);
}
