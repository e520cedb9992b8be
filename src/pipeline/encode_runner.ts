/** Runs a text network op by op, or from a recording where batches of the same shape keep coming. */
import { encodeTokens, type EncodedTokens, type Wanted } from '../encoders/encode_tokens.js';
import { RecordedEncode } from '../encoders/recorded_encode.js';
import type { TextNetwork, TokenBatch } from '../encoders/text_network.js';
import type { Ops } from '../runtime/ops.js';
import { unlessOutOfMemory } from '../runtime/recording.js';

/** Whether to record steps that repeat and to replay them: `auto` on GPUs, where it pays. */
export type Replay = 'auto' | 'always' | 'never';

/** Recordings kept: each holds the memory of its activations. */
const MOST_RECORDINGS = 4;

export class EncodeRunner implements Disposable {
  readonly #ops: Ops;
  readonly #network: TextNetwork;
  #replays: boolean;
  /** By shape, the latest used last; undefined where a shape was seen once. */
  readonly #recordings = new Map<string, RecordedEncode | undefined>();

  constructor(ops: Ops, network: TextNetwork, replay: Replay) {
    this.#ops = ops;
    this.#network = network;
    this.#replays = replaysOn(ops, replay);
  }

  /** @throws as encodeTokens() */
  async encode(tokens: TokenBatch, wanted: Wanted): Promise<EncodedTokens> {
    const recording = this.#replays ? this.#recordingFor(tokens, wanted) : undefined;
    if (!recording) return await encodeTokens(this.#ops, this.#network, tokens, wanted);
    const encoded = await recording.encode(tokens);
    wanted.onLayer?.(this.#network.depth);
    return encoded;
  }

  [Symbol.dispose](): void {
    for (const recording of this.#recordings.values()) recording?.[Symbol.dispose]();
    this.#recordings.clear();
  }

  /** The first batch of a shape is not recorded: it may stay the only one. */
  #recordingFor(tokens: TokenBatch, wanted: Wanted): RecordedEncode | undefined {
    const { raw, normed } = wanted;
    const shape = JSON.stringify([tokens.batch, tokens.ids.length, !!tokens.mask, raw, normed]);
    const isKnown = this.#recordings.has(shape);
    const recording = this.#recordings.get(shape) ?? (isKnown ? this.#record(tokens, wanted) : undefined);
    this.#recordings.delete(shape);
    this.#recordings.set(shape, recording);
    this.#dropOldest();
    return recording;
  }

  #record(tokens: TokenBatch, wanted: Wanted): RecordedEncode | undefined {
    const recorded = unlessOutOfMemory(() => new RecordedEncode(this.#ops, this.#network, tokens, wanted));
    if (recorded) return recorded;
    this.#replays = false;
    this[Symbol.dispose](); // op by op needs the memory
    return undefined;
  }

  #dropOldest(): void {
    for (const [shape, recording] of this.#recordings) {
      if (this.#recordings.size <= MOST_RECORDINGS) break;
      recording?.[Symbol.dispose]();
      this.#recordings.delete(shape);
    }
  }
}

export const replaysOn = ({ device }: Ops, replay: Replay): boolean =>
  replay === 'always' || (replay === 'auto' && device.isGpu);
