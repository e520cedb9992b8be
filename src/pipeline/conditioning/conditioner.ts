/** Text conditioning for a pipeline: encoders are loaded when needed, and no prompt is encoded twice by one of them. */
import { KotobaError } from '../../errors.js';
import type { Device } from '../../runtime/device.js';
import type { ChunkLayout, ClipFlavour, PromptDialect, T5Length } from '../../text/index.js';
import type { Encoding } from '../encoder_types.js';
import type { EncoderChoice, EncoderSlot } from '../image_types.js';
import { chunkedRows, type ChunkedRows } from './join_encoders.js';
import { TextEncoder } from '../text_encoder.js';

/** Encodings kept, bytes: 30 prompts of T5-XXL at 512 tokens. */
const MOST_CACHED_BYTES = 256 << 20;

/** Encoders kept loaded; with memory enough those of all slots, and another of each to compare with. */
const MOST_LOADED = { lean: 1, keep: 6 } as const;

export interface TextRequest {
  readonly slot: EncoderSlot;
  readonly choice: EncoderChoice;
  readonly prompt: string;
  readonly dialect: PromptDialect;
  /** Default `applied`. */
  readonly weighting?: 'applied' | 'none' | undefined;
  readonly layout?: (Partial<ChunkLayout> & { t5Length?: T5Length }) | undefined;
  /** CLIP: 1 (default) is the last layer's state. */
  readonly clipSkip?: number | undefined;
  /** Default `final`. */
  readonly norm?: 'final' | 'none' | undefined;
  /** Layers of files that were saved without the last one; clipSkip counts it all the same. */
  readonly layersWithoutLast?: number | undefined;
  readonly clipFlavour?: ClipFlavour | undefined;
}

/** F32. */
export interface EncodedText extends ChunkedRows {
  /** [tokens, width], chunks one after another */
  readonly hidden: Float32Array;
  readonly width: number;
  /** [tokens]: the prompt's weights, whether they were applied or not; absent where all are 1 */
  readonly weights?: Float64Array | undefined;
  /** [width]: CLIP only */
  readonly pooled?: Float32Array | undefined;
  /** [projection]: CLIP with a projection only */
  readonly projected?: Float32Array | undefined;
  /** Tokens of the prompt that were cut off. */
  readonly truncated: number;
  /** Tokens of the prompt in chunks after the first, of which the pooled vectors know nothing. */
  readonly afterFirst: number;
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
  async encode(request: TextRequest, watching: Watching = {}): Promise<EncodedText> {
    const key = JSON.stringify(request, (_, value: unknown) => (value === Infinity ? 'Infinity' : value));
    const known = this.#cache.get(key);
    if (known) {
      this.#cache.delete(key); // the latest used goes last
      this.#cache.set(key, known);
      return known;
    }
    const encoded = encodedText(await this.#run(request, watching));
    this.#encodes++;
    this.#remember(key, encoded);
    return encoded;
  }

  async #run(request: TextRequest, { onLayer, signal }: Watching): Promise<Encoding> {
    const encoder = await this.#encoder(request);
    const { prompt, dialect, weighting, layout, norm } = request;
    const clipSkip = clipSkipIn(encoder, request);
    const job = encoder.encode(prompt, { dialect, weighting, layout, clipSkip, norm, signal });
    const watching = watch(job.progress(), onLayer);
    const encoding = await job.result.catch(async (error: unknown) => {
      // Only a new map of a file that was cut short can be trusted.
      if (error instanceof KotobaError && error.code === 'ERR_FILE_READ') await this.#unload(encoder);
      throw error;
    });
    await watching;
    return encoding;
  }

  /** Unloads every encoder; what they have encoded stays. */
  async release(): Promise<void> {
    const encoders = [...this.#loaded.values()];
    this.#loaded.clear();
    for (const encoder of encoders) await encoder[Symbol.asyncDispose]();
  }

  async #encoder(request: TextRequest): Promise<TextEncoder> {
    const { slot, choice, clipFlavour } = request;
    const key = JSON.stringify([slot, choice, clipFlavour]);
    const loaded = this.#loaded.get(key);
    if (!loaded) await this.#makeRoom();
    const encoder = loaded ?? (await this.#load(request));
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

  async #load({ slot, choice, clipFlavour }: TextRequest): Promise<TextEncoder> {
    const { path, precision, config, tokenizer } = choice;
    return await TextEncoder.load(path, {
      device: this.#device,
      slot,
      precision,
      config,
      residency: this.#residency,
      clipFlavour,
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

/** @throws KotobaError ERR_ARGUMENT for the state of a layer that was left out of the file */
function clipSkipIn({ network, part }: TextEncoder, request: TextRequest): number | undefined {
  const { clipSkip, layersWithoutLast } = request;
  if (clipSkip === undefined || network.depth !== layersWithoutLast) return clipSkip;
  if (clipSkip === 1)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `clipSkip 1: ${part.path} was saved without its last layer: expected 2 or more`,
    );
  return clipSkip - 1;
}

function encodedText({ prompt, hidden, width, pooled, projected }: Encoding): EncodedText {
  const { chunks, tokenCount, truncated, hasWeights } = prompt;
  const rows = chunkedRows(prompt);
  const { tokens, chunkTokens } = rows;
  const weights = new Float64Array(hasWeights ? tokens : 0);
  if (hasWeights) for (const [i, chunk] of chunks.entries()) weights.set(chunk.weights, i * chunkTokens);
  return {
    ...{ hidden, width, pooled, projected },
    ...rows,
    weights: hasWeights ? weights : undefined,
    truncated: truncated.ids.length,
    afterFirst: tokenCount - chunks[0]!.contentLength,
  };
}

async function watch(
  progress: AsyncIterable<{ readonly done: number; readonly total: number }>,
  onLayer: Watching['onLayer'],
): Promise<void> {
  if (onLayer) for await (const { done, total } of progress) onLayer(done, total);
}
