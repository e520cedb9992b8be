/** The transformer with one conditioning, evaluated again and again: op by op, or replayed from a recording. */
import { fluxBlocks, fluxSinusoids, type FluxInput } from '../diffusion/flux.js';
import type { FluxModel } from '../diffusion/flux_model.js';
import type { Ops } from '../runtime/ops.js';
import { Recording, unlessOutOfMemory } from '../runtime/recording.js';
import type { Tensor } from '../runtime/tensor.js';

/** Tells of blocks that were enqueued, by their names in the checkpoint. */
export type OnBlocks = (names: readonly string[]) => void;

/** What stays the same over the steps, on the host. */
export interface FluxConditions {
  readonly batch: number;
  /** [batch · textTokens, context_in_dim] */
  readonly txt: Float32Array;
  /** [batch, vec_in_dim] */
  readonly y: Float32Array;
  /** [textTokens + imageTokens, headDim]: rotation() of text and image ids */
  readonly rotation: Float32Array;
  /** of dev; undefined for schnell */
  readonly guidance: number | undefined;
}

export interface FluxEvaluationOptions {
  readonly replays: boolean;
  readonly onBlocks: OnBlocks;
}

export class FluxEvaluation implements Disposable {
  readonly #ops: Ops;
  readonly #model: FluxModel;
  readonly #inputs: Omit<FluxInput, 'img'>;
  readonly #onBlocks: OnBlocks;
  readonly #owned: Tensor[] = [];
  #replays: boolean;
  #recorded: RecordedBlocks | undefined;

  constructor(ops: Ops, model: FluxModel, given: FluxConditions, options: FluxEvaluationOptions) {
    this.#ops = ops;
    this.#model = model;
    this.#onBlocks = options.onBlocks;
    this.#replays = options.replays;
    const { context_in_dim, vec_in_dim } = model.config;
    const { batch, guidance } = given;
    const own = (data: Float32Array, columns: number): Tensor => {
      const tensor = ops.device.from(data, [data.length / columns, columns]);
      this.#owned.push(tensor);
      return tensor;
    };
    const sinusoids = (value: number): Tensor => {
      const data = fluxSinusoids(new Array<number>(batch).fill(value));
      return own(data, data.length / batch);
    };
    this.#inputs = {
      batch,
      txt: own(given.txt, context_in_dim),
      y: own(given.y, vec_in_dim),
      rotation: own(given.rotation, model.headDim),
      time: sinusoids(0),
      guidance: guidance === undefined ? undefined : sinusoids(guidance),
    };
  }

  /**
   * @param img  [batch · imageTokens, in_channels], of the same shape every time
   * @param time 1 = noise … 0 = picture
   * @returns the velocity, the caller's; to be used before the next evaluation is enqueued
   */
  run(img: Tensor, time: number): Tensor {
    const { batch, time: sinusoids } = this.#inputs;
    sinusoids.write(fluxSinusoids(new Array<number>(batch).fill(time)));
    const recorded = this.#recordedFor(img);
    if (!recorded) {
      const input = { ...this.#inputs, img };
      return runBlocks(this.#ops, this.#model, input, (name) => this.#onBlocks([name]));
    }
    const velocity = recorded.run(this.#ops, img);
    this.#onBlocks(recorded.names);
    return velocity;
  }

  [Symbol.dispose](): void {
    this.#recorded?.[Symbol.dispose]();
    for (const tensor of this.#owned) tensor.dispose();
  }

  #recordedFor(img: Tensor): RecordedBlocks | undefined {
    if (!this.#replays || this.#recorded) return this.#recorded;
    this.#recorded = unlessOutOfMemory(
      () => new RecordedBlocks(this.#ops, this.#model, this.#inputs, img.shape),
    );
    this.#replays = this.#recorded !== undefined;
    return this.#recorded;
  }
}

/** One evaluation, recorded. */
class RecordedBlocks implements Disposable {
  readonly names: string[] = [];
  readonly #img: Tensor;
  readonly #recording: Recording<Tensor>;

  constructor(ops: Ops, model: FluxModel, inputs: Omit<FluxInput, 'img'>, shape: readonly number[]) {
    this.#img = ops.empty(shape);
    const input = { ...inputs, img: this.#img };
    try {
      this.#recording = Recording.of(ops.device, () =>
        runBlocks(ops, model, input, (name) => this.names.push(name)),
      );
    } catch (error) {
      this.#img.dispose();
      throw error;
    }
  }

  run(ops: Ops, img: Tensor): Tensor {
    ops.combineInto(this.#img, [[1, img]]);
    this.#recording.replay();
    const { outputs } = this.#recording;
    return outputs.reshape(...outputs.shape); // a view: the memory is written again
  }

  [Symbol.dispose](): void {
    this.#recording[Symbol.dispose]();
    this.#img.dispose();
  }
}

function runBlocks(ops: Ops, model: FluxModel, input: FluxInput, onBlock: (name: string) => void): Tensor {
  const blocks = fluxBlocks(ops, model, input);
  for (;;) {
    const { done, value } = blocks.next();
    if (done) {
      ops.requireFinite(value, 'Flux: final layer');
      return value;
    }
    for (const x of [value.img, value.txt, value.joint]) if (x) ops.requireFinite(x, `Flux: ${value.name}`);
    onBlock(value.name);
  }
}
