/** Runs a solver over a Flux transformer: noise and conditioning in, latents out. */
import { FLUX_PATCH, type FluxModel } from '../diffusion/flux_model.js';
import { imageIds, rotation, textIds } from '../diffusion/rotary.js';
import { cancelled } from '../runtime/device.js';
import type { Ops } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import {
  BrownianNoise,
  cfg,
  denoiserOf,
  philoxNoise,
  sample,
  startLatent,
  torchNoise,
  type Algebra,
  type Denoiser,
  type NoiseGenerator,
} from '../sampling/index.js';
import { FluxEvaluation, type FluxConditions } from './flux_evaluation.js';
import type { Conditioning } from './image_types.js';
import type { Request } from './request.js';
import type { Planes } from './tiles.js';

export interface FluxTask {
  readonly model: FluxModel;
  readonly request: Request;
  /** of the pictures that share passes over the weights */
  readonly seeds: readonly bigint[];
  readonly conditioning: Conditioning;
  /** for classifier-free guidance */
  readonly negative?: Conditioning | undefined;
  /** [z, height, width]: latents of the picture to start from */
  readonly start?: Planes | undefined;
  /** Pixels along a side of a latent. */
  readonly factor: number;
  /** Whether to record the transformer's evaluation once and replay it for every step. Default: no. */
  readonly replays?: boolean | undefined;
  /** Told the name of a block whenever the device has run it: its weights are not needed for a while. */
  readonly afterBlock?: ((name: string) => void) | undefined;
  readonly onBlock?: ((done: number, total: number, step: number) => void) | undefined;
  /** After a step: what the latents of the first picture are becoming. */
  readonly onStep?: ((step: number, denoised: () => Promise<Planes>) => Promise<void>) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The shape of the latents, and how tokens are cut from them. */
interface Layout {
  readonly batch: number;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly patch: number;
}

/**
 * Must be called inside a job of the device.
 * @returns the latents of each picture
 * @throws KotobaError ERR_CANCELLED; ERR_NON_FINITE with the block where the first NaN or infinity arose
 */
export async function sampleFlux(ops: Ops, task: FluxTask): Promise<Planes[]> {
  const { request, model, seeds } = task;
  const layout: Layout = {
    batch: seeds.length,
    channels: model.config.in_channels / FLUX_PATCH ** 2,
    height: request.height / task.factor,
    width: request.width / task.factor,
    patch: FLUX_PATCH,
  };
  const algebra: Algebra<Tensor> = { combine: (terms) => ops.combine(terms) };
  const draw = noiseSource(ops, layout, request, seeds);
  using first = draw();
  using path = new BrownianNoise(algebra, draw);
  using latent = task.start && tokensOf(ops, layout, repeated(task.start.data, layout.batch));
  using start = startLatent(algebra, {
    noise: first,
    prediction: 'flow',
    sigma: request.sigmas[0]!,
    ...(latent && { latent }),
  });
  using guided = new Guided(ops, task, algebra, layout);
  const sampling = sample({
    solver: request.sampler,
    algebra,
    denoise: guided.denoise,
    x: start,
    sigmas: request.sigmas,
    model: request.levels,
    noise: path.next.bind(path),
  });
  try {
    for (;;) {
      const { done, value } = sampling.next();
      if (done) {
        using x = value;
        ops.requireFinite(x, 'Flux: the latents');
        return await planesOf(ops, layout, x);
      }
      ops.requireFinite(value.x, `Flux: the latents after step ${value.step + 1}`);
      await ops.device.native.flush();
      if (task.signal?.aborted) throw cancelled();
      await task.onStep?.(value.step, async () => (await planesOf(ops, layout, value.denoised))[0]!);
    }
  } finally {
    sampling.return(undefined as never);
  }
}

/** @param layout of the latents */
function conditions({ model, request }: FluxTask, text: Conditioning, layout: Layout): FluxConditions {
  const { axes_dim, theta } = model.config;
  const image = imageIds(layout.height / FLUX_PATCH, layout.width / FLUX_PATCH);
  return {
    batch: layout.batch,
    txt: repeated(text.hidden, layout.batch),
    y: repeated(text.pooled, layout.batch),
    rotation: rotation([...textIds(text.tokens), ...image], axes_dim, theta),
    guidance: request.guidance,
  };
}

/** The transformer with the prompt, and with the negative prompt where there is guidance against one. */
class Guided implements Disposable {
  readonly denoise: Denoiser<Tensor>;
  readonly #evaluations: FluxEvaluation[] = [];

  constructor(ops: Ops, task: FluxTask, algebra: Algebra<Tensor>, layout: Layout) {
    const { model, request, conditioning, negative, replays = false } = task;
    const progress = new BlockProgress(ops, task);
    const options = { replays: replays && request.steps > 1, onBlocks: progress.enqueued.bind(progress) };
    const predict = (text: Conditioning): Denoiser<Tensor> => {
      const evaluation = new FluxEvaluation(ops, model, conditions(task, text, layout), options);
      this.#evaluations.push(evaluation);
      return denoiserOf({ algebra, model: request.levels, network: evaluation.run.bind(evaluation) });
    };
    const conditional = predict(conditioning);
    this.denoise = negative ? cfg(algebra, conditional, predict(negative), request.cfg) : conditional;
  }

  [Symbol.dispose](): void {
    for (const evaluation of this.#evaluations) evaluation[Symbol.dispose]();
  }
}

/** Reports blocks as the device finishes them, over all evaluations of the run. */
class BlockProgress {
  readonly #ops: Ops;
  readonly #task: FluxTask;
  readonly #total: number;
  readonly #perStep: number;
  #done = 0;

  constructor(ops: Ops, task: FluxTask) {
    const { depth, depth_single_blocks } = task.model.config;
    this.#ops = ops;
    this.#task = task;
    this.#perStep = (depth + depth_single_blocks) * (task.negative ? 2 : 1);
    this.#total = this.#perStep * task.request.steps;
  }

  enqueued(names: readonly string[]): void {
    const { onBlock, afterBlock } = this.#task;
    if (!onBlock && !afterBlock) return;
    const report = (name: string): void => {
      this.#done = Math.min(this.#done + 1, this.#total); // second-order solvers evaluate twice a step
      onBlock?.(this.#done, this.#total, Math.floor((this.#done - 1) / this.#perStep));
      afterBlock?.(name);
    };
    this.#ops.device.native.reached().then(
      () => names.forEach(report),
      () => undefined, // a failure is the job's to report
    );
  }
}

/** Noise as tokens; each picture has a generator of its own, so that it does not depend on its batch. */
function noiseSource(ops: Ops, layout: Layout, { noise }: Request, seeds: readonly bigint[]): () => Tensor {
  const generators = seeds.map((seed): NoiseGenerator =>
    noise === 'torch' ? torchNoise(seed) : philoxNoise(seed),
  );
  const each = layout.channels * layout.height * layout.width;
  return () => {
    const data = new Float32Array(layout.batch * each);
    for (const [i, generator] of generators.entries()) data.set(generator.normal(each), i * each);
    return tokensOf(ops, layout, data);
  };
}

function tokensOf(ops: Ops, layout: Layout, latents: Float32Array): Tensor {
  const { batch, channels, height, width } = layout;
  using images = ops.device.from(latents, [batch, channels, height, width]);
  return ops.patchify(images, layout);
}

async function planesOf(ops: Ops, layout: Layout, tokens: Tensor): Promise<Planes[]> {
  const { batch, channels, height, width } = layout;
  using images = ops.unpatchify(tokens, layout);
  const data = await images.read();
  const each = data.length / batch;
  return Array.from({ length: batch }, (_, i) => ({
    data: data.slice(i * each, (i + 1) * each),
    channels,
    height,
    width,
  }));
}

function repeated(values: Float32Array, times: number): Float32Array {
  if (times === 1) return values;
  const out = new Float32Array(values.length * times);
  for (let i = 0; i < times; i++) out.set(values, i * values.length);
  return out;
}
