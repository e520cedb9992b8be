/** The weights of a UNet, under the LDM's names. */
import { unetPlan, type UnetBlock, type UnetConfig } from '../formats/index.js';
import type { Conv, Linear, Norm } from '../runtime/ops.js';
import type { Weights } from '../runtime/weights.js';

export interface ResidualBlock {
  readonly in_norm: Norm;
  readonly in_conv: Conv;
  /** of the time embedding */
  readonly emb: Linear;
  readonly out_norm: Norm;
  readonly out_conv: Conv;
  /** where the number of channels changes */
  readonly skip_connection?: Linear | undefined;
}

export interface AttentionWeights {
  readonly to_q: Linear;
  readonly to_k: Linear;
  readonly to_v: Linear;
  readonly to_out: Linear;
}

/** arXiv:2112.10752 appendix E.2.1 */
export interface TransformerBlock {
  readonly norm1: Norm;
  /** of pixels to pixels */
  readonly attn1: AttentionWeights;
  readonly norm2: Norm;
  /** of pixels to text */
  readonly attn2: AttentionWeights;
  readonly norm3: Norm;
  /** the two halves of ff.net.0.proj: arXiv:2002.05202 */
  readonly ff_value: Linear;
  readonly ff_gate: Linear;
  readonly ff_out: Linear;
}

export interface SpatialTransformer {
  readonly heads: number;
  readonly norm: Norm;
  readonly proj_in: Linear;
  readonly blocks: readonly TransformerBlock[];
  readonly proj_out: Linear;
}

export interface UnetStep {
  /** as in the checkpoint: "input_blocks.4" */
  readonly name: string;
  readonly residual: ResidualBlock;
  readonly transformer?: SpatialTransformer | undefined;
}

export interface UnetStage {
  readonly steps: readonly UnetStep[];
  /** to half the size on the way down, to twice on the way up; absent at the end */
  readonly resample?: { readonly name: string; readonly conv: Conv } | undefined;
}

export interface Unet {
  readonly config: UnetConfig;
  readonly conv_in: Conv;
  readonly time_embed: readonly [Linear, Linear];
  readonly label_emb?: readonly [Linear, Linear] | undefined;
  readonly down: readonly UnetStage[];
  readonly middle: {
    readonly first: ResidualBlock;
    readonly transformer?: SpatialTransformer | undefined;
    readonly second: ResidualBlock;
  };
  readonly up: readonly UnetStage[];
  readonly norm_out: Norm;
  readonly conv_out: Conv;
}

/** @throws KotobaError ERR_MODEL_TENSORS */
export function unetModel(w: Weights, config: UnetConfig): Unet {
  const { widths, model_channels: model, context_dim, adm_in_channels, heads, layout } = config;
  const plan = unetPlan(layout);
  const time = 4 * model;
  const residual = (at: string, inputs: number, outputs: number): ResidualBlock => ({
    in_norm: w.norm(`${at}.in_layers.0`, inputs),
    in_conv: w.conv(`${at}.in_layers.2`, outputs, inputs, 3),
    emb: w.linear(`${at}.emb_layers.1`, outputs, time),
    out_norm: w.norm(`${at}.out_layers.0`, outputs),
    out_conv: w.conv(`${at}.out_layers.3`, outputs, outputs, 3),
    skip_connection: inputs === outputs ? undefined : w.pointwise(`${at}.skip_connection`, outputs, inputs),
  });
  const transformer = (at: string, level: number, depth: number): SpatialTransformer | undefined =>
    depth === 0 ? undefined : spatialTransformer(w, at, widths[level]!, context_dim, heads[level]!, depth);
  const step = (block: UnetBlock, level: number, inputs: number): UnetStep => ({
    name: block.ldm.replace(/\.0$/, ''),
    residual: residual(block.ldm, inputs, widths[level]!),
    transformer: transformer(block.transformer.ldm, level, block.depth),
  });

  const skips = [model];
  let width = model;
  const down = plan.down.map(({ blocks, resample }, level): UnetStage => {
    const steps = blocks.map((block) => {
      const made = step(block, level, width);
      skips.push((width = widths[level]!));
      return made;
    });
    if (!resample) return { steps };
    skips.push(width);
    const conv = w.conv(resample.ldm, width, width, 3);
    return { steps, resample: { name: resample.ldm.replace(/\.0\.op$/, ''), conv } };
  });
  const coarsest = widths.length - 1;
  const middle = {
    first: residual(plan.middle.first.ldm, width, width),
    transformer: transformer(plan.middle.transformer.ldm, coarsest, layout.middle),
    second: residual(plan.middle.second.ldm, width, width),
  };
  const up = plan.up.map(({ blocks, resample }, i): UnetStage => {
    const level = coarsest - i;
    const steps = blocks.map((block) => {
      const made = step(block, level, width + skips.pop()!);
      width = widths[level]!;
      return made;
    });
    if (!resample) return { steps };
    return { steps, resample: { name: resample.ldm, conv: w.conv(resample.ldm, width, width, 3) } };
  });
  return {
    config,
    conv_in: w.conv('input_blocks.0.0', model, config.in_channels, 3),
    time_embed: [w.linear('time_embed.0', time, model), w.linear('time_embed.2', time, time)],
    label_emb: layout.hasVector
      ? [w.linear('label_emb.0.0', time, adm_in_channels), w.linear('label_emb.0.2', time, time)]
      : undefined,
    down,
    middle,
    up,
    norm_out: w.norm('out.0', width),
    conv_out: w.conv('out.2', config.out_channels, width, 3),
  };
}

function spatialTransformer(
  w: Weights,
  at: string,
  width: number,
  context: number,
  heads: number,
  depth: number,
): SpatialTransformer {
  const attention = (name: string, tokens: number): AttentionWeights => ({
    to_q: w.linear(`${name}.to_q`, width, width),
    to_k: w.linear(`${name}.to_k`, width, tokens),
    to_v: w.linear(`${name}.to_v`, width, tokens),
    to_out: w.linear(`${name}.to_out.0`, width, width),
  });
  const block = (name: string): TransformerBlock => ({
    norm1: w.norm(`${name}.norm1`, width),
    attn1: attention(`${name}.attn1`, width),
    norm2: w.norm(`${name}.norm2`, width),
    attn2: attention(`${name}.attn2`, context),
    norm3: w.norm(`${name}.norm3`, width),
    ff_value: w.linearRows(`${name}.ff.net.0.proj`, [0, 4 * width], width),
    ff_gate: w.linearRows(`${name}.ff.net.0.proj`, [4 * width, 8 * width], width),
    ff_out: w.linear(`${name}.ff.net.2`, width, 4 * width),
  });
  return {
    heads,
    norm: w.norm(`${at}.norm`, width),
    proj_in: w.pointwise(`${at}.proj_in`, width, width),
    blocks: Array.from({ length: depth }, (_, i) => block(`${at}.transformer_blocks.${i}`)),
    proj_out: w.pointwise(`${at}.proj_out`, width, width),
  };
}
