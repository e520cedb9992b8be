/** The one loop that runs a text network: layer by layer, with the states that a caller wants. */
import { cancelled } from '../runtime/device.js';
import type { Ops } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type { PlacedTokens, TextNetwork, TokenBatch } from './text_network.js';

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

/** What an encode gives: as values on the host, as reads under way, or as tensors. */
export interface States<State> {
  /** [batch · tokens, width], final-normed */
  readonly lastHiddenState: State;
  readonly raw: ReadonlyMap<number, State>;
  readonly normed: ReadonlyMap<number, State>;
  /** [batch, width] */
  readonly pooled?: State | undefined;
  /** [batch, projection] */
  readonly projected?: State | undefined;
}

/** All F32, dense. */
export type EncodedTokens = States<Float32Array>;

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
  using placed = network.place(ops.device, tokens);
  const running = runLayers(ops, network, placed, wanted, startRead);
  const reached: Promise<void>[] = [];
  let turn = performance.now();
  try {
    for (;;) {
      const { done, value } = running.next();
      if (done) {
        const [encoded] = await Promise.all([allRead(value), ...reached]);
        return encoded;
      }
      if (wanted.onLayer)
        reached.push(quiet(ops.device.native.reached().then(() => wanted.onLayer?.(value))));
      if (performance.now() - turn > TURN_MS) {
        await new Promise((resume) => setImmediate(resume));
        if (wanted.signal?.aborted) throw cancelled();
        turn = performance.now();
      }
    }
  } finally {
    running.return(undefined as never); // lets go of the layers' tensors where they did not all run
  }
}

/** How long the thread enqueues before others get their turn, milliseconds: a cold start is slow. */
const TURN_MS = 3;

/**
 * Enqueues a network's layers.
 * @param keep what becomes of a state that is wanted; it is borrowed, and overwritten by the next layer
 * @yields the number of each layer that is enqueued
 */
export function* runLayers<Kept>(
  ops: Ops,
  network: TextNetwork,
  tokens: PlacedTokens,
  wanted: Pick<Wanted, 'raw' | 'normed'>,
  keep: (state: Tensor) => Kept,
): Generator<number, States<Kept>> {
  const { name, depth } = network;
  const raw = new Map<number, Kept>();
  const normed = new Map<number, Kept>();
  let heads: Pick<States<Kept>, 'lastHiddenState' | 'pooled' | 'projected'>;
  for (const { layer, hidden } of tokens.layers(ops)) {
    ops.requireFinite(hidden, `${name}: layer ${layer} of ${depth}`);
    if (wanted.raw?.includes(layer)) raw.set(layer, keep(hidden));
    if (wanted.normed?.includes(layer) || layer === depth) {
      using norm = network.finalNorm(ops, hidden);
      ops.requireFinite(norm, `${name}: final norm of layer ${layer}`);
      if (wanted.normed?.includes(layer)) normed.set(layer, keep(norm));
      if (layer === depth) heads = runHeads(ops, network, tokens, norm, keep);
    }
    yield layer;
  }
  return { raw, normed, ...heads! };
}

/** @param norm the final-normed last hidden state */
function runHeads<Kept>(
  ops: Ops,
  network: TextNetwork,
  tokens: PlacedTokens,
  norm: Tensor,
  keep: (state: Tensor) => Kept,
) {
  const lastHiddenState = keep(norm);
  if (!tokens.pooled) return { lastHiddenState };
  using pooled = tokens.pooled(ops, norm);
  const heads = { lastHiddenState, pooled: keep(pooled) };
  if (!network.project) return heads;
  using projected = network.project(ops, pooled);
  ops.requireFinite(projected, `${network.name}: projection`);
  return { ...heads, projected: keep(projected) };
}

/** A failure is reported where the results are awaited, all at once; until then it must not count as unhandled. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

export const startRead = (state: Tensor): Promise<Float32Array> => quiet(state.read());

export async function allRead(states: States<Promise<Float32Array>>): Promise<EncodedTokens> {
  const settled = async (of: ReadonlyMap<number, Promise<Float32Array>>) =>
    new Map(await Promise.all([...of].map(async ([layer, read]) => [layer, await read] as const)));
  const [raw, normed, lastHiddenState, pooled, projected] = await Promise.all([
    settled(states.raw),
    settled(states.normed),
    states.lastHiddenState,
    states.pooled,
    states.projected,
  ]);
  return { raw, normed, lastHiddenState, pooled, projected };
}
