/** The weights of a Flux.1 transformer, under the names of Black Forest Labs' checkpoints. */
import type { FluxConfig } from '../formats/index.js';
import type { Linear } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type { Weights } from '../runtime/weights.js';

/** Width of the sinusoids that time and guidance enter with. */
export const SINUSOID_WIDTH = 256;
/** Latents along a side of an image token. */
export const FLUX_PATCH = 2;

/** in_layer, SiLU, out_layer */
export interface VectorMlp {
  readonly in_layer: Linear;
  readonly out_layer: Linear;
}

/** A fused qkv, as slices of its rows. */
export interface Projections {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  /** [headDim] */
  readonly query_norm: Tensor;
  /** [headDim] */
  readonly key_norm: Tensor;
}

/** The half of a double block that belongs to the image or to the text. */
export interface FluxStream {
  /** shift, scale, gate of the attention, then of the MLP: [6 · hidden, hidden] */
  readonly mod: Linear;
  readonly attn: Projections;
  readonly proj: Linear;
  readonly mlp_in: Linear;
  readonly mlp_out: Linear;
}

export interface FluxDoubleBlock {
  readonly img: FluxStream;
  readonly txt: FluxStream;
}

export interface FluxSingleBlock {
  /** shift, scale, gate: [3 · hidden, hidden] */
  readonly modulation: Linear;
  readonly attn: Projections;
  /** the rest of linear1: [mlp, hidden] */
  readonly mlp_in: Linear;
  /** [hidden, hidden + mlp] */
  readonly linear2: Linear;
}

export interface FluxModel {
  readonly config: FluxConfig;
  readonly headDim: number;
  /** Columns of the MLPs' middle. */
  readonly mlp: number;
  readonly img_in: Linear;
  readonly txt_in: Linear;
  readonly time_in: VectorMlp;
  readonly vector_in: VectorMlp;
  /** dev only: the distilled guidance */
  readonly guidance_in?: VectorMlp | undefined;
  readonly double_blocks: readonly FluxDoubleBlock[];
  readonly single_blocks: readonly FluxSingleBlock[];
  /** shift, scale: [2 · hidden, hidden] */
  readonly adaLN_modulation: Linear;
  readonly final_linear: Linear;
}

/** @throws KotobaError ERR_MODEL_TENSORS */
export function fluxModel(w: Weights, config: FluxConfig): FluxModel {
  const { hidden_size: h, in_channels, out_channels, context_in_dim, vec_in_dim, num_heads } = config;
  const headDim = h / num_heads;
  const mlp = Math.round(h * config.mlp_ratio);
  const vectorMlp = (at: string, inputs: number): VectorMlp => ({
    in_layer: w.linear(`${at}.in_layer`, h, inputs),
    out_layer: w.linear(`${at}.out_layer`, h, h),
  });
  const projections = (linear: string, norm: string): Projections => ({
    q: w.linearRows(linear, [0, h], h),
    k: w.linearRows(linear, [h, 2 * h], h),
    v: w.linearRows(linear, [2 * h, 3 * h], h),
    query_norm: w.tensor(`${norm}.query_norm.scale`, [headDim]),
    key_norm: w.tensor(`${norm}.key_norm.scale`, [headDim]),
  });
  const stream = (block: string, side: 'img' | 'txt'): FluxStream => ({
    mod: w.linear(`${block}.${side}_mod.lin`, 6 * h, h),
    attn: projections(`${block}.${side}_attn.qkv`, `${block}.${side}_attn.norm`),
    proj: w.linear(`${block}.${side}_attn.proj`, h, h),
    mlp_in: w.linear(`${block}.${side}_mlp.0`, mlp, h),
    mlp_out: w.linear(`${block}.${side}_mlp.2`, h, mlp),
  });
  const double = (at: string): FluxDoubleBlock => ({ img: stream(at, 'img'), txt: stream(at, 'txt') });
  const single = (at: string): FluxSingleBlock => ({
    modulation: w.linear(`${at}.modulation.lin`, 3 * h, h),
    attn: projections(`${at}.linear1`, `${at}.norm`),
    mlp_in: w.linearRows(`${at}.linear1`, [3 * h, 3 * h + mlp], h),
    linear2: w.linear(`${at}.linear2`, h, h + mlp),
  });
  return {
    config,
    headDim,
    mlp,
    img_in: w.linear('img_in', h, in_channels),
    txt_in: w.linear('txt_in', h, context_in_dim),
    time_in: vectorMlp('time_in', SINUSOID_WIDTH),
    vector_in: vectorMlp('vector_in', vec_in_dim),
    guidance_in: config.guidance_embed ? vectorMlp('guidance_in', SINUSOID_WIDTH) : undefined,
    double_blocks: Array.from({ length: config.depth }, (_, i) => double(`double_blocks.${i}`)),
    single_blocks: Array.from({ length: config.depth_single_blocks }, (_, i) => single(`single_blocks.${i}`)),
    adaLN_modulation: w.linear('final_layer.adaLN_modulation.1', 2 * h, h),
    final_linear: w.linear('final_layer.linear', out_channels, h),
  };
}
