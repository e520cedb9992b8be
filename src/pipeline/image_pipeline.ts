/** From words to pictures: text encoders, transformer, autoencoder. The library's class for images. */
import { KotobaError } from '../errors.js';
import type { Device } from '../runtime/device.js';
import { decoderActivations, denoiserActivations, requireMemory } from './painting/activation_memory.js';
import type { Autoencoder } from './painting/autoencoder.js';
import { Conditioner } from './conditioning/conditioner.js';
import { openDevice } from './device_choice.js';
import { chosenEncoders, requireEncoders } from './conditioning/encoder_widths.js';
import { encodeText, textTokens, type PromptText } from './conditioning/family_text.js';
import {
  EncodePromptJob,
  GenerateJob,
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
import { Painter } from './painting/painter.js';
import { presetFor } from './painting/presets.js';
import { resolveRequest, usualSide, type Request } from './painting/request.js';
import { runSettings } from './run_settings.js';

type Report = (progress: GenerateProgress) => void;

export class ImagePipeline implements AsyncDisposable {
  readonly model: ImageModel;
  readonly device: Device;
  /** What each part runs at, the model's own encoders among them. */
  readonly precisions: Precisions;
  readonly residency: 'lean' | 'keep';
  readonly #painter: Painter;
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
    this.residency = residency(options, parts, device);
    this.#painter = new Painter(device, parts, {
      ...{ precisions: this.precisions, residency: this.residency, replay: options.replay ?? 'auto' },
    });
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

  get denoiser(): DenoiserPart {
    return this.#painter.denoiser;
  }

  get autoencoder(): Autoencoder {
    return this.#painter.autoencoder;
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
    this.#painter.release();
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
    const painter = this.#painter;
    const clock = new Clock();
    const texts = await this.#phase(this.#conditioner, () =>
      this.#encode(prompt, options, encoders, request.cfg, report),
    );
    const encode = clock.lap();
    const latents = await this.#phase(painter.network, () => painter.sample(request, options, texts, report));
    const sample = clock.lap();
    const pictures = await this.#phase(painter.autoencoder, () =>
      painter.decode(latents, request, options, report),
    );
    return {
      pictures: pictures.map((picture, i) => ({ picture, seed: request.seeds[i]! })),
      ...runSettings(request),
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
    const encoders = chosenEncoders(this.model.encoders, replaced);
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
