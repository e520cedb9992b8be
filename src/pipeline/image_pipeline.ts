/** From words to pictures: text encoders, transformer, autoencoder. The library's class for images. */
import { fluxModel, type FluxModel } from '../diffusion/flux_model.js';
import { KotobaError } from '../errors.js';
import type { FluxPart } from '../formats/index.js';
import { coverPicture, pictureFromValues, valuesFromPicture, type Picture } from '../image/index.js';
import type { Device } from '../runtime/device.js';
import { Ops, type OpPrecision } from '../runtime/ops.js';
import { decoderActivations, fluxActivations, requireMemory } from './activation_memory.js';
import { Autoencoder } from './autoencoder.js';
import { Conditioner } from './conditioner.js';
import { openDevice } from './device_choice.js';
import { replaysOn } from './encode_runner.js';
import { requireEncoders } from './encoder_widths.js';
import { encodeFluxText, textTokens, type FluxText } from './flux_text.js';
import { sampleFlux, type FluxTask } from './flux_sampler.js';
import {
  EncodePromptJob,
  GenerateJob,
  type EncoderChoices,
  type GenerateOptions,
  type GenerateProgress,
  type GenerateResult,
  type ImageModel,
  type PipelineOptions,
  type PipelinePart,
} from './image_types.js';
import { encoderPrecisions, openParts, partPrecisions, residency, type ImageParts } from './image_parts.js';
import { NetworkSlot } from './network_slot.js';
import { previewOf } from './preview.js';
import { SIDE_UNIT, resolveRequest, type Request } from './request.js';
import type { Planes } from './tiles.js';

/** Tokens of pictures that share passes over the weights: more would win little and cost memory. */
const BATCH_TOKENS = 4096;
/** Where neither file tells what size the model was trained on, pixels. */
const USUAL_SIDE = 1024;

type Report = (progress: GenerateProgress) => void;

export class ImagePipeline implements AsyncDisposable {
  readonly model: ImageModel;
  readonly device: Device;
  /** What each part runs at, the model's own encoders among them. */
  readonly precisions: Readonly<Record<PipelinePart, OpPrecision>>;
  readonly transformer: FluxPart;
  readonly autoencoder: Autoencoder;
  readonly residency: 'lean' | 'keep';
  readonly #ops: Readonly<Record<'transformer' | 'vae', Ops>>;
  readonly #replays: boolean;
  readonly #flux: NetworkSlot<FluxModel>;
  readonly #conditioner: Conditioner;
  readonly #ownsDevice: boolean;
  #lastRequest: Promise<unknown> = Promise.resolve();
  #disposed = false;

  private constructor(model: ImageModel, parts: ImageParts, device: Device, options: PipelineOptions) {
    this.model = model;
    this.device = device;
    this.#ownsDevice = device !== options.device;
    this.precisions = {
      ...partPrecisions(options, parts, device),
      ...encoderPrecisions(model.encoders, parts.encoders, device),
    };
    this.transformer = parts.transformer;
    this.residency = residency(options, parts, device);
    const { transformer, vae } = this.precisions;
    this.#ops = { transformer: new Ops(device, transformer), vae: new Ops(device, vae) };
    this.#replays = replaysOn(this.#ops.transformer, options.replay ?? 'auto');
    this.#flux = new NetworkSlot(device, parts.transformer, (weights) =>
      fluxModel(weights, parts.transformer.config),
    );
    this.autoencoder = new Autoencoder(device, parts.vae);
    this.#conditioner = new Conditioner(device, this.residency);
  }

  /**
   * Checks every file; reads headers only.
   * @throws KotobaError ERR_FILE_*, ERR_FORMAT_*, ERR_MODEL_*: what is wrong with which file, and what would fit
   */
  static async load(model: ImageModel, options: PipelineOptions = {}): Promise<ImagePipeline> {
    const parts = openParts(model, options);
    const device = openDevice(options);
    try {
      return new ImagePipeline(model, parts, device, options);
    } catch (error) {
      if (device !== options.device) device.close();
      throw error;
    }
  }

  /** Side of the square pictures the model was trained on, pixels. */
  get side(): number {
    return this.autoencoder.part.config.resolution ?? USUAL_SIDE;
  }

  /**
   * Makes pictures of a prompt. Requests of one pipeline run one after another.
   * @throws (rejects) KotobaError ERR_ARGUMENT, ERR_CANCELLED, ERR_OUT_OF_MEMORY, ERR_NON_FINITE, and what loading a
   *   part throws
   */
  generate(prompt: string, options: GenerateOptions = {}): GenerateJob {
    return new GenerateJob(async (report) => {
      const request = resolveRequest(options, this.transformer.config, this.side);
      const chosen = this.#encodersFor(options);
      this.#requireMemory(request, options);
      return await this.#inTurn(prompt, () => this.#generate(prompt, options, request, chosen, report));
    });
  }

  /**
   * Reads a prompt ahead, so that requests with the same prompt, encoders and options find it in the cache: all
   * prompts first, then all pictures, loads each part once.
   * @throws (rejects) as generate does
   */
  encode(prompt: string, options: GenerateOptions = {}): EncodePromptJob {
    return new EncodePromptJob(async (report) => {
      const { encoders } = this.#encodersFor(options);
      return await this.#inTurn(prompt, async () => {
        const before = this.#conditioner.encodes;
        const texts = await this.#encode(prompt, options, encoders, report);
        return { ...texts, encodes: this.#conditioner.encodes - before };
      });
    });
  }

  /** Unloads every part; the next request loads what it needs. Encodings stay cached. */
  async release(): Promise<void> {
    await this.#conditioner.release();
    this.#flux.release();
    this.autoencoder.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#lastRequest;
    await this.release();
    if (this.#ownsDevice) this.device.close();
  }

  async #inTurn<T>(prompt: string, work: () => Promise<T>): Promise<T> {
    if (this.#disposed) throw new KotobaError('ERR_DISPOSED', 'pipeline: used after it was disposed');
    if (typeof prompt !== 'string')
      throw new KotobaError('ERR_ARGUMENT', `prompt: expected text, got ${typeof prompt}`);
    const mine = this.#lastRequest.then(work);
    this.#lastRequest = mine.catch(() => undefined);
    return await mine;
  }

  async #generate(
    prompt: string,
    options: GenerateOptions,
    request: Request,
    { encoders, precisions }: ChosenEncoders,
    report: Report,
  ): Promise<GenerateResult> {
    const encodesBefore = this.#conditioner.encodes;
    const clock = new Clock();
    const texts = await this.#phase(this.#conditioner, () => this.#encode(prompt, options, encoders, report));
    const encode = clock.lap();
    const latents = await this.#phase(this.#flux, () => this.#sample(request, options, texts, report));
    const sample = clock.lap();
    const pictures = await this.#phase(this.autoencoder, () =>
      this.#decode(latents, request, options, report),
    );
    const { width, height, steps, sampler, schedule, sigmas, guidance, cfg, seeds } = request;
    return {
      pictures: pictures.map((picture, i) => ({ picture, seed: seeds[i]! })),
      ...{ width, height, steps, sampler, schedule, sigmas, guidance, cfg },
      encoders,
      precisions,
      conditioning: texts.conditioning,
      seconds: { encode, sample, decode: clock.lap() },
      encodes: this.#conditioner.encodes - encodesBefore,
    };
  }

  /** Runs one part of the model; a lean pipeline releases it then, also where it failed or was cancelled. */
  async #phase<T>(part: { release(): void | Promise<void> }, run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } finally {
      if (this.residency === 'lean') await part.release();
    }
  }

  /** @throws KotobaError ERR_MODEL_SLOT for encoders that the transformer cannot take */
  #encodersFor({ encoders: replaced }: GenerateOptions): ChosenEncoders {
    const { precisions } = this;
    if (!replaced) return { encoders: this.model.encoders, precisions };
    const encoders = {
      clip_l: replaced.clip_l ?? this.model.encoders.clip_l,
      t5: replaced.t5 ?? this.model.encoders.t5,
    };
    const parts = requireEncoders(encoders, this.transformer);
    return { encoders, precisions: { ...precisions, ...encoderPrecisions(encoders, parts, this.device) } };
  }

  #requireMemory({ width, height, tile }: Request, { t5Length }: GenerateOptions): void {
    const text = t5Length?.minLength ?? textTokens(this.transformer.config);
    const tokens = text + (width / SIDE_UNIT) * (height / SIDE_UNIT);
    const pixels = Math.min(width, tile) * Math.min(height, tile);
    const needs = {
      sampling: fluxActivations(this.transformer.config, tokens, this.precisions.transformer),
      decoding: decoderActivations(this.autoencoder.part.config, pixels, this.precisions.vae),
    };
    requireMemory(needs, this.device.memory);
  }

  #encode(
    prompt: string,
    options: GenerateOptions,
    encoders: EncoderChoices,
    report: Report,
  ): Promise<FluxText> {
    const { config } = this.transformer;
    return encodeFluxText(prompt, { conditioner: this.#conditioner, encoders, config, options, report });
  }

  async #sample(
    request: Request,
    options: GenerateOptions,
    text: FluxText,
    report: Report,
  ): Promise<Planes[]> {
    const { signal } = options;
    const start = options.image && (await this.#start(options.image, request, signal));
    const tokens = (request.width / SIDE_UNIT) * (request.height / SIDE_UNIT);
    const together = Math.max(1, Math.floor(BATCH_TOKENS / tokens));
    const latents: Planes[] = [];
    for (let i = 0; i < request.seeds.length; i += together) {
      const seeds = request.seeds.slice(i, i + together);
      const job = async (): Promise<Planes[]> => {
        const model = await this.#flux.get();
        const task = { ...text, request, seeds, start, signal, model, replays: this.#replays };
        try {
          const ops = this.#ops.transformer;
          return await sampleFlux(ops, { ...task, ...this.#watchSampling(options, task, report) });
        } finally {
          this.#flux.requireIntact(); // outranks what the missing bytes led to
        }
      };
      latents.push(...(await this.device.run(job, signal)));
    }
    return latents;
  }

  #watchSampling(
    options: GenerateOptions,
    { request, seeds }: { readonly request: Request; readonly seeds: readonly bigint[] },
    report: Report,
  ): Pick<FluxTask, 'factor' | 'onBlock' | 'afterBlock' | 'onStep'> {
    const { steps } = request;
    const batches = request.seeds.length;
    const first = request.seeds.indexOf(seeds[0]!);
    const detail = (step: number): string => `step ${step + 1} of ${steps}`;
    const onBlock = (done: number, total: number, step: number): void => {
      const before = (first / seeds.length) * total;
      report({
        phase: 'sample',
        done: before + done,
        total: (batches / seeds.length) * total,
        detail: detail(step),
      });
    };
    const onStep = async (step: number, denoised: () => Promise<Planes>): Promise<void> => {
      if (!options.preview) return;
      const preview = await previewOf(this.#ops.vae, this.autoencoder, await denoised());
      report({ phase: 'sample', done: step + 1, total: steps, detail: detail(step), preview });
    };
    const afterBlock =
      this.residency === 'lean' ? (name: string) => this.#flux.forget(`${name}.`) : undefined;
    return { factor: this.autoencoder.factor, onBlock, afterBlock, onStep };
  }

  async #start(image: Picture, { width, height, tile }: Request, signal?: AbortSignal): Promise<Planes> {
    const data = valuesFromPicture(coverPicture(image, width, height));
    const planes: Planes = { data, channels: 3, height, width };
    const job = () => this.autoencoder.encode(this.#ops.vae, planes, { tile, signal });
    return await this.device.run(job, signal);
  }

  async #decode(
    latents: readonly Planes[],
    { tile }: Request,
    { signal }: GenerateOptions,
    report: Report,
  ): Promise<Picture[]> {
    const pictures: Picture[] = [];
    for (const [i, one] of latents.entries()) {
      const onTile = (done: number, total: number): void =>
        report({
          phase: 'decode',
          done: i * total + done,
          total: latents.length * total,
          detail: `picture ${i + 1}`,
        });
      const job = () => this.autoencoder.decode(this.#ops.vae, one, { tile, onTile, signal });
      const { data, width, height } = await this.device.run(job, signal);
      pictures.push(pictureFromValues(data, { width, height }));
    }
    return pictures;
  }
}

/** Of one request. */
type ChosenEncoders = Pick<GenerateResult, 'encoders' | 'precisions'>;

/** Seconds between laps. */
class Clock {
  #last = performance.now();

  lap(): number {
    const now = performance.now();
    const seconds = (now - this.#last) / 1000;
    this.#last = now;
    return seconds;
  }
}
