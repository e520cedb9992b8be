/** Runs a solver over a denoiser: noise and conditioning in, latents out. */
import { cancelled } from '../../runtime/device.js';
import type { Ops } from '../../runtime/ops.js';
import type { Tensor } from '../../runtime/tensor.js';
import {
  BrownianNoise,
  PARAMETERIZATIONS,
  cfg,
  denoiserOf,
  philoxNoise,
  sample,
  skipLayerGuidance,
  startLatent,
  torchNoise,
  type Algebra,
  type Denoiser,
  type NoiseGenerator,
} from '../../sampling/index.js';
import { repeated, type Conditions, type Denoiser as Network } from './denoiser.js';
import { Evaluation } from './evaluation.js';
import { Masked } from './masked.js';
import type { Conditioning } from '../image_types.js';
import type { Request } from './request.js';
import type { StartingPicture } from './starting_picture.js';
import type { Planes } from './tiles.js';

export interface SampleTask {
  readonly network: Network;
  readonly request: Request;
  /** of the pictures that share passes over the weights */
  readonly seeds: readonly bigint[];
  readonly conditioning: TextConditions;
  /** for classifier-free guidance */
  readonly negative?: TextConditions | undefined;
  readonly start?: StartingPicture | undefined;
  /** Pixels along a side of a latent. */
  readonly factor: number;
  /** Whether to record the network's evaluation once and replay it for every step. Default: no. */
  readonly replays?: boolean | undefined;
  /** Told the name of a block whenever the device has run it: its weights are not needed for a while. */
  readonly afterBlock?: ((name: string) => void) | undefined;
  readonly onBlock?: ((done: number, total: number, step: number) => void) | undefined;
  /** After a step: what the latents of the first picture are becoming. */
  readonly onStep?: ((step: number, denoised: () => Promise<Planes>) => Promise<void>) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** As the network takes them: sizes joined to the pooled text where it was trained so. */
export type TextConditions = Pick<Conditioning, 'hidden' | 'pooled'>;

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
export async function sampleLatents(ops: Ops, task: SampleTask): Promise<Planes[]> {
  const { request, network, seeds } = task;
  const layout: Layout = {
    batch: seeds.length,
    channels: network.channels,
    height: request.height / task.factor,
    width: request.width / task.factor,
    patch: network.patch,
  };
  const algebra: Algebra<Tensor> = { combine: (terms) => ops.combine(terms) };
  const draw = noiseSource(ops, layout, request, seeds);
  using first = draw();
  using path = new BrownianNoise(algebra, draw);
  const { latents, mask } = task.start ?? {};
  using latent = latents && tokensOf(ops, layout, repeated(latents.data, layout.batch));
  using painted = mask && tokensOf(ops, layout, repeated(mask, layout.batch * layout.channels));
  const { prediction } = request.levels;
  using masked = latent && painted && new Masked(ops, { mask: painted, latent, noise: first, prediction });
  using start = startLatent(algebra, {
    noise: first,
    prediction,
    sigma: request.sigmas[0]!,
    noiseScale: request.noiseScale,
    ...(latent && { latent }),
  });
  using guided = new Guided(ops, task, algebra, layout);
  const sampling = sample({
    solver: request.sampler,
    algebra,
    denoise: masked ? masked.around(guided.denoise) : guided.denoise,
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
        using latents = finished(ops, x, request);
        ops.requireFinite(latents, `${network.name}: the latents`);
        return await planesOf(ops, layout, latents);
      }
      ops.requireFinite(value.x, `${network.name}: the latents after step ${value.step + 1}`);
      await ops.device.native.flush();
      if (task.signal?.aborted) throw cancelled();
      await task.onStep?.(value.step, async () => (await planesOf(ops, layout, value.denoised))[0]!);
    }
  } finally {
    sampling.return(undefined as never);
  }
}

/** A schedule that ends above 0 leaves the signal at a scale of its own. */
function finished(ops: Ops, x: Tensor, { sigmas, levels }: Request): Tensor {
  const last = sigmas.at(-1)!;
  const scale = last > 0 ? PARAMETERIZATIONS[levels.prediction].finalScale(last) : 1;
  return ops.combine([[scale, x]]);
}

function conditions(
  { request, start }: SampleTask,
  { hidden, pooled }: TextConditions,
  { batch, height, width }: Layout,
): Conditions {
  return { batch, height, width, hidden, pooled, guidance: request.guidance, beside: start?.beside };
}

/** The network with the prompt, and with the negative prompt where there is guidance against one. */
class Guided implements Disposable {
  readonly denoise: Denoiser<Tensor>;
  readonly #evaluations: Evaluation[] = [];

  constructor(ops: Ops, task: SampleTask, algebra: Algebra<Tensor>, layout: Layout) {
    const { network, request, conditioning, negative, replays = false } = task;
    const { levels: model, timesteps, skipLayers } = request;
    const progress = new BlockProgress(ops, task);
    const options = { replays: replays && request.steps > 1, onBlocks: progress.enqueued.bind(progress) };
    const predict = (text: TextConditions, without?: readonly number[]): Denoiser<Tensor> => {
      const given = { ...conditions(task, text, layout), skipLayers: without };
      const evaluation = new Evaluation(ops, network, given, options);
      this.#evaluations.push(evaluation);
      return denoiserOf({ algebra, model, timesteps, network: evaluation.run.bind(evaluation) });
    };
    const cond = predict(conditioning);
    const uncond = negative ? predict(negative) : cond;
    const scale = negative ? request.cfg : 1;
    if (skipLayers) {
      const skipped = predict(conditioning, skipLayers.layers);
      const { scale: skipScale, isActive } = skipLayers;
      this.denoise = skipLayerGuidance(algebra, { cond, uncond, skipped, scale, skipScale, isActive });
    } else this.denoise = cfg(algebra, cond, uncond, scale);
  }

  [Symbol.dispose](): void {
    for (const evaluation of this.#evaluations) evaluation[Symbol.dispose]();
  }
}

/** Reports blocks as the device finishes them, over all evaluations of the run. */
class BlockProgress {
  readonly #ops: Ops;
  readonly #task: SampleTask;
  readonly #total: number;
  readonly #perStep: number;
  #done = 0;

  constructor(ops: Ops, task: SampleTask) {
    this.#ops = ops;
    this.#task = task;
    this.#perStep = task.network.depth * (task.negative ? 2 : 1);
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
