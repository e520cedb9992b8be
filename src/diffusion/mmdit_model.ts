/** The weights of SD3's transformers, under Stability AI's names. */
import type { MmditConfig } from '../formats/index.js';
import type { Linear } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type { Weights } from '../runtime/weights.js';

/** Width of the sinusoids that time enters with. */
export const TIME_WIDTH = 256;

/** A fused qkv, as slices of its rows. */
export interface JointProjections {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  /** [headDim]; SD3.5 only */
  readonly ln_q?: Tensor | undefined;
  readonly ln_k?: Tensor | undefined;
}

/** What follows a stream's attention. */
export interface JointTail {
  readonly proj: Linear;
  readonly fc1: Linear;
  readonly fc2: Linear;
}

/** The half of a block that belongs to the image or to the text. */
export interface JointStream {
  /** shift, scale, gate of the attention, of the MLP, then of the second attention: [2, 6 or 9 · hidden, hidden] */
  readonly modulation: Linear;
  readonly pieces: number;
  readonly attn: JointProjections;
  /** absent from the last block's text, which feeds keys and values only */
  readonly tail?: JointTail | undefined;
}

export interface JointBlock {
  readonly context: JointStream;
  readonly x: JointStream & { readonly tail: JointTail };
  /** of the image to itself alone (SD3.5 Medium) */
  readonly attn2?: (JointProjections & { readonly proj: Linear }) | undefined;
}

export interface Mmdit {
  readonly config: MmditConfig;
  readonly headDim: number;
  /** over patches in the order channel, row, column */
  readonly x_embedder: Linear;
  /** [1, side², hidden] */
  readonly pos_embed: Tensor;
  readonly context_embedder: Linear;
  readonly t_embedder: readonly [Linear, Linear];
  readonly y_embedder: readonly [Linear, Linear];
  readonly blocks: readonly JointBlock[];
  /** shift, scale: [2 · hidden, hidden] */
  readonly final_modulation: Linear;
  readonly final_linear: Linear;
}

/** @throws KotobaError ERR_MODEL_TENSORS */
export function mmditModel(w: Weights, config: MmditConfig): Mmdit {
  const { hidden_size: h, patch_size: patch, in_channels, depth, pos_embed_max_size: side } = config;
  const mlp = Math.round(h * config.mlp_ratio);
  const headDim = h / config.num_heads;
  const projections = (at: string): JointProjections => ({
    q: w.linearRows(`${at}.qkv`, [0, h], h),
    k: w.linearRows(`${at}.qkv`, [h, 2 * h], h),
    v: w.linearRows(`${at}.qkv`, [2 * h, 3 * h], h),
    ...(config.qk_norm && {
      ln_q: w.tensor(`${at}.ln_q.weight`, [headDim]),
      ln_k: w.tensor(`${at}.ln_k.weight`, [headDim]),
    }),
  });
  const stream = (at: string, pieces: number): JointStream => ({
    modulation: w.linear(`${at}.adaLN_modulation.1`, pieces * h, h),
    pieces,
    attn: projections(`${at}.attn`),
  });
  const tail = (at: string): JointTail => ({
    proj: w.linear(`${at}.attn.proj`, h, h),
    fc1: w.linear(`${at}.mlp.fc1`, mlp, h),
    fc2: w.linear(`${at}.mlp.fc2`, h, mlp),
  });
  const block = (i: number): JointBlock => {
    const at = `joint_blocks.${i}`;
    const isDual = config.x_block_self_attn_layers.includes(i);
    const isLast = i === depth - 1;
    const context = stream(`${at}.context_block`, isLast ? 2 : 6);
    return {
      context: isLast ? context : { ...context, tail: tail(`${at}.context_block`) },
      x: { ...stream(`${at}.x_block`, isDual ? 9 : 6), tail: tail(`${at}.x_block`) },
      attn2: isDual
        ? { ...projections(`${at}.x_block.attn2`), proj: w.linear(`${at}.x_block.attn2.proj`, h, h) }
        : undefined,
    };
  };
  return {
    config,
    headDim,
    x_embedder: w.patchEmbedding('x_embedder.proj', h, in_channels, patch),
    pos_embed: w.tensor('pos_embed', [1, side ** 2, h]),
    context_embedder: w.linear('context_embedder', h, config.context_dim),
    t_embedder: [w.linear('t_embedder.mlp.0', h, TIME_WIDTH), w.linear('t_embedder.mlp.2', h, h)],
    y_embedder: [w.linear('y_embedder.mlp.0', h, config.adm_in_channels), w.linear('y_embedder.mlp.2', h, h)],
    blocks: Array.from({ length: depth }, (_, i) => block(i)),
    final_modulation: w.linear('final_layer.adaLN_modulation.1', 2 * h, h),
    final_linear: w.linear('final_layer.linear', in_channels * patch ** 2, h),
  };
}
