/**
 * The encoder of T5 v1.1 and Flan-T5 (arXiv:1910.10683 §2.1): pre-norm RMS, no biases, gated tanh-GELU
 * (arXiv:2002.05202), relative positions from one bucket table in block 0 shared by all blocks.
 * The residual stream is FP32 whatever the weights are: T5-XXL's passes 65504, FP16's largest number.
 */
import { KotobaError } from '../errors.js';
import type { T5Config } from '../formats/index.js';
import type { Activation, Linear, Ops, RelativeBias } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type { Weights } from '../runtime/weights.js';
import { activationNamed } from './activation.js';
import type { Layer } from './layer.js';

interface T5Block {
  attentionNorm: Tensor;
  q: Linear;
  k: Linear;
  v: Linear;
  o: Linear;
  feedForwardNorm: Tensor;
  wi_0: Linear;
  wi_1: Linear;
  wo: Linear;
}

export interface T5Model {
  readonly config: T5Config;
  readonly activation: Activation;
  /** [vocabulary, d_model] */
  readonly shared: Tensor;
  readonly bias: RelativeBias;
  readonly blocks: readonly T5Block[];
  readonly final_layer_norm: Tensor;
}

/** @throws KotobaError ERR_MODEL_CONFIG for T5 v1.0, whose feed-forward is not gated */
export function t5Model(w: Weights, config: T5Config): T5Model {
  if (!config.is_gated_act)
    throw new KotobaError(
      'ERR_MODEL_CONFIG',
      'T5: expected a gated feed-forward (wi_0 and wi_1: T5 v1.1, Flan-T5), got the plain one of T5 v1.0, ' +
        'which no image model uses',
    );
  const { d_model, d_ff } = config;
  const inner = config.num_heads * config.d_kv;
  const block = (at: string): T5Block => ({
    attentionNorm: w.tensor(`${at}.layer.0.layer_norm.weight`, [d_model]),
    q: w.linear(`${at}.layer.0.SelfAttention.q`, inner, d_model),
    k: w.linear(`${at}.layer.0.SelfAttention.k`, inner, d_model),
    v: w.linear(`${at}.layer.0.SelfAttention.v`, inner, d_model),
    o: w.linear(`${at}.layer.0.SelfAttention.o`, d_model, inner),
    feedForwardNorm: w.tensor(`${at}.layer.1.layer_norm.weight`, [d_model]),
    wi_0: w.linear(`${at}.layer.1.DenseReluDense.wi_0`, d_ff, d_model),
    wi_1: w.linear(`${at}.layer.1.DenseReluDense.wi_1`, d_ff, d_model),
    wo: w.linear(`${at}.layer.1.DenseReluDense.wo`, d_model, d_ff),
  });
  const table = w.tensor('encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight', [
    config.relative_attention_num_buckets,
    config.num_heads,
  ]);
  return {
    config,
    activation: activationNamed(config.dense_act_fn),
    shared: w.tensor('shared.weight', [config.vocab_size, d_model]),
    bias: { table, bidirectional: true, maxDistance: config.relative_attention_max_distance },
    blocks: Array.from({ length: config.num_layers }, (_, i) => block(`encoder.block.${i}`)),
    final_layer_norm: w.tensor('encoder.final_layer_norm.weight', [d_model]),
  };
}

/** A batch of tokens as the encoder reads it. */
export interface T5Tokens {
  readonly batch: number;
  /** [batch · tokens] */
  readonly ids: Tensor;
  /** [batch · tokens], 0 = padding that is not attended; absent: everything is (Flux, SD3, ComfyUI) */
  readonly mask?: Tensor | undefined;
}

/**
 * Runs the encoder and yields the hidden state [batch · tokens, d_model] of every layer: 0 is the embedding, i the
 * output of block i, none of them normed. Updated in place, as clipLayers' is.
 */
export function* t5Layers(ops: Ops, model: T5Model, tokens: T5Tokens): Generator<Layer, void> {
  using x = ops.embedding(model.shared, tokens.ids);
  yield { layer: 0, hidden: x };
  for (const [i, block] of model.blocks.entries()) {
    t5Block(ops, block, x, model, tokens);
    yield { layer: i + 1, hidden: x };
  }
}

/**
 * One block, in place. T5 folds 1/sqrt(headDim) into its initialisation, hence `scale: 1`.
 * @param x [batch · tokens, d_model], updated
 */
function t5Block(ops: Ops, w: T5Block, x: Tensor, model: T5Model, { batch, mask }: T5Tokens): void {
  const { config } = model;
  const { inner } = ops;
  {
    using h = inner.rmsNorm(x, w.attentionNorm, config.layer_norm_epsilon);
    using q = inner.linear(h, w.q);
    using k = inner.linear(h, w.k);
    using v = inner.linear(h, w.v);
    const options = { batch, heads: config.num_heads, scale: 1, bias: model.bias, keyMask: mask };
    using mixed = ops.attention(q, k, v, options);
    ops.linearAdd(x, mixed, w.o);
  }
  using h = inner.rmsNorm(x, w.feedForwardNorm, config.layer_norm_epsilon);
  using up = inner.linear(h, w.wi_1);
  using gated = inner.linear(h, w.wi_0, { activation: model.activation, multiply: up });
  ops.linearAdd(x, gated, w.wo);
}

/** @param x a hidden state [batch · tokens, d_model]; @returns the same, final-normed */
export function t5FinalNorm(ops: Ops, model: T5Model, x: Tensor): Tensor {
  return ops.rmsNorm(x, model.final_layer_norm, model.config.layer_norm_epsilon);
}
