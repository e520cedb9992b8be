/**
 * CLIP's text tower (arXiv:2103.00020 §2.4): causal pre-norm transformer, pooled at the first end-of-text token.
 * CLIP-B, CLIP-L, CLIP-GmP and Long-CLIP differ in sizes only, CLIP-G (open_clip) in its activation too.
 * Field names are Hugging Face's CLIPTextModel.
 */
import type { ClipConfig } from '../formats/index.js';
import type { Activation, Linear, Norm, Ops } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type { Weights } from '../runtime/weights.js';
import { activationNamed } from './activation.js';
import type { Layer } from './layer.js';

interface ClipBlock {
  layer_norm1: Norm;
  q_proj: Linear;
  k_proj: Linear;
  v_proj: Linear;
  out_proj: Linear;
  layer_norm2: Norm;
  fc1: Linear;
  fc2: Linear;
}

export interface ClipModel {
  readonly config: ClipConfig;
  readonly activation: Activation;
  /** [vocabulary, hidden] */
  readonly token_embedding: Tensor;
  /** [positions, hidden] */
  readonly position_embedding: Tensor;
  readonly layers: readonly ClipBlock[];
  readonly final_layer_norm: Norm;
  readonly text_projection?: Linear | undefined;
}

export function clipModel(w: Weights, config: ClipConfig): ClipModel {
  const { hidden_size: d, intermediate_size: ff } = config;
  const block = (at: string): ClipBlock => ({
    layer_norm1: w.norm(`${at}.layer_norm1`, d),
    q_proj: w.linear(`${at}.self_attn.q_proj`, d, d),
    k_proj: w.linear(`${at}.self_attn.k_proj`, d, d),
    v_proj: w.linear(`${at}.self_attn.v_proj`, d, d),
    out_proj: w.linear(`${at}.self_attn.out_proj`, d, d),
    layer_norm2: w.norm(`${at}.layer_norm2`, d),
    fc1: w.linear(`${at}.mlp.fc1`, ff, d),
    fc2: w.linear(`${at}.mlp.fc2`, d, ff),
  });
  const layers = Array.from({ length: config.num_hidden_layers }, (_, i) =>
    block(`text_model.encoder.layers.${i}`),
  );
  return {
    config,
    activation: activationNamed(config.hidden_act),
    token_embedding: w.tensor('text_model.embeddings.token_embedding.weight', [config.vocab_size, d]),
    position_embedding: w.tensor('text_model.embeddings.position_embedding.weight', [
      config.max_position_embeddings,
      d,
    ]),
    layers,
    final_layer_norm: w.norm('text_model.final_layer_norm', d),
    text_projection: config.projection_dim
      ? w.linear('text_projection', config.projection_dim, d)
      : undefined,
  };
}

/** A batch of tokens as the tower reads it. */
export interface ClipTokens {
  readonly batch: number;
  /** [batch · tokens] */
  readonly ids: Tensor;
  /** Of each token in its sequence: [batch · tokens] */
  readonly positions: Tensor;
  /** Rows of each sequence's first end-of-text token: [batch] */
  readonly ends: Tensor;
}

/** What the tensors of ClipTokens hold. @param ids [batch · tokens] */
export function clipTokens(model: ClipModel, ids: Int32Array, batch: number) {
  const tokens = ids.length / batch;
  return {
    ids,
    positions: Int32Array.from(ids, (_, i) => i % tokens),
    ends: Int32Array.from({ length: batch }, (_, b) => {
      const sequence = ids.subarray(b * tokens, (b + 1) * tokens);
      return b * tokens + endOfText(sequence, model.config.eos_token_id);
    }),
  };
}

/**
 * Runs the tower and yields the hidden state [batch · tokens, hidden] of every layer: 0 is the embedding, i the output
 * of layer i, none of them normed. The tensor is the generator's and is updated in place: enqueue a read of it, or use
 * it, before asking for the next one.
 * @param tokens at most max_position_embeddings in a sequence
 */
export function* clipLayers(ops: Ops, model: ClipModel, tokens: ClipTokens): Generator<Layer, void> {
  using x = ops.embedding(model.token_embedding, tokens.ids);
  ops.embeddingAdd(x, model.position_embedding, tokens.positions);
  yield { layer: 0, hidden: x };
  for (const [i, block] of model.layers.entries()) {
    clipBlock(ops, block, x, model, tokens.batch);
    yield { layer: i + 1, hidden: x };
  }
}

/** @param x [batch · tokens, hidden], updated */
function clipBlock(ops: Ops, w: ClipBlock, x: Tensor, model: ClipModel, batch: number): void {
  const { config } = model;
  const { inner } = ops;
  const heads = config.num_attention_heads;
  {
    using h = inner.layerNorm(x, w.layer_norm1, config.layer_norm_eps);
    using q = inner.linear(h, w.q_proj);
    using k = inner.linear(h, w.k_proj);
    using v = inner.linear(h, w.v_proj);
    const scale = 1 / Math.sqrt(config.hidden_size / heads);
    using mixed = ops.attention(q, k, v, { batch, heads, scale, causal: true });
    ops.linearAdd(x, mixed, w.out_proj);
  }
  using h = inner.layerNorm(x, w.layer_norm2, config.layer_norm_eps);
  using wide = inner.linear(h, w.fc1, { activation: model.activation });
  ops.linearAdd(x, wide, w.fc2);
}

/** @param x a hidden state [batch · tokens, hidden]; @returns the same, final-normed */
export function clipFinalNorm(ops: Ops, model: ClipModel, x: Tensor): Tensor {
  return ops.layerNorm(x, model.final_layer_norm, model.config.layer_norm_eps);
}

/**
 * @param normed the final-normed last hidden state [batch · tokens, hidden]
 * @returns [batch, hidden] at each sequence's first end-of-text token
 */
export const clipPooled = (ops: Ops, normed: Tensor, tokens: ClipTokens): Tensor =>
  ops.embedding(normed, tokens.ends);

/** Where OpenAI's argmax over the ids points: the first end-of-text; without one, the first of the highest id. */
function endOfText(ids: Int32Array, eos: number): number {
  const at = ids.indexOf(eos);
  return at >= 0 ? at : ids.indexOf(ids.reduce((a, b) => Math.max(a, b), -1));
}
