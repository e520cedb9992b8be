/** What every text encoder offers, whatever its architecture, and the one loop that runs it. */
import type { ClipPart, T5Part } from '../formats/index.js';
import { cancelled } from '../runtime/device.js';
import type { Ops } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type { Weights } from '../runtime/weights.js';
import { clipFinalNorm, clipLayers, clipModel, clipPooled } from './clip.js';
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
  layers(ops: Ops, tokens: TokenBatch): Generator<Layer, void>;
  finalNorm(ops: Ops, hidden: Tensor): Tensor;
  /** [batch, width] from the final-normed last state; absent for T5. */
  pooled?(ops: Ops, normed: Tensor, tokens: TokenBatch): Tensor;
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
    layers: (ops, { ids, batch }) => clipLayers(ops, model, ids, batch),
    finalNorm: (ops, hidden) => clipFinalNorm(ops, model, hidden),
    pooled: (ops, normed, { ids, batch }) => clipPooled(ops, model, normed, ids, batch),
    ...(text_projection && { project: (ops: Ops, pooled: Tensor) => ops.linear(pooled, text_projection) }),
  };
}

export function t5Network(weights: Weights, part: T5Part): TextNetwork {
  const model = t5Model(weights, part.config);
  const { d_model: d, d_kv, d_ff, num_heads, num_layers: depth } = part.config;
  return {
    name: part.slot,
    depth,
    blocks: 'encoder.block',
    width: d,
    projection: 0,
    vocabulary: part.config.vocab_size,
    positions: Infinity,
    weightsPerToken: depth * (4 * d * num_heads * d_kv + 3 * d * d_ff),
    layers: (ops, { ids, batch, mask }) => t5Layers(ops, model, ids, batch, mask),
    finalNorm: (ops, hidden) => t5FinalNorm(ops, model, hidden),
  };
}

/** Which intermediate results to bring to the host besides the last hidden state. */
export interface Wanted {
  /** Raw hidden states by number. */
  readonly raw?: readonly number[] | undefined;
  /** Hidden states by number, final-normed. */
  readonly normed?: readonly number[] | undefined;
  /** Told when the device has finished a layer. */
  readonly onLayer?: ((layer: number) => void) | undefined;
  /** Ends the enqueuing; what is queued already is the device's to cancel. */
  readonly signal?: AbortSignal | undefined;
}

/** All F32, dense. */
export interface EncodedTokens {
  /** [batch · tokens, width], final-normed */
  readonly lastHiddenState: Float32Array;
  readonly raw: ReadonlyMap<number, Float32Array>;
  readonly normed: ReadonlyMap<number, Float32Array>;
  /** [batch, width] */
  readonly pooled?: Float32Array | undefined;
  /** [batch, projection] */
  readonly projected?: Float32Array | undefined;
}

/**
 * Runs a network on token ids. Ops are enqueued far ahead of the device, in turns of a few milliseconds, so that the
 * thread is never held.
 * @throws KotobaError ERR_CANCELLED; ERR_NON_FINITE with the encoder and layer where the first NaN or infinity arose
 */
export async function encodeTokens(
  ops: Ops,
  network: TextNetwork,
  tokens: TokenBatch,
  wanted: Wanted = {},
): Promise<EncodedTokens> {
  const raw: Read[] = [];
  const normed: Read[] = [];
  const last: Partial<Record<'lastHiddenState' | 'pooled' | 'projected', Promise<Float32Array>>> = {};
  const reached: Promise<void>[] = [];
  let turn = performance.now();
  for (const { layer, hidden } of network.layers(ops, tokens)) {
    ops.requireFinite(hidden, `${network.name}: layer ${layer} of ${network.depth}`);
    if (wanted.raw?.includes(layer)) raw.push(read(layer, hidden));
    if (wanted.normed?.includes(layer) || layer === network.depth) {
      using norm = network.finalNorm(ops, hidden);
      ops.requireFinite(norm, `${network.name}: final norm of layer ${layer}`);
      if (wanted.normed?.includes(layer)) normed.push(read(layer, norm));
      if (layer === network.depth) Object.assign(last, readHeads(ops, network, norm, tokens));
    }
    if (wanted.onLayer) reached.push(quiet(ops.device.native.reached().then(() => wanted.onLayer?.(layer))));
    if (performance.now() - turn > TURN_MS) {
      await new Promise((resume) => setImmediate(resume));
      if (wanted.signal?.aborted) throw cancelled();
      turn = performance.now();
    }
  }
  const [rawStates, normedStates, lastHiddenState, pooled, projected] = await Promise.all([
    Promise.all(raw),
    Promise.all(normed),
    last.lastHiddenState!,
    last.pooled,
    last.projected,
    ...reached,
  ]);
  return { raw: new Map(rawStates), normed: new Map(normedStates), lastHiddenState, pooled, projected };
}

/** How long the thread enqueues before others get their turn, milliseconds: a cold start is slow. */
const TURN_MS = 3;

/** A failure is reported where the results are awaited, all at once; until then it must not count as unhandled. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

type Read = Promise<readonly [layer: number, values: Float32Array]>;

function read(layer: number, hidden: Tensor): Read {
  return quiet(hidden.read().then((values) => [layer, values] as const));
}

/** @param norm the final-normed last hidden state */
function readHeads(ops: Ops, network: TextNetwork, norm: Tensor, tokens: TokenBatch) {
  const lastHiddenState = quiet(norm.read());
  if (!network.pooled) return { lastHiddenState };
  using pooled = network.pooled(ops, norm, tokens);
  const heads = { lastHiddenState, pooled: quiet(pooled.read()) };
  if (!network.project) return heads;
  using projected = network.project(ops, pooled);
  ops.requireFinite(projected, `${network.name}: projection`);
  return { ...heads, projected: quiet(projected.read()) };
}
