/** From words to pictures: text encoders, transformer, autoencoder. The library's class for images. */
import { KotobaError } from '../errors.js';
import { coverPicture, pictureFromValues, valuesFromPicture, type Picture } from '../image/index.js';
import type { Device } from '../runtime/device.js';
import { Ops } from '../runtime/ops.js';
import { decoderActivations, denoiserActivations, requireMemory } from './activation_memory.js';
import { Autoencoder } from './autoencoder.js';
import { Conditioner } from './conditioner.js';
import { openDevice } from './device_choice.js';
import type { Denoiser } from './denoiser.js';
import { loadDenoiser } from './denoisers.js';
import { replaysOn } from './encode_runner.js';
import { requireEncoders } from './encoder_widths.js';
import { encodeText, textTokens, type PromptText } from './family_text.js';
import {
  EncodePromptJob,
  GenerateJob,
  type Conditioning,
  type DenoiserPart,
  type EncoderChoices,
  type GenerateOptions,
  type GenerateProgress,
  type GenerateResult,
  type ImageModel,
  type PipelineOptions,
  type Precisions,
} from './image_types.js';
import { encoderPrecisions, openParts, partPrecisions, residency, type ImageParts } from './image_parts.js';
import { NetworkSlot } from './network_slot.js';
import { previewOf } from './preview.js';
import { presetFor } from './presets.js';
import { resolveRequest, usualSide, type Request } from './request.js';
import { sampleLatents, type SampleTask, type TextConditions } from './sampler.js';
import { withSizes } from './size_conditioning.js';
import type { Planes } from './tiles.js';

/** Tokens of pictures that share passes over the weights: more would win little and cost memory. */
const BATCH_TOKENS = 4096;
/** Pixels of a token: a patch of 2 × 2 latents, and what a UNet's first attention has at half its size. */
const TOKEN_PIXELS = 16 ** 2;

type Report = (progress: GenerateProgress) => void;

export class ImagePipeline implements AsyncDisposable {
  readonly model: ImageModel;
  readonly device: Device;
  /** What each part runs at, the model's own encoders among them. */
  readonly precisions: Precisions;
  readonly denoiser: DenoiserPart;
  readonly autoencoder: Autoencoder;
  readonly residency: 'lean' | 'keep';
  readonly #ops: Readonly<Record<'denoiser' | 'vae', Ops>>;
  readonly #replays: boolean;
  readonly #network: NetworkSlot<Denoiser>;
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
    this.denoiser = parts.denoiser;
    this.residency = residency(options, parts, device);
    const { denoiser, vae } = this.precisions;
    this.#ops = { denoiser: new Ops(device, denoiser), vae: new Ops(device, vae) };
    this.#replays = replaysOn(this.#ops.denoiser, options.replay ?? 'auto');
    this.#network = new NetworkSlot(device, parts.denoiser, (weights) =>
      loadDenoiser(weights, parts.denoiser),
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
    return usualSide(this.#parts, presetFor(this.denoiser).preset);
  }

  get #parts() {
    return { denoiser: this.denoiser, vae: this.autoencoder.part };
  }

  /**
   * Makes pictures of a prompt. Requests of one pipeline run one after another.
   * @throws (rejects) KotobaError ERR_ARGUMENT, ERR_CANCELLED, ERR_OUT_OF_MEMORY, ERR_NON_FINITE, and what loading a
   *   part throws
   */
  generate(prompt: string, options: GenerateOptions = {}): GenerateJob {
    return new GenerateJob(async (report) => {
      const request = resolveRequest(options, this.#parts);
      const chosen = this.#encodersFor(options);
      this.#requireMemory(request, options, chosen.encoders);
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
        const { cfg } = resolveRequest(options, this.#parts);
        const texts = await this.#encode(prompt, options, encoders, cfg, report);
        return { ...texts, encodes: this.#conditioner.encodes - before };
      });
    });
  }

  /** Unloads every part; the next request loads what it needs. Encodings stay cached. */
  async release(): Promise<void> {
    await this.#conditioner.release();
    this.#network.release();
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
    const texts = await this.#phase(this.#conditioner, () =>
      this.#encode(prompt, options, encoders, request.cfg, report),
    );
    const encode = clock.lap();
    const latents = await this.#phase(this.#network, () => this.#sample(request, options, texts, report));
    const sample = clock.lap();
    const pictures = await this.#phase(this.autoencoder, () =>
      this.#decode(latents, request, options, report),
    );
    const { width, height, profile, preset, steps, sampler, schedule, sigmas, guidance, cfg, noise } =
      request;
    return {
      pictures: pictures.map((picture, i) => ({ picture, seed: request.seeds[i]! })),
      ...{ width, height, profile, preset, steps, sampler, schedule, sigmas, guidance, cfg, noise },
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
    const encoders = { ...this.model.encoders, ...replaced };
    const parts = requireEncoders(encoders, this.denoiser);
    return { encoders, precisions: { ...precisions, ...encoderPrecisions(encoders, parts, this.device) } };
  }

  #requireMemory({ width, height, tile }: Request, options: GenerateOptions, encoders: EncoderChoices): void {
    const { denoiser, autoencoder, precisions } = this;
    const text = textTokens({ denoiser, options, encoders });
    const latents = (width / autoencoder.factor) * (height / autoencoder.factor);
    const pixels = Math.min(width, tile) * Math.min(height, tile);
    const needs = {
      sampling: denoiserActivations(denoiser, latents, text, precisions.denoiser),
      decoding: decoderActivations(autoencoder.part.config, pixels, precisions.vae),
    };
    requireMemory(needs, this.device.memory);
  }

  #encode(
    prompt: string,
    options: GenerateOptions,
    encoders: EncoderChoices,
    cfg: number,
    report: Report,
  ): Promise<PromptText> {
    const { denoiser } = this;
    return encodeText(prompt, { conditioner: this.#conditioner, encoders, denoiser, options, cfg, report });
  }

  /** What the network is given of a text. */
  #conditions(text: Conditioning, request: Request, of: 'prompt' | 'negative'): TextConditions {
    const { denoiser } = this;
    const { hidden, pooled } = text;
    if (denoiser.slot !== 'unet' || !pooled) return { hidden, pooled };
    return { hidden, pooled: withSizes(pooled, denoiser.config, request, of) };
  }

  async #sample(
    request: Request,
    options: GenerateOptions,
    text: PromptText,
    report: Report,
  ): Promise<Planes[]> {
    const { signal } = options;
    const start = options.image && (await this.#start(options.image, request, signal));
    const tokens = (request.width * request.height) / TOKEN_PIXELS;
    const conditioning = this.#conditions(text.conditioning, request, 'prompt');
    const negative = text.negative && this.#conditions(text.negative, request, 'negative');
    const together = Math.max(1, Math.floor(BATCH_TOKENS / tokens));
    const latents: Planes[] = [];
    for (let i = 0; i < request.seeds.length; i += together) {
      const seeds = request.seeds.slice(i, i + together);
      const job = async (): Promise<Planes[]> => {
        const network = await this.#network.get();
        const texts = { conditioning, negative };
        const task = { ...texts, request, seeds, start, signal, network, replays: this.#replays };
        try {
          const ops = this.#ops.denoiser;
          return await sampleLatents(ops, { ...task, ...this.#watchSampling(options, task, report) });
        } finally {
          this.#network.requireIntact(); // outranks what the missing bytes led to
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
  ): Pick<SampleTask, 'factor' | 'onBlock' | 'afterBlock' | 'onStep'> {
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
      this.residency === 'lean' ? (name: string) => this.#network.forget(`${name}.`) : undefined;
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
