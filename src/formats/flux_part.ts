/** A Flux transformer found in a file: its tensors under Black Forest Labs' names and its config. */
import { KotobaError } from '../errors.js';
import type { ConfigFamily, ConfigSource, ConfigValue } from './config.js';
import { foundConfigs, settleConfig } from './config.js';
import type { ModelFile } from './model_file.js';
import type { FluxScheme } from './names/diffusion.js';
import { fluxEntries } from './names/flux.js';
import type { FluxConfig, FluxPart, TensorSource } from './part.js';
import { summarize, unusedMembers } from './part_summary.js';
import { checkShapes, countLayers, dimension, resolveEntries } from './resolve.js';

/** Aliases are diffusers' keys. */
export const fluxFamily: ConfigFamily = {
  title: 'Flux',
  keys: [
    { name: 'in_channels', type: 'count' },
    { name: 'out_channels', type: 'count' },
    { name: 'vec_in_dim', type: 'count', aliases: ['pooled_projection_dim'] },
    { name: 'context_in_dim', type: 'count', aliases: ['joint_attention_dim'] },
    { name: 'hidden_size', type: 'count' },
    { name: 'mlp_ratio', type: 'number' },
    { name: 'num_heads', type: 'count', aliases: ['num_attention_heads'] },
    { name: 'depth', type: 'count', aliases: ['num_layers'] },
    { name: 'depth_single_blocks', type: 'count', aliases: ['num_single_layers'] },
    { name: 'axes_dim', type: 'counts', aliases: ['axes_dims_rope'] },
    { name: 'theta', type: 'number' },
    { name: 'qkv_bias', type: 'boolean' },
    { name: 'guidance_embed', type: 'boolean', aliases: ['guidance_embeds'] },
    { name: 'max_sequence_length', type: 'count' },
  ],
  telling: [
    'axes_dim',
    'axes_dims_rope',
    'depth_single_blocks',
    'num_single_layers',
    'guidance_embed',
    'guidance_embeds',
  ],
};

/** Width of the sinusoids that time and guidance are embedded with. */
const kSinusoids = 256;
const kTheta = 10_000;
/** T5 tokens: Flux.1 was trained with 512 at most. */
const kMostTokens = 1 << 16;
/** By head width: what Black Forest Labs' models use, and no tensor tells. */
const kKnownAxes: Readonly<Record<number, readonly number[]>> = { 128: [16, 56, 56] };

interface Sizes {
  readonly hidden: number;
  readonly mlp: number;
  readonly head: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly vector: number;
  readonly context: number;
}

export function buildFlux(
  model: ModelFile,
  scheme: FluxScheme,
  prefix: string,
  given?: ConfigSource,
): FluxPart {
  const isDiffusers = scheme.names === 'diffusers';
  const count = (stem: string): number => countLayers(model.tensors.keys(), prefix + stem);
  const layout = {
    depth: count(isDiffusers ? 'transformer_blocks.' : 'double_blocks.'),
    depthSingle: count(isDiffusers ? 'single_transformer_blocks.' : 'single_blocks.'),
    hasGuidance: anyName(
      model,
      `${prefix}${isDiffusers ? 'time_text_embed.guidance_embedder.' : 'guidance_in.'}`,
    ),
    hasQkvBias: anyName(
      model,
      prefix,
      isDiffusers ? /attn\.(to|add)_(q|q_proj)\.bias$/ : /_attn\.qkv\.bias$/,
    ),
  };
  const resolved = resolveEntries(model, prefix, fluxEntries(layout, isDiffusers ? 'diffusers' : 'flux'));
  const sizes = sizesOf(resolved.tensors);
  checkShapes(resolved, (canonical) => expectedShape(canonical, sizes));
  resolved.wrong.push(...splitProblems(resolved.tensors, sizes));
  if (sizes.head > 0 && sizes.hidden % sizes.head !== 0)
    resolved.wrong.push(`heads of ${sizes.head} do not divide the width ${sizes.hidden}`);
  const summary = summarize(model, scheme, prefix, resolved.tensors);
  const anchor = resolved.tensors.values().next().value!.tensor;
  const sources = [...(given === undefined ? [] : [given]), ...foundConfigs(model, fluxFamily, anchor)];
  const { values, notes } = settleConfig(anchor.path, fluxFamily, sources, {
    in_channels: sizes.inputs,
    out_channels: sizes.outputs,
    vec_in_dim: sizes.vector,
    context_in_dim: sizes.context,
    hidden_size: sizes.hidden,
    num_heads: sizes.head > 0 && sizes.hidden % sizes.head === 0 ? sizes.hidden / sizes.head : 0,
    depth: layout.depth,
    depth_single_blocks: layout.depthSingle,
    qkv_bias: layout.hasQkvBias,
    guidance_embed: layout.hasGuidance,
  });
  return {
    ...summary,
    ...resolved,
    slot: 'transformer',
    config: fluxConfig(anchor.path, values, sizes),
    undecided: values.has('axes_dim') || sizes.head === 0 || kKnownAxes[sizes.head] ? [] : ['axes_dim'],
    notes,
    unexpected: unusedMembers(model, scheme, prefix, resolved.tensors),
  };
}

function anyName(model: ModelFile, prefix: string, end?: RegExp): boolean {
  for (const name of model.tensors.keys())
    if (name.startsWith(prefix) && (end === undefined || end.test(name))) return true;
  return false;
}

function sizesOf(tensors: ReadonlyMap<string, TensorSource>): Sizes {
  const of = (kind: RegExp, axis: number): number => dimension(tensors, kind, axis, 2);
  return {
    hidden: of(/^img_in\.weight$/, 0) || of(/(proj|linear2)\.weight$/, 0),
    mlp: of(/_mlp\.0\.weight$/, 0),
    head: dimension(tensors, /_norm\.scale$/, 0, 1),
    inputs: of(/^img_in\.weight$/, 1),
    outputs: of(/^final_layer\.linear\.weight$/, 0),
    vector: of(/^vector_in\.in_layer\.weight$/, 1),
    context: of(/^txt_in\.weight$/, 1),
  };
}

/** Outputs and inputs of a module, by the end of its canonical name. */
function linearShape(module: string, sizes: Sizes): readonly [outputs: number, inputs: number] {
  const { hidden, mlp } = sizes;
  if (module === 'img_in') return [hidden, sizes.inputs];
  if (module === 'txt_in') return [hidden, sizes.context];
  if (module === 'vector_in.in_layer') return [hidden, sizes.vector];
  if (module.endsWith('.in_layer')) return [hidden, kSinusoids];
  if (module === 'final_layer.linear') return [sizes.outputs, hidden];
  if (module.endsWith('adaLN_modulation.1')) return [2 * hidden, hidden];
  if (module.endsWith('_mod.lin')) return [6 * hidden, hidden];
  if (module.endsWith('.modulation.lin') || module.endsWith('.qkv')) return [3 * hidden, hidden];
  if (module.endsWith('.linear1')) return [3 * hidden + mlp, hidden];
  if (module.endsWith('.linear2')) return [hidden, hidden + mlp];
  if (module.endsWith('_mlp.0')) return [mlp, hidden];
  return [hidden, module.endsWith('_mlp.2') ? mlp : hidden];
}

function expectedShape(canonical: string, sizes: Sizes): readonly number[] {
  if (canonical.endsWith('.scale')) return [sizes.head];
  const module = canonical.replace(/\.(weight|bias)$/, '');
  const [outputs, inputs] = linearShape(module, sizes);
  return canonical.endsWith('.bias') ? [outputs] : [outputs, inputs];
}

/** q, k and v that are stored apart must each be as high as the network is wide, or rows would be taken from another. */
function splitProblems(tensors: ReadonlyMap<string, TensorSource>, { hidden }: Sizes): string[] {
  const problems: string[] = [];
  for (const { tensor, rows, append } of tensors.values()) {
    if (append === undefined || rows !== undefined) continue;
    for (const info of [tensor, ...append.slice(0, 2).map((piece) => piece.tensor)])
      if (info.shape[0] !== hidden)
        problems.push(`${info.name} is [${info.shape.join(', ')}]: expected ${hidden} rows`);
  }
  return problems;
}

function fluxConfig(path: string, values: ReadonlyMap<string, ConfigValue>, sizes: Sizes): FluxConfig {
  const { hidden, head, mlp } = sizes;
  const fail = (what: string): never => {
    throw new KotobaError('ERR_MODEL_CONFIG', `${path}: ${what}`);
  };
  const number = (key: string, otherwise = 0): number => (values.get(key) as number | undefined) ?? otherwise;
  const axes = (values.get('axes_dim') as readonly number[] | undefined) ?? kKnownAxes[head] ?? [];
  if (axes.some((width) => width % 2 !== 0))
    fail(`axes_dim [${axes.join(', ')}]: each width must be even, for it is rotated in pairs`);
  const total = axes.reduce((a, b) => a + b, 0);
  if (axes.length > 0 && head > 0 && (axes.length !== 3 || total !== head))
    fail(`axes_dim [${axes.join(', ')}] must be three widths that add up to ${head}, the width of a head`);
  const ratio = values.get('mlp_ratio') as number | undefined;
  if (ratio !== undefined && mlp > 0 && hidden > 0 && Math.trunc(hidden * ratio) !== mlp)
    fail(`mlp_ratio is ${ratio}, but the tensors say ${mlp / hidden}`);
  if (number('theta', kTheta) <= 0) fail(`theta is ${number('theta')}, expected more than 0`);
  const length = values.get('max_sequence_length') as number | undefined;
  if (length !== undefined && (length < 2 || length > kMostTokens))
    fail(`max_sequence_length is ${length}, expected 2 to ${kMostTokens} tokens`);
  return {
    in_channels: number('in_channels'),
    out_channels: number('out_channels'),
    vec_in_dim: number('vec_in_dim'),
    context_in_dim: number('context_in_dim'),
    hidden_size: number('hidden_size'),
    mlp_ratio: hidden > 0 ? mlp / hidden : 0,
    num_heads: number('num_heads'),
    depth: number('depth'),
    depth_single_blocks: number('depth_single_blocks'),
    axes_dim: axes,
    theta: number('theta', kTheta),
    qkv_bias: values.get('qkv_bias') === true,
    guidance_embed: values.get('guidance_embed') === true,
    ...(length !== undefined && { max_sequence_length: length }),
  };
}
