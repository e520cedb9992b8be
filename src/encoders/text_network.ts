/** What every text encoder offers, whatever its architecture. */
import type { ClipPart, T5Part } from '../formats/index.js';
import type { Device } from '../runtime/device.js';
import type { Ops } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type { Weights } from '../runtime/weights.js';
import { clipFinalNorm, clipLayers, clipModel, clipPooled, clipTokens } from './clip.js';
import type { Layer } from './layer.js';
import { t5FinalNorm, t5Layers, t5Model } from './t5.js';

/** Token ids of equally long sequences. */
export interface TokenBatch {
  /** [batch · tokens] */
  readonly ids: Int32Array;
  readonly batch: number;
  /** [batch · tokens], 0 = padding that must not be attended (T5 only); absent: everything is attended */
  readonly mask?: Int32Array | undefined;
}

/** Tokens on the device, as the layers read them. */
export interface PlacedTokens extends Disposable {
  /** Other tokens in their place: as many sequences, as long, with a mask or without as before. */
  write(tokens: TokenBatch): void;
  layers(ops: Ops): Generator<Layer, void>;
  /** [batch, width] from the final-normed last state; absent for T5. */
  pooled?(ops: Ops, normed: Tensor): Tensor;
}

export interface TextNetwork {
  /** For messages: "CLIP-L". */
  readonly name: string;
  /** Layers; hidden states are numbered 0 (embedding) to depth. */
  readonly depth: number;
  /** What the names of layer i's weights begin with, before ".i.". */
  readonly blocks: string;
  /** Columns of a hidden state. */
  readonly width: number;
  /** Columns of the projection; 0 without one. */
  readonly projection: number;
  readonly vocabulary: number;
  /** Longest sequence, or Infinity. */
  readonly positions: number;
  /** Multiply-adds of all matmuls for one token: 2 · this · tokens floating-point operations. */
  readonly weightsPerToken: number;
  place(device: Device, tokens: TokenBatch): PlacedTokens;
  finalNorm(ops: Ops, hidden: Tensor): Tensor;
  /** [batch, projection]; absent without a projection. */
  project?(ops: Ops, pooled: Tensor): Tensor;
}

export function clipNetwork(weights: Weights, part: ClipPart): TextNetwork {
  const model = clipModel(weights, part.config);
  const { text_projection } = model;
  const { hidden_size: d, intermediate_size: ff, num_hidden_layers: depth } = part.config;
  return {
    name: part.slot,
    depth,
    blocks: 'text_model.encoder.layers',
    width: d,
    projection: part.config.projection_dim ?? 0,
    vocabulary: part.config.vocab_size,
    positions: part.config.max_position_embeddings,
    weightsPerToken: depth * (4 * d * d + 2 * d * ff),
    place: (device, { ids, batch }) => {
      const inputs = new TokenInputs(device, clipTokens(model, ids, batch));
      const tokens = { batch, ...inputs.tensors };
      return {
        write: (other) => inputs.write(clipTokens(model, other.ids, batch)),
        layers: (ops) => clipLayers(ops, model, tokens),
        pooled: (ops, normed) => clipPooled(ops, normed, tokens),
        [Symbol.dispose]: () => inputs[Symbol.dispose](),
      };
    },
    finalNorm: (ops, hidden) => clipFinalNorm(ops, model, hidden),
    ...(text_projection && { project: (ops: Ops, pooled: Tensor) => ops.linear(pooled, text_projection) }),
  };
}

export function t5Network(weights: Weights, part: T5Part): TextNetwork {
  const model = t5Model(weights, part.config);
  const { d_model: d, d_kv, d_ff, num_heads, num_layers: depth } = part.config;
  const values = ({ ids, mask }: TokenBatch) => ({ ids, ...(mask && { mask }) });
  return {
    name: part.slot,
    depth,
    blocks: 'encoder.block',
    width: d,
    projection: 0,
    vocabulary: part.config.vocab_size,
    positions: Infinity,
    weightsPerToken: depth * (4 * d * num_heads * d_kv + 3 * d * d_ff),
    place: (device, tokens) => {
      const inputs = new TokenInputs(device, values(tokens));
      return {
        write: (other) => inputs.write(values(other)),
        layers: (ops) => t5Layers(ops, model, { batch: tokens.batch, ...inputs.tensors }),
        [Symbol.dispose]: () => inputs[Symbol.dispose](),
      };
    },
    finalNorm: (ops, hidden) => t5FinalNorm(ops, model, hidden),
  };
}

/** Integers by name, as tensors of one dimension. */
class TokenInputs<Values extends Readonly<Record<string, Int32Array>>> implements Disposable {
  readonly tensors: { readonly [Name in keyof Values]: Tensor };

  constructor(device: Device, values: Values) {
    const placed = Object.entries(values).map(([name, data]) => [name, device.from(data, [data.length])]);
    this.tensors = Object.fromEntries(placed) as typeof this.tensors;
  }

  write(values: Values): void {
    for (const [name, tensor] of Object.entries(this.tensors)) tensor.write(values[name]!);
  }

  [Symbol.dispose](): void {
    for (const tensor of Object.values(this.tensors)) tensor.dispose();
  }
}
