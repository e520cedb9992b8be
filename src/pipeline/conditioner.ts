/** Text conditioning for a pipeline: encoders are loaded when needed, and no prompt is encoded twice by one of them. */
import { KotobaError } from '../errors.js';
import type { Device } from '../runtime/device.js';
import type { ChunkLayout, PromptDialect, T5Length } from '../text/index.js';
import type { EncoderChoice, EncoderSlot } from './image_types.js';
import { TextEncoder } from './text_encoder.js';

/** Encodings kept, bytes: 30 prompts of T5-XXL at 512 tokens. */
const MOST_CACHED_BYTES = 256 << 20;

/** Encoders kept loaded; with memory enough those of both slots, and another of each to compare with. */
const MOST_LOADED = { lean: 1, keep: 4 } as const;

export interface TextRequest {
  readonly slot: EncoderSlot;
  readonly choice: EncoderChoice;
  readonly prompt: string;
  readonly dialect: PromptDialect;
  readonly layout?: (Partial<ChunkLayout> & { t5Length?: T5Length }) | undefined;
}

/** F32. */
export interface EncodedText {
  /** [tokens, width] */
  readonly hidden: Float32Array;
  readonly tokens: number;
  /** [width]: CLIP only */
  readonly pooled?: Float32Array | undefined;
}

export interface Watching {
  readonly onLayer?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class Conditioner {
  readonly #device: Device;
  readonly #residency: 'lean' | 'keep';
  readonly #loaded = new Map<string, TextEncoder>();
  readonly #cache = new Map<string, EncodedText>();
  #cachedBytes = 0;
  #encodes = 0;

  /** @param residency lean: one encoder is loaded at a time; keep: the latest few */
  constructor(device: Device, residency: 'lean' | 'keep') {
    this.#device = device;
    this.#residency = residency;
  }

  /** How many times an encoder has run. */
  get encodes(): number {
    return this.#encodes;
  }

  /** @throws KotobaError what TextEncoder.load and encode throw */
  async encode(request: TextRequest, { onLayer, signal }: Watching = {}): Promise<EncodedText> {
    const key = JSON.stringify(request);
    const known = this.#cache.get(key);
    if (known) {
      this.#cache.delete(key); // the latest used goes last
      this.#cache.set(key, known);
      return known;
    }
    const encoder = await this.#encoder(request.slot, request.choice);
    const { prompt, dialect, layout } = request;
    const job = encoder.encode(prompt, { dialect, layout, signal });
    const watching = watch(job.progress(), onLayer);
    const { hidden, tokens, pooled } = await job.result.catch(async (error: unknown) => {
      // Only a new map of a file that was cut short can be trusted.
      if (error instanceof KotobaError && error.code === 'ERR_FILE_READ') await this.#unload(encoder);
      throw error;
    });
    await watching;
    this.#encodes++;
    const encoded = { hidden, tokens, pooled };
    this.#remember(key, encoded);
    return encoded;
  }

  /** Unloads every encoder; what they have encoded stays. */
  async release(): Promise<void> {
    const encoders = [...this.#loaded.values()];
    this.#loaded.clear();
    for (const encoder of encoders) await encoder[Symbol.asyncDispose]();
  }

  async #encoder(slot: EncoderSlot, choice: EncoderChoice): Promise<TextEncoder> {
    const key = JSON.stringify([slot, choice]);
    const loaded = this.#loaded.get(key);
    if (!loaded) await this.#makeRoom();
    const encoder = loaded ?? (await this.#load(slot, choice));
    this.#loaded.delete(key); // the latest used goes last
    this.#loaded.set(key, encoder);
    return encoder;
  }

  async #makeRoom(): Promise<void> {
    for (const unused of this.#loaded.values()) {
      if (this.#loaded.size < MOST_LOADED[this.#residency]) break;
      await this.#unload(unused);
    }
  }

  async #unload(encoder: TextEncoder): Promise<void> {
    for (const [key, loaded] of this.#loaded) if (loaded === encoder) this.#loaded.delete(key);
    await encoder[Symbol.asyncDispose]();
  }

  async #load(slot: EncoderSlot, choice: EncoderChoice): Promise<TextEncoder> {
    const { path, precision, config, tokenizer } = choice;
    return await TextEncoder.load(path, {
      device: this.#device,
      slot,
      precision,
      config,
      residency: this.#residency,
      ...(slot === 't5' && { t5Tokenizer: tokenizer }),
    });
  }

  #remember(key: string, encoded: EncodedText): void {
    this.#cache.set(key, encoded);
    this.#cachedBytes += encoded.hidden.byteLength;
    for (const [oldest, { hidden }] of this.#cache) {
      if (this.#cachedBytes <= MOST_CACHED_BYTES || this.#cache.size === 1) break;
      this.#cache.delete(oldest);
      this.#cachedBytes -= hidden.byteLength;
    }
  }
}

async function watch(
  progress: AsyncIterable<{ readonly done: number; readonly total: number }>,
  onLayer: Watching['onLayer'],
): Promise<void> {
  if (onLayer) for await (const { done, total } of progress) onLayer(done, total);
}
