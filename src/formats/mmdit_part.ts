/** An MMDiT (SD3, SD3.5) found in a file: its tensors under Stability AI's names and its config. */
import { KotobaError } from '../errors.js';
import type { ConfigFamily, ConfigSource } from './config.js';
import { foundConfigs, settleConfig } from './config.js';
import type { ModelFile } from './model_file.js';
import type { MmditScheme } from './names/diffusion.js';
import { mmditEntries, type MmditLayout } from './names/mmdit.js';
import type { MmditConfig, MmditPart, TensorSource } from './part.js';
import { members, summarize, unusedMembers } from './part_summary.js';
import { checkShapes, countLayers, dimension, resolveEntries } from './resolve.js';

/** Aliases are diffusers' keys. */
export const mmditFamily: ConfigFamily = {
  title: 'MMDiT',
  keys: [
    { name: 'in_channels', type: 'count' },
    { name: 'patch_size', type: 'count' },
    { name: 'depth', type: 'count', aliases: ['num_layers'] },
    { name: 'num_heads', type: 'count', aliases: ['num_attention_heads'] },
    { name: 'pos_embed_max_size', type: 'count' },
    { name: 'adm_in_channels', type: 'count', aliases: ['pooled_projection_dim'] },
  ],
  telling: ['pos_embed_max_size'],
};

/** Width of the sinusoids that time is embedded with. */
const kSinusoids = 256;
/** Of a head, where no norm tells it: Stability AI's models have as many heads as blocks, each this wide. */
const kHeadWidth = 64;
/** More blocks no MMDiT has: a number far out of line is none. */
const kMost = 256;

interface Sizes {
  readonly hidden: number;
  readonly mlp: number;
  readonly head: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly patch: number;
  readonly vector: number;
  readonly context: number;
  readonly positions: number;
}

export function buildMmdit(
  model: ModelFile,
  scheme: MmditScheme,
  prefix: string,
  given?: ConfigSource,
): MmditPart {
  const layout = layoutOf(model, scheme, prefix);
  const resolved = resolveEntries(model, prefix, mmditEntries(layout, scheme.names));
  const sizes = sizesOf(resolved.tensors);
  checkShapes(resolved, (canonical) => expectedShape(canonical, sizes, layout));
  const side = Math.sqrt(sizes.positions);
  if (!Number.isInteger(side)) resolved.wrong.push(`pos_embed holds ${sizes.positions} positions: no square`);
  if (sizes.outputs !== sizes.inputs * sizes.patch ** 2)
    resolved.wrong.push(
      `final_layer.linear has ${sizes.outputs} rows: expected ${sizes.inputs * sizes.patch ** 2}`,
    );
  if (sizes.hidden % sizes.head !== 0)
    resolved.wrong.push(`heads of ${sizes.head} do not divide the width ${sizes.hidden}`);
  const summary = summarize(model, scheme, prefix, resolved.tensors);
  const anchor = resolved.tensors.values().next().value!.tensor;
  const sources = [...(given === undefined ? [] : [given]), ...foundConfigs(model, mmditFamily, anchor)];
  const { notes } = settleConfig(anchor.path, mmditFamily, sources, {
    in_channels: sizes.inputs,
    patch_size: sizes.patch,
    depth: layout.depth,
    num_heads: sizes.hidden / sizes.head,
    adm_in_channels: sizes.vector,
    pos_embed_max_size: side,
  });
  const config: MmditConfig = {
    in_channels: sizes.inputs,
    patch_size: sizes.patch,
    hidden_size: sizes.hidden,
    num_heads: sizes.hidden / sizes.head,
    depth: layout.depth,
    mlp_ratio: sizes.hidden > 0 ? sizes.mlp / sizes.hidden : 0,
    context_dim: sizes.context,
    adm_in_channels: sizes.vector,
    pos_embed_max_size: side,
    qk_norm: layout.hasQkNorm,
    x_block_self_attn_layers: layout.dual,
  };
  if (layout.depth === 0)
    throw new KotobaError('ERR_MODEL_CONFIG', `${anchor.path}: an MMDiT without blocks`);
  return {
    ...summary,
    ...resolved,
    slot: 'transformer',
    config,
    undecided: [],
    notes,
    unexpected: unusedMembers(model, scheme, prefix, resolved.tensors),
  };
}

function layoutOf(model: ModelFile, scheme: MmditScheme, prefix: string): MmditLayout {
  const own = new Set(members(model, scheme, prefix).keys());
  const isOriginal = scheme.names === 'original';
  const stem = isOriginal ? 'joint_blocks.' : 'transformer_blocks.';
  const depth = Math.min(kMost, countLayers(own, stem));
  const block = (i: number, original: string, diffusers: string): boolean =>
    own.has(`${stem}${i}.${isOriginal ? original : diffusers}`);
  const blocks = Array.from({ length: depth }, (_, i) => i);
  return {
    depth,
    hasQkNorm: blocks.some((i) => block(i, 'x_block.attn.ln_q.weight', 'attn.norm_q.weight')),
    dual: blocks.filter((i) => block(i, 'x_block.attn2.qkv.weight', 'attn2.to_q.weight')),
  };
}

function sizesOf(tensors: ReadonlyMap<string, TensorSource>): Sizes {
  const matrix = (kind: RegExp, axis: number): number => dimension(tensors, kind, axis, 2);
  const embedder = (axis: number): number => dimension(tensors, /^x_embedder\.proj\.weight$/, axis, 4);
  return {
    hidden: embedder(0) || matrix(/attn\.proj\.weight$/, 0),
    mlp: matrix(/mlp\.fc1\.weight$/, 0),
    head: dimension(tensors, /ln_q\.weight$/, 0, 1) || kHeadWidth,
    inputs: embedder(1),
    outputs: matrix(/^final_layer\.linear\.weight$/, 0),
    patch: embedder(2),
    vector: matrix(/^y_embedder\.mlp\.0\.weight$/, 1),
    context: matrix(/^context_embedder\.weight$/, 1),
    positions: dimension(tensors, /^pos_embed$/, 1, 3),
  };
}

/** Outputs and inputs of a matrix. */
function matrixShape(module: string, sizes: Sizes, { depth, dual }: MmditLayout): readonly [number, number] {
  const { hidden, mlp } = sizes;
  if (module === 'context_embedder') return [hidden, sizes.context];
  if (module === 't_embedder.mlp.0') return [hidden, kSinusoids];
  if (module === 'y_embedder.mlp.0') return [hidden, sizes.vector];
  if (module === 'final_layer.linear') return [sizes.outputs, hidden];
  if (module === 'final_layer.adaLN_modulation.1') return [2 * hidden, hidden];
  if (module.endsWith('.adaLN_modulation.1')) {
    const block = Number(module.split('.')[1]);
    const isContext = module.includes('.context_block.');
    // Shift, scale and gate of attention and MLP; the last context only feeds keys and values.
    const pieces = isContext ? (block === depth - 1 ? 2 : 6) : dual.includes(block) ? 9 : 6;
    return [pieces * hidden, hidden];
  }
  if (module.endsWith('.qkv')) return [3 * hidden, hidden];
  if (module.endsWith('.fc1')) return [mlp, hidden];
  return [hidden, module.endsWith('.fc2') ? mlp : hidden];
}

function expectedShape(canonical: string, sizes: Sizes, layout: MmditLayout): readonly number[] {
  const { hidden, inputs, patch } = sizes;
  if (canonical === 'pos_embed') return [1, sizes.positions, hidden];
  if (/\.ln_[qk]\.weight$/.test(canonical)) return [sizes.head];
  const module = canonical.replace(/\.(weight|bias)$/, '');
  if (module === 'x_embedder.proj')
    return canonical.endsWith('.bias') ? [hidden] : [hidden, inputs, patch, patch];
  const [outputs, width] = matrixShape(module, sizes, layout);
  return canonical.endsWith('.bias') ? [outputs] : [outputs, width];
}
