/** A denoiser with one conditioning, evaluated again and again: op by op, or replayed from a recording. */
import type { Ops } from '../../runtime/ops.js';
import { Recording, unlessOutOfMemory } from '../../runtime/recording.js';
import type { Tensor } from '../../runtime/tensor.js';
import type { Conditioned, Conditions, Denoiser } from './denoiser.js';

/** Tells of blocks that were enqueued, by their names in the checkpoint. */
export type OnBlocks = (names: readonly string[]) => void;

export interface EvaluationOptions {
  readonly replays: boolean;
  readonly onBlocks: OnBlocks;
}

export class Evaluation implements Disposable {
  readonly #ops: Ops;
  readonly #name: string;
  readonly #conditioned: Conditioned;
  readonly #onBlocks: OnBlocks;
  #replays: boolean;
  #recorded: RecordedBlocks | undefined;

  constructor(ops: Ops, denoiser: Denoiser, given: Conditions, options: EvaluationOptions) {
    this.#ops = ops;
    this.#name = denoiser.name;
    this.#conditioned = denoiser.condition(ops, given);
    this.#onBlocks = options.onBlocks;
    this.#replays = options.replays;
  }

  /**
   * @param x    noisy latents as tokens, of the same shape every time
   * @param time in the network's unit
   * @returns the prediction, the caller's; to be used before the next evaluation is enqueued
   */
  run(x: Tensor, time: number): Tensor {
    this.#conditioned.setTime(time);
    const recorded = this.#recordedFor(x);
    if (!recorded) return this.#runBlocks(x, (name) => this.#onBlocks([name]));
    const prediction = recorded.run(this.#ops, x);
    this.#onBlocks(recorded.names);
    return prediction;
  }

  [Symbol.dispose](): void {
    this.#recorded?.[Symbol.dispose]();
    this.#conditioned[Symbol.dispose]();
  }

  #recordedFor(x: Tensor): RecordedBlocks | undefined {
    if (!this.#replays || this.#recorded) return this.#recorded;
    this.#recorded = unlessOutOfMemory(
      () => new RecordedBlocks(this.#ops, x.shape, (given, onBlock) => this.#runBlocks(given, onBlock)),
    );
    this.#replays = this.#recorded !== undefined;
    return this.#recorded;
  }

  #runBlocks(x: Tensor, onBlock: (name: string) => void): Tensor {
    const blocks = this.#conditioned.blocks(x);
    for (;;) {
      const { done, value } = blocks.next();
      if (done) {
        this.#ops.requireFinite(value, `${this.#name}: final layer`);
        return value;
      }
      for (const state of value.states) this.#ops.requireFinite(state, `${this.#name}: ${value.name}`);
      onBlock(value.name);
    }
  }
}

/** One evaluation, recorded. */
class RecordedBlocks implements Disposable {
  readonly names: string[] = [];
  readonly #x: Tensor;
  readonly #recording: Recording<Tensor>;

  constructor(
    ops: Ops,
    shape: readonly number[],
    runBlocks: (x: Tensor, onBlock: (name: string) => void) => Tensor,
  ) {
    this.#x = ops.empty(shape);
    try {
      this.#recording = Recording.of(ops.device, () => runBlocks(this.#x, (name) => this.names.push(name)));
    } catch (error) {
      this.#x.dispose();
      throw error;
    }
  }

  run(ops: Ops, x: Tensor): Tensor {
    ops.combineInto(this.#x, [[1, x]]);
    this.#recording.replay();
    const { outputs } = this.#recording;
    return outputs.reshape(...outputs.shape); // a view: the memory is written again
  }

  [Symbol.dispose](): void {
    this.#recording[Symbol.dispose]();
    this.#x.dispose();
  }
}
