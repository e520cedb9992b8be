/** What sampling needs of a network that predicts noise or velocities, whatever the network is. */
import type { Ops } from '../../runtime/ops.js';
import type { Tensor } from '../../runtime/tensor.js';

/** What stays the same over the steps, on the host. */
export interface Conditions {
  /** pictures that share an evaluation, all with the same conditions */
  readonly batch: number;
  /** of the latents */
  readonly height: number;
  readonly width: number;
  /** [tokens, width]: the text */
  readonly hidden: Float32Array;
  /** [width]: what modulates; absent where the network takes none */
  readonly pooled?: Float32Array | undefined;
  /** distilled guidance, where the network takes it */
  readonly guidance?: number | undefined;
  /** blocks left out */
  readonly skipLayers?: readonly number[] | undefined;
  /** [channels, height, width]: what a network for inpainting sees beside the latents */
  readonly beside?: Float32Array | undefined;
}

/** What a block has left. Borrowed. */
export interface DenoiserBlock {
  /** as in the checkpoint: its weights' names begin so */
  readonly name: string;
  readonly states: readonly Tensor[];
}

/** Runs a network's own blocks as sampling sees them. @returns what they return */
export function* asBlocks<Block extends { readonly name: string }>(
  blocks: Generator<Block, Tensor>,
  statesOf: (block: Block) => readonly Tensor[],
): Generator<DenoiserBlock, Tensor> {
  for (;;) {
    const { done, value } = blocks.next();
    if (done) return value;
    yield { name: value.name, states: statesOf(value) };
  }
}

/** A network with conditions, ready to be evaluated again and again. */
export interface Conditioned extends Disposable {
  /** Enqueues the time of the evaluations that follow, in the network's own unit. */
  setTime(time: number): void;
  /**
   * Runs one evaluation, block by block.
   * @param x [batch · tokens, channels · patch²]: noisy latents, as patchify() gives them
   * @returns the prediction, of the same shape; the caller's
   */
  blocks(x: Tensor): Generator<DenoiserBlock, Tensor>;
}

/** A loaded network. */
export interface Denoiser {
  /** for messages: "Flux" */
  readonly name: string;
  /** of the latents */
  readonly channels: number;
  /** Latents along the side of a token; 1: every latent pixel is a row. */
  readonly patch: number;
  /** Blocks of an evaluation. */
  readonly depth: number;
  condition(ops: Ops, conditions: Conditions): Conditioned;
}

/** Tensors that live as long as something of which they are a part. */
export class OwnedTensors implements Disposable {
  readonly #ops: Ops;
  readonly #tensors: Tensor[] = [];

  constructor(ops: Ops) {
    this.#ops = ops;
  }

  /** Uploads `data` as a matrix of `columns`, `times` times below each other. */
  matrix(data: Float32Array, columns: number, times = 1): Tensor {
    const values = repeated(data, times);
    return this.keep(this.#ops.device.from(values, [values.length / columns, columns]));
  }

  keep(tensor: Tensor): Tensor {
    this.#tensors.push(tensor);
    return tensor;
  }

  [Symbol.dispose](): void {
    for (const tensor of this.#tensors) tensor.dispose();
  }
}

export function repeated(values: Float32Array, times: number): Float32Array {
  if (times === 1) return values;
  const out = new Float32Array(values.length * times);
  for (let i = 0; i < times; i++) out.set(values, i * values.length);
  return out;
}
