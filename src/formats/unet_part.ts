/** A UNet found in a file: its tensors under the LDM's names and its config. */
import { basename, dirname, join, resolve } from 'node:path';
import { KotobaError } from '../errors.js';
import type { ConfigFamily, ConfigSource, ConfigValue } from './config.js';
import { configIn, foundConfigs, settleConfig } from './config.js';
import type { ModelFile } from './model_file.js';
import type { UnetScheme } from './names/diffusion.js';
import type { NameEntry } from './names/scheme.js';
import { unetEntries, unetLayout, type UnetLayout } from './names/unet.js';
import type { TensorSource, UnetConfig, UnetPart } from './part.js';
import { members, summarize, unusedMembers } from './part_summary.js';
import { readNumbers } from './read.js';
import { checkShapes, countLayers, dimension, resolveEntries, type Resolved } from './resolve.js';
import { unetShapes, type UnetSizes } from './unet_shapes.js';

/** Aliases are diffusers' keys. */
export const unetFamily: ConfigFamily = {
  title: 'UNet',
  keys: [
    { name: 'in_channels', type: 'count' },
    { name: 'out_channels', type: 'count' },
    { name: 'model_channels', type: 'count' },
    { name: 'context_dim', type: 'count', aliases: ['cross_attention_dim'] },
    { name: 'adm_in_channels', type: 'count', aliases: ['projection_class_embeddings_input_dim'] },
    { name: 'num_heads', type: 'count' },
    { name: 'num_head_channels', type: 'count' },
    { name: 'heads', type: 'counts' },
    { name: 'prediction', type: 'string', aliases: ['prediction_type'] },
    { name: 'zero_terminal_snr', type: 'boolean', aliases: ['rescale_betas_zero_snr'] },
  ],
  telling: ['model_channels', 'cross_attention_dim', 'num_head_channels', 'adm_in_channels'],
  implied: (values) => {
    // What diffusers calls attention_head_dim is a number of heads: one for all levels, or one for each.
    const { attention_head_dim: heads, block_out_channels: widths } = values;
    if (heads === undefined || !Array.isArray(widths)) return values;
    return { ...values, heads: Array.isArray(heads) ? heads : widths.map(() => heads) };
  },
};

interface Heads {
  readonly num_heads?: number | undefined;
  readonly num_head_channels?: number | undefined;
  /** of every level */
  readonly heads?: readonly number[] | undefined;
}
/** By the width of the tokens attended to: what Stability AI's models use, and no tensor tells. */
const kKnownHeads: Readonly<Record<number, Heads>> = {
  768: { num_heads: 8 }, // SD1
  1024: { num_head_channels: 64 }, // SD2
  2048: { num_head_channels: 64 }, // SDXL
  1280: { num_head_channels: 64 }, // SDXL refiner
};

const kPredictions: Readonly<Record<string, UnetConfig['prediction']>> = {
  eps: 'eps',
  epsilon: 'eps',
  v: 'v',
  v_prediction: 'v',
};

export function buildUnet(
  model: ModelFile,
  scheme: UnetScheme,
  prefix: string,
  given?: ConfigSource,
): UnetPart {
  const naming = scheme.names === 'original' ? 'ldm' : 'diffusers';
  const own = [...members(model, scheme, prefix).keys()];
  const layout = unetLayout(
    naming,
    (name) => model.tensors.has(prefix + name),
    (stem) => countLayers(own, stem),
  );
  const entries = unetEntries(layout, naming);
  const resolved = resolveEntries(model, prefix, entries);
  const sizes = sizesOf(resolved.tensors, layout);
  const shapes = unetShapes(layout, sizes);
  checkShapes(resolved, (canonical) => shapes.get(canonical) ?? []);
  checkShortcuts(resolved, entries, prefix, shapes);
  const summary = summarize(model, scheme, prefix, resolved.tensors);
  const anchor = resolved.tensors.values().next().value!.tensor;
  const found = [given, ...foundConfigs(model, unetFamily, anchor), schedulerConfig(anchor.path)];
  const sources = found.filter((source) => source !== undefined);
  const { values, notes } = settleConfig(anchor.path, unetFamily, sources, {
    in_channels: sizes.inputs,
    out_channels: sizes.outputs,
    model_channels: sizes.model,
    context_dim: sizes.context,
    adm_in_channels: sizes.vector,
  });
  const isTold = values.has('prediction') || model.tensors.has('v_pred');
  const looksV = !isTold && hasVelocitySpread(resolved.tensors, sizes);
  if (looksV) values.set('prediction', 'v');
  const { config, undecided } = unetConfig(anchor.path, values, sizes, layout, model);
  return {
    ...summary,
    ...resolved,
    slot: 'unet',
    config,
    undecided,
    notes: looksV ? [...notes, kVelocityNote] : notes,
    unexpected: unusedMembers(model, scheme, prefix, resolved.tensors),
  };
}

function sizesOf(tensors: ReadonlyMap<string, TensorSource>, layout: UnetLayout): UnetSizes {
  const conv = (kind: RegExp, axis: number): number => dimension(tensors, kind, axis, 4);
  const matrix = (kind: RegExp, axis: number): number => dimension(tensors, kind, axis, 2);
  let input = 1;
  const widths = layout.down.map((blocks) => {
    const width = blocks
      .map((_, i) => conv(new RegExp(`^input_blocks\\.${input + i}\\.0\\.in_layers\\.2\\.weight$`), 0))
      .find((found) => found > 0);
    input += blocks.length + 1;
    return width ?? 0;
  });
  return {
    inputs: conv(/^input_blocks\.0\.0\.weight$/, 1),
    outputs: conv(/^out\.2\.weight$/, 0),
    model: conv(/^input_blocks\.0\.0\.weight$/, 0),
    time: matrix(/^time_embed\.2\.weight$/, 0),
    vector: matrix(/^label_emb\.0\.0\.weight$/, 1),
    context: matrix(/attn2\.to_k\.weight$/, 1),
    isMatrixProjection: matrix(/\.proj_in\.weight$/, 0) > 0,
    widths,
  };
}

/** A residual block whose channels change needs a 1×1 convolution beside it, any other must have none. */
function checkShortcuts(
  { tensors, missing, wrong }: Resolved,
  entries: readonly NameEntry[],
  prefix: string,
  shapes: ReadonlyMap<string, readonly number[]>,
): void {
  for (const { canonical, storedAs, optional } of entries) {
    if (!optional) continue;
    const found = tensors.get(canonical);
    if (shapes.has(canonical) && !found) missing.push(prefix + storedAs[0]!.file);
    if (!shapes.has(canonical) && found)
      wrong.push(`${found.tensor.name} stands beside a block whose channels do not change`);
  }
}

/** diffusers keeps what a UNet predicts, and from which noise, with the sampler. */
function schedulerConfig(weights: string): ConfigSource | undefined {
  const folder = dirname(resolve(weights));
  if (basename(folder) !== 'unet') return undefined;
  return configIn(join(dirname(folder), 'scheduler/scheduler_config.json'));
}

/**
 * Nothing in SD2's checkpoints says which of them predict velocities. The biases of one norm spread more in those, and
 * ComfyUI tells them by that.
 */
const kTellingNorm = 'output_blocks.11.1.transformer_blocks.0.norm1.bias';
const kVelocitySpread = 0.09;
const kVelocityNote = `predicts velocities, by the spread of a norm's biases; --config '{"prediction": "eps"}' says otherwise`;

function hasVelocitySpread(tensors: ReadonlyMap<string, TensorSource>, sizes: UnetSizes): boolean {
  const norm = tensors.get(kTellingNorm)?.tensor;
  const isLegible = norm && ['F32', 'F16', 'BF16'].includes(norm.dtype) && norm.bytes < 1 << 16;
  if (!isLegible || sizes.context !== 1024 || sizes.inputs !== sizes.outputs) return false;
  const biases = readNumbers(norm);
  const mean = biases.reduce((sum, bias) => sum + bias, 0) / biases.length;
  return (
    Math.sqrt(biases.reduce((sum, bias) => sum + (bias - mean) ** 2, 0) / biases.length) > kVelocitySpread
  );
}

function headsTold(values: ReadonlyMap<string, ConfigValue>): Heads | undefined {
  const told = {
    num_heads: values.get('num_heads') as number | undefined,
    num_head_channels: values.get('num_head_channels') as number | undefined,
    heads: values.get('heads') as readonly number[] | undefined,
  };
  return Object.values(told).every((value) => value === undefined) ? undefined : told;
}

function unetConfig(
  path: string,
  values: ReadonlyMap<string, ConfigValue>,
  sizes: UnetSizes,
  layout: UnetLayout,
  model: ModelFile,
): { config: UnetConfig; undecided: string[] } {
  const fail = (what: string): never => {
    throw new KotobaError('ERR_MODEL_CONFIG', `${path}: ${what}`);
  };
  const told = headsTold(values);
  const { num_heads, num_head_channels, heads: perLevel } = told ?? kKnownHeads[sizes.context] ?? {};
  const heads = sizes.widths.map(
    (width, level) => num_heads ?? perLevel?.[level] ?? width / (num_head_channels ?? 0),
  );
  const fits = heads.every(
    (count, i) => Number.isInteger(count) && count > 0 && sizes.widths[i]! % count === 0,
  );
  if (!fits && told)
    fail(`heads [${heads.join(', ')}] do not divide the channels [${sizes.widths.join(', ')}]`);
  const stated = values.get('prediction') as string | undefined;
  const prediction =
    stated === undefined ? (model.tensors.has('v_pred') ? 'v' : 'eps') : kPredictions[stated];
  const config: UnetConfig = {
    in_channels: sizes.inputs,
    out_channels: sizes.outputs,
    model_channels: sizes.model,
    widths: sizes.widths,
    context_dim: sizes.context,
    adm_in_channels: sizes.vector,
    heads,
    layout,
    prediction: prediction ?? fail(`prediction is ${stated}, expected eps or v`),
    zero_terminal_snr: (values.get('zero_terminal_snr') as boolean | undefined) ?? model.tensors.has('ztsnr'),
  };
  return { config, undecided: fits ? [] : ['num_heads'] };
}
