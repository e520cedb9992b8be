/** A network's layers recorded for one shape of batch, and run again for other tokens. */
import type { Ops } from '../runtime/ops.js';
import { Recording } from '../runtime/recording.js';
import type { Tensor } from '../runtime/tensor.js';
import {
  allRead,
  runLayers,
  startRead,
  type EncodedTokens,
  type States,
  type Wanted,
} from './encode_tokens.js';
import type { PlacedTokens, TextNetwork, TokenBatch } from './text_network.js';

export class RecordedEncode implements Disposable {
  readonly #tokens: PlacedTokens;
  readonly #recording: Recording<KeptStates>;

  /** @param tokens tell the shape only; nothing runs yet */
  constructor(ops: Ops, network: TextNetwork, tokens: TokenBatch, wanted: Pick<Wanted, 'raw' | 'normed'>) {
    const { device } = ops;
    this.#tokens = network.place(device, tokens);
    try {
      this.#recording = Recording.of(device, () => new KeptStates(ops, network, this.#tokens, wanted));
    } catch (error) {
      this.#tokens[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * @param tokens of the shape that was recorded
   * @throws KotobaError ERR_CANCELLED; ERR_NON_FINITE with the encoder and layer where the first NaN or infinity arose
   */
  async encode(tokens: TokenBatch): Promise<EncodedTokens> {
    this.#tokens.write(tokens);
    this.#recording.replay();
    return await allRead(this.#recording.outputs.map(startRead));
  }

  [Symbol.dispose](): void {
    this.#recording[Symbol.dispose]();
    this.#tokens[Symbol.dispose]();
  }
}

/** Copies of the states that are wanted: the layers go on in the memory of the states themselves. */
class KeptStates implements Disposable {
  readonly #states: States<Tensor>;
  readonly #tensors: Tensor[] = [];

  constructor(ops: Ops, network: TextNetwork, tokens: PlacedTokens, wanted: Pick<Wanted, 'raw' | 'normed'>) {
    const running = runLayers(ops, network, tokens, wanted, (state) => {
      const copy = ops.combine([[1, state]]);
      this.#tensors.push(copy);
      return copy;
    });
    for (;;) {
      const { done, value } = running.next();
      if (!done) continue;
      this.#states = value;
      return;
    }
  }

  map<T>(use: (state: Tensor) => T): States<T> {
    const { raw, normed, lastHiddenState, pooled, projected } = this.#states;
    const all = (states: ReadonlyMap<number, Tensor>) =>
      new Map([...states].map(([layer, state]) => [layer, use(state)] as const));
    return {
      raw: all(raw),
      normed: all(normed),
      lastHiddenState: use(lastHiddenState),
      pooled: pooled && use(pooled),
      projected: projected && use(projected),
    };
  }

  [Symbol.dispose](): void {
    for (const tensor of this.#tensors) tensor.dispose();
  }
}
