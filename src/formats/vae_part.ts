/** A VAE found in a file, or one half of it: its tensors under the LDM's names and its config. */
import { KotobaError } from '../errors.js';
import type { ConfigFamily, ConfigSource, ConfigValue } from './config.js';
import { foundConfigs, settleConfig } from './config.js';
import type { ModelFile } from './model_file.js';
import type { VaeScheme } from './names/diffusion.js';
import type { NameEntry } from './names/scheme.js';
import { vaeEntries } from './names/vae.js';
import type { Family, TensorSource, VaeConfig, VaeHalf, VaePart } from './part.js';
import { members, summarize, unusedMembers } from './part_summary.js';
import { checkShapes, countLayers, dimension, resolveEntries } from './resolve.js';
import type { Resolved } from './resolve.js';

/** Aliases are diffusers' keys. */
export const vaeFamily: ConfigFamily = {
  title: 'VAE',
  keys: [
    { name: 'ch', type: 'count' },
    { name: 'ch_mult', type: 'counts' },
    { name: 'num_res_blocks', type: 'count', aliases: ['layers_per_block'] },
    { name: 'z_channels', type: 'count', aliases: ['latent_channels'] },
    { name: 'in_channels', type: 'count' },
    { name: 'out_ch', type: 'count', aliases: ['out_channels'] },
    { name: 'num_groups', type: 'count', aliases: ['norm_num_groups'] },
    { name: 'quant_conv', type: 'boolean', aliases: ['use_quant_conv'] },
    { name: 'scale_factor', type: 'number', aliases: ['scaling_factor'] },
    { name: 'shift_factor', type: 'real' },
    { name: 'resolution', type: 'count', aliases: ['sample_size'] },
  ],
  telling: [
    'ch_mult',
    'z_channels',
    'latent_channels',
    'block_out_channels',
    'num_groups',
    'norm_num_groups',
  ],
  implied: (values) => {
    const { block_out_channels: widths } = values;
    if (!Array.isArray(widths) || typeof widths[0] !== 'number' || Object.hasOwn(values, 'ch_mult'))
      return values;
    const ch = widths[0];
    return { ...values, ch, ch_mult: widths.map((width) => Number(width) / ch) };
  },
};

const kGroups = 32;
/** Of latents, which are about 1: beyond it they leave F32's range sooner or later. */
const kMostFactor = 1e6;
/** More levels, or blocks in one, no VAE has: a number far out of line is none. */
const kMost = 16;

interface Factors {
  readonly scale_factor: number;
  readonly shift_factor: number;
}

/** latent = (mean − shift) · scale, as each family's denoiser was trained; a VAE alone gets its oldest family's. */
const kFactors: Readonly<Record<VaePart['family'], Factors>> = {
  flux: { scale_factor: 0.3611, shift_factor: 0.1159 },
  flux_or_sd3: { scale_factor: 0.3611, shift_factor: 0.1159 },
  sd3: { scale_factor: 1.5305, shift_factor: 0.0609 },
  sd1: { scale_factor: 0.18215, shift_factor: 0 },
  sd1_or_sdxl: { scale_factor: 0.18215, shift_factor: 0 },
  sd2: { scale_factor: 0.18215, shift_factor: 0 },
  sdxl: { scale_factor: 0.13025, shift_factor: 0 },
};

const kFamilies: Readonly<Partial<Record<VaePart['family'], readonly Family[]>>> = {
  flux_or_sd3: ['flux', 'sd3'],
  sd1_or_sdxl: ['sd1', 'sd2', 'sdxl'],
};

/**
 * The VAE beside a denoiser of this family: its factors are then the family's, unless its own file tells others.
 * @returns undefined where it is no VAE of this family
 */
export function vaeOfFamily(part: VaePart, family: VaePart['family']): VaePart | undefined {
  if (part.family === family) return part;
  if (!kFamilies[part.family]?.includes(family)) return undefined;
  if (part.factors === 'told') return { ...part, family };
  return { ...part, family, factors: 'told', config: { ...part.config, ...kFactors[family] } };
}

/** @throws KotobaError ERR_MODEL_TENSORS if the file holds only the other half */
export function requireHalf(part: VaePart, half: VaeHalf): void {
  if (!part.halves.includes(half))
    throw new KotobaError(
      'ERR_MODEL_TENSORS',
      `${part.path}: holds only the ${part.halves.join()} of a VAE, but its ${half} is needed: take the whole VAE`,
    );
}

/** Channels of every level, finest first, and what else the shapes tell. */
interface Sizes {
  readonly ch: number;
  readonly widths: readonly number[];
  readonly blocks: number;
  readonly latent: number;
  readonly inputs: number;
  readonly outputs: number;
}

export function buildVae(model: ModelFile, scheme: VaeScheme, prefix: string, given?: ConfigSource): VaePart {
  const layout = layoutOf(model, scheme, prefix);
  const entries = vaeEntries(layout, scheme.names === 'original' ? 'ldm' : 'diffusers');
  const resolved = resolveEntries(model, prefix, entries);
  const sizes = sizesOf(resolved.tensors, layout);
  checkShapes(resolved, (canonical) => expectedShape(canonical, sizes));
  checkShortcuts(resolved, entries, prefix, sizes);
  const summary = summarize(model, scheme, prefix, resolved.tensors);
  const anchor = resolved.tensors.values().next().value!.tensor;
  const sources = [...(given === undefined ? [] : [given]), ...foundConfigs(model, vaeFamily, anchor)];
  const multiples = sizes.ch > 0 ? sizes.widths.map((width) => width / sizes.ch) : [];
  const { values, notes } = settleConfig(anchor.path, vaeFamily, sources, {
    ch: layout.halves.includes('encoder') ? sizes.ch : 0,
    ch_mult: layout.halves.includes('encoder') && multiples.length > 0 ? multiples : undefined,
    num_res_blocks: sizes.blocks,
    z_channels: sizes.latent,
    in_channels: sizes.inputs,
    out_ch: sizes.outputs,
    quant_conv: layout.hasQuantConv,
  });
  const { config, undecided } = vaeConfig(anchor.path, values, sizes, multiples, kFactors[summary.family]);
  const halves = layout.halves.length === 1 ? [`holds only the ${layout.halves[0]!} of a VAE`] : [];
  return {
    ...summary,
    ...resolved,
    slot: 'vae',
    halves: layout.halves,
    factors: values.has('scale_factor') ? 'told' : 'assumed',
    config,
    undecided,
    notes: [...notes, ...halves],
    unexpected: unusedMembers(model, scheme, prefix, resolved.tensors),
  };
}

function layoutOf(model: ModelFile, scheme: VaeScheme, prefix: string) {
  const own = [...members(model, scheme, prefix).keys()];
  const halves = (['encoder', 'decoder'] as const).filter((half) =>
    own.some((name) => name.startsWith(`${half}.`)),
  );
  const stems: Record<VaeHalf, readonly [levels: string, blocks: string]> =
    scheme.names === 'original'
      ? { encoder: ['encoder.down.', '.block.'], decoder: ['decoder.up.', '.block.'] }
      : { encoder: ['encoder.down_blocks.', '.resnets.'], decoder: ['decoder.up_blocks.', '.resnets.'] };
  const levels = Math.min(kMost, Math.max(...halves.map((half) => countLayers(own, stems[half][0]))));
  const perLevel = halves.map((half) => {
    const [stem, block] = stems[half];
    const counts = Array.from({ length: levels }, (_, level) => countLayers(own, `${stem}${level}${block}`));
    return Math.max(1, ...counts.map((count) => (half === 'encoder' ? count : count - 1)));
  });
  const hasQuantConv = own.some((name) => /^(post_)?quant_conv\./.test(name));
  return { halves, levels, blocks: Math.min(kMost, Math.max(...perLevel)), hasQuantConv };
}

function sizesOf(
  tensors: ReadonlyMap<string, TensorSource>,
  { levels, blocks }: { levels: number; blocks: number },
): Sizes {
  const of = (kind: RegExp, axis: number): number => dimension(tensors, kind, axis, 4);
  const widths = Array.from({ length: levels }, (_, level) =>
    of(new RegExp(`(down|up)\\.${level}\\.block\\.\\d+\\.conv[12]\\.weight$`), 0),
  );
  return {
    ch: of(/^encoder\.conv_in\.weight$/, 0) || widths[0] || 0,
    widths,
    blocks,
    latent: of(/^decoder\.conv_in\.weight$/, 1) || of(/^encoder\.conv_out\.weight$/, 0) / 2,
    inputs: of(/^encoder\.conv_in\.weight$/, 1),
    outputs: of(/^decoder\.conv_out\.weight$/, 0),
  };
}

/** Inputs and outputs of a level's residual block. */
function blockWidths(
  half: VaeHalf,
  level: number,
  block: number,
  { ch, widths }: Sizes,
): readonly [number, number] {
  const outputs = widths[level]!;
  if (block > 0) return [outputs, outputs];
  const before = half === 'encoder' ? (widths[level - 1] ?? ch) : (widths[level + 1] ?? outputs);
  return [before, outputs];
}

/** Outputs, inputs and kernel of a module; without a kernel a norm. */
function moduleShape(
  module: string,
  sizes: Sizes,
): readonly [outputs: number, inputs: number, kernel?: number] {
  const { latent, widths } = sizes;
  const coarsest = widths.at(-1) ?? 0;
  if (module === 'quant_conv') return [2 * latent, 2 * latent, 1];
  if (module === 'post_quant_conv') return [latent, latent, 1];
  const [half, ...path] = module.split('.') as [VaeHalf, ...string[]];
  const last = path.at(-1)!;
  if (last === 'norm_out') return [half === 'encoder' ? coarsest : (widths[0] ?? 0), 0];
  if (last === 'conv_in') return half === 'encoder' ? [sizes.ch, sizes.inputs, 3] : [coarsest, latent, 3];
  if (last === 'conv_out')
    return half === 'encoder' ? [2 * latent, coarsest, 3] : [sizes.outputs, widths[0] ?? 0, 3];
  if (path[1] === 'attn_1') return last === 'norm' ? [coarsest, 0] : [coarsest, coarsest, 1];
  const [, level, kind, block] = path;
  const [inputs, outputs] =
    path[0] === 'mid' ? [coarsest, coarsest] : blockWidths(half, Number(level), Number(block ?? 0), sizes);
  if (kind !== undefined && last === 'conv') return [outputs, outputs, 3]; // down- or upsampling
  if (last.startsWith('norm')) return [last === 'norm1' ? inputs : outputs, 0];
  if (last === 'nin_shortcut') return [outputs, inputs, 1];
  return [outputs, last === 'conv1' ? inputs : outputs, 3];
}

function expectedShape(canonical: string, sizes: Sizes): readonly number[] {
  const [outputs, inputs, kernel] = moduleShape(canonical.replace(/\.(weight|bias)$/, ''), sizes);
  const isMatrix = kernel !== undefined && canonical.endsWith('.weight');
  return isMatrix ? [outputs, inputs, kernel, kernel] : [outputs];
}

/** A block whose channels change needs a 1×1 convolution beside it, any other must have none. */
function checkShortcuts(
  { tensors, missing, wrong }: Resolved,
  entries: readonly NameEntry[],
  prefix: string,
  sizes: Sizes,
): void {
  for (const { canonical, storedAs } of entries) {
    const place = /^(encoder|decoder)\.\w+\.(\d+)\.block\.(\d+)\.nin_shortcut\./.exec(canonical);
    if (place === null) continue;
    const [inputs, outputs] = blockWidths(place[1] as VaeHalf, Number(place[2]), Number(place[3]), sizes);
    const found = tensors.get(canonical);
    if (inputs !== outputs && found === undefined) missing.push(prefix + storedAs.at(-1)!.file);
    if (inputs === outputs && found !== undefined)
      wrong.push(`${found.tensor.name} stands beside a block whose channels do not change`);
  }
}

function vaeConfig(
  path: string,
  values: ReadonlyMap<string, ConfigValue>,
  { ch, widths, blocks, latent }: Sizes,
  multiples: readonly number[],
  factors: Factors,
): { config: VaeConfig; undecided: string[] } {
  const fail = (what: string): never => {
    throw new KotobaError('ERR_MODEL_CONFIG', `${path}: ${what}`);
  };
  const number = (key: string, otherwise = 0): number => (values.get(key) as number | undefined) ?? otherwise;
  const scale = values.get('scale_factor') as number | undefined;
  const shift = number('shift_factor');
  if (scale !== undefined && !(scale >= 1 / kMostFactor && scale <= kMostFactor))
    fail(`scale_factor is ${scale}, expected ${1 / kMostFactor} to ${kMostFactor}`);
  if (Math.abs(shift) > kMostFactor)
    fail(`shift_factor is ${shift}, expected at most ${kMostFactor} either way`);
  const config: VaeConfig = {
    ch,
    ch_mult: multiples,
    num_res_blocks: blocks,
    z_channels: latent,
    in_channels: number('in_channels', number('out_ch')),
    out_ch: number('out_ch', number('in_channels')),
    num_groups: number('num_groups', kGroups),
    quant_conv: values.get('quant_conv') === true,
    ...(values.has('resolution') && { resolution: number('resolution') }),
    ...(scale === undefined ? factors : { scale_factor: scale, shift_factor: shift }),
  };
  const { num_groups: groups } = config;
  const fits = groups > 0 && [ch, ...widths].every((width) => width % groups === 0);
  if (!fits && values.has('num_groups'))
    fail(`num_groups ${groups} does not divide the channels ${[...new Set([ch, ...widths])].join(', ')}`);
  return { config, undecided: fits ? [] : ['num_groups'] };
}
