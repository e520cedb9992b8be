/** One text encoder from a file: prompts in, embeddings out. The library's main class. */
import type { EncodedTokens, Wanted } from '../encoders/encode_tokens.js';
import { clipNetwork, t5Network, type TextNetwork, type TokenBatch } from '../encoders/text_network.js';
import { KotobaError } from '../errors.js';
import { openModel, selectPart, type ClipPart, type Slot, type T5Part } from '../formats/index.js';
import type { Device } from '../runtime/device.js';
import { Ops, type OpPrecision } from '../runtime/ops.js';
import { Weights } from '../runtime/weights.js';
import {
  chunkLayout,
  loadClipTokenizer,
  loadT5Tokenizer,
  parsePrompt,
  tokenizePromptAsync,
  type ChunkLayout,
  type EncoderFamily,
  type TokenChunk,
  type TokenizedPrompt,
  type Tokenizer,
} from '../text/index.js';
import { openDevice } from './device_choice.js';
import { EncodeJob, type EncodeProgress } from './encode_job.js';
import { EncodeRunner } from './encode_runner.js';
import type { EncodeOptions, Encoding, LoadOptions } from './encoder_types.js';
import { resolvePrecision } from './precision.js';
import { statesWanted, weightsOf, type StatesWanted } from './states_wanted.js';
import {
  concatenate,
  emptyRows,
  joinRows,
  passes,
  requireTokens,
  type EncodedRow,
  type Pass,
} from './token_rows.js';

/** Token families of slots: what pads and chunks a prompt. */
const FAMILIES: Partial<Record<Slot, EncoderFamily>> = {
  clip_g: 'clip-g',
  clip_h: 'clip-h',
  longclip_l: 'long-clip-l',
  t5: 't5',
};

export class TextEncoder implements AsyncDisposable {
  readonly part: ClipPart | T5Part;
  readonly precision: OpPrecision;
  readonly device: Device;
  readonly network: TextNetwork;
  readonly #weights: Weights;
  readonly #runner: EncodeRunner;
  readonly #ownsDevice: boolean;
  readonly #isLean: boolean;
  readonly #loadTokenizer: () => Promise<Tokenizer>;
  #tokenizer: Promise<Tokenizer> | undefined;
  #disposed = false;

  private constructor(
    part: ClipPart | T5Part,
    weights: Weights,
    network: TextNetwork,
    device: Device,
    precision: OpPrecision,
    options: LoadOptions,
    loadTokenizer: () => Promise<Tokenizer>,
  ) {
    this.part = part;
    this.#weights = weights;
    this.network = network;
    this.device = device;
    this.precision = precision;
    this.#ownsDevice = device !== options.device;
    this.#isLean = options.residency === 'lean';
    const replay = this.#isLean ? 'never' : (options.replay ?? 'auto');
    this.#runner = new EncodeRunner(new Ops(device, precision), network, replay);
    this.#loadTokenizer = loadTokenizer;
  }

  /**
   * Opens a file, a shard, an index.json, a folder or a checkpoint. Weights stay in the mapped file: this reads
   * headers and the tokenizer only, and takes the same time whatever the size.
   * @throws KotobaError ERR_FILE_*, ERR_FORMAT_*, ERR_MODEL_*: what is wrong with the file
   */
  static async load(path: string, options: LoadOptions = {}): Promise<TextEncoder> {
    const model = openModel(path);
    const part = selectPart(model, {
      ...(options.slot && { slot: options.slot }),
      ...(options.config && { config: options.config }),
    });
    if (part.family !== 'clip' && part.family !== 't5')
      throw new KotobaError('ERR_MODEL_SLOT', `${path}: expected a text encoder, got ${part.description}`);
    const loadTokenizer = async (): Promise<Tokenizer> =>
      part.family === 'clip'
        ? await loadClipTokenizer({
            weights: part.path,
            rows: part.config.vocab_size,
            eosId: part.config.eos_token_id,
            ...(options.clipFlavour && { flavour: options.clipFlavour }),
          })
        : await loadT5Tokenizer({
            ...(options.t5Tokenizer !== undefined && { explicitPath: options.t5Tokenizer }),
            ...(model.container === 'gguf' && { metadata: model.metadata }),
            dirs: [model.weightsDir],
            weights: path,
          });
    const device = openDevice(options);
    const weights = new Weights(device, part.tensors, path);
    try {
      const precision = resolvePrecision(options.precision, part, device);
      const network = await device.run(async () =>
        part.family === 'clip' ? clipNetwork(weights, part) : t5Network(weights, part),
      );
      weights.prefetch();
      const encoder = new TextEncoder(part, weights, network, device, precision, options, loadTokenizer);
      // A missing or damaged vocabulary is the first encode's error: ids can be encoded without one.
      if (options.input !== 'ids') await encoder.tokenizer().catch(() => undefined);
      return encoder;
    } catch (error) {
      weights[Symbol.dispose]();
      if (device !== options.device) device.close();
      throw error;
    }
  }

  /** The tokenizer, loaded once. @throws KotobaError ERR_TOKENIZER_* */
  tokenizer(): Promise<Tokenizer> {
    return (this.#tokenizer ??= this.#loadTokenizer());
  }

  get family(): EncoderFamily {
    return FAMILIES[this.part.slot] ?? 'clip-l';
  }

  /** How a prompt is split for this encoder, without running it. */
  async tokenize(prompt: string, options: EncodeOptions = {}): Promise<TokenizedPrompt> {
    const segments = parsePrompt(prompt, options.dialect ?? 'plain');
    const layout = this.#layout(options);
    return await tokenizePromptAsync(await this.tokenizer(), segments, layout, {
      ...(options.signal && { signal: options.signal }),
    });
  }

  /**
   * Encodes one prompt or a batch; a batch shares passes over the weights.
   * @returns a job: await it, or iterate its progress
   * @throws (rejects) KotobaError ERR_CANCELLED, ERR_NON_FINITE, ERR_TOKENIZER_*, ERR_TOKEN_ID
   */
  encode(prompt: string, options?: EncodeOptions): EncodeJob<Encoding>;
  encode(prompts: readonly string[], options?: EncodeOptions): EncodeJob<Encoding[]>;
  encode(prompts: string | readonly string[], options: EncodeOptions = {}): EncodeJob<Encoding | Encoding[]> {
    return new EncodeJob<Encoding | Encoding[]>(async (report) => {
      const list = typeof prompts === 'string' ? [prompts] : prompts;
      if (!Array.isArray(list) || list.some((prompt) => typeof prompt !== 'string'))
        throw new KotobaError(
          'ERR_ARGUMENT',
          'encode: expected a prompt or a list of prompts, all of them text',
        );
      const tokenized: TokenizedPrompt[] = [];
      for (const prompt of list) tokenized.push(await this.tokenize(prompt, options));
      const encodings = await this.#encode(tokenized, options, report);
      return typeof prompts === 'string' ? encodings[0]! : encodings;
    });
  }

  /**
   * The same for prompts that tokenize() gave with the same options: who shows or checks them first need not split
   * them again.
   */
  encodeTokenized(prompts: readonly TokenizedPrompt[], options: EncodeOptions = {}): EncodeJob<Encoding[]> {
    return new EncodeJob((report) => this.#encode(prompts, options, report));
  }

  /** Runs the network on raw token ids: what `kotoba forward` and parity tests need. */
  async encodeTokens(tokens: TokenBatch, wanted?: Wanted, signal?: AbortSignal): Promise<EncodedTokens> {
    if (this.#disposed)
      throw new KotobaError('ERR_DISPOSED', `${this.network.name}: used after it was disposed`);
    requireTokens(tokens, this.network);
    const onLayer = this.#isLean ? this.#forgetting(wanted?.onLayer) : wanted?.onLayer;
    const job = async (): Promise<EncodedTokens> => {
      try {
        return await this.#runner.encode(tokens, { ...wanted, onLayer, signal });
      } finally {
        this.#weights.requireIntact(); // outranks what the missing bytes led to
      }
    };
    return await this.device.run(job, signal);
  }

  /** Layer i is block i − 1's output. */
  #forgetting(onLayer: Wanted['onLayer']): NonNullable<Wanted['onLayer']> {
    return (layer) => {
      if (layer > 0 && !this.#disposed) this.#weights.forget(`${this.network.blocks}.${layer - 1}.`);
      onLayer?.(layer);
    };
  }

  async #encode(
    tokenized: readonly TokenizedPrompt[],
    options: EncodeOptions,
    report: (progress: EncodeProgress) => void,
  ): Promise<Encoding[]> {
    const states = statesWanted(options, this.network.depth);
    const empties =
      weightsOf(options) === 'comfyui'
        ? emptyRows(await this.tokenizer(), tokenized, this.#layout(options))
        : new Map<number, TokenChunk>();
    const work = passes([...tokenized.flatMap((p) => p.chunks), ...empties.values()]);
    const encoded = new Map<TokenChunk, EncodedRow>();
    const total = work.length * this.network.depth;
    for (const [i, pass] of work.entries()) {
      const onLayer = (layer: number) => report({ done: i * this.network.depth + layer, total });
      await this.#runPass(pass, states, onLayer, encoded, options.signal);
    }
    return tokenized.map((prompt) => this.#assemble(prompt, encoded, empties, options));
  }

  async #runPass(
    pass: Pass,
    states: StatesWanted,
    onLayer: (layer: number) => void,
    encoded: Map<TokenChunk, EncodedRow>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { layer, extra, norm } = states;
    const { depth, width } = this.network;
    const out = await this.encodeTokens(
      { ids: pass.ids, batch: pass.rows.length },
      {
        raw: norm === 'none' ? [...extra, layer] : extra,
        normed: layer === depth || norm === 'none' ? [] : [layer],
        onLayer,
      },
      signal,
    );
    const normed = layer === depth ? out.lastHiddenState : out.normed.get(layer);
    const hidden = norm === 'none' ? out.raw.get(layer) : normed;
    const tokens = pass.ids.length / pass.rows.length;
    for (const [row, chunk] of pass.rows.entries()) {
      const hiddenStates = extra.map((i) => [i, slice(out.raw.get(i), row, tokens * width)!] as const);
      encoded.set(chunk, {
        hidden: slice(hidden, row, tokens * width)!,
        pooled: slice(out.pooled, row, width),
        projected: slice(out.projected, row, this.network.projection),
        hiddenStates: new Map(hiddenStates),
      });
    }
  }

  #assemble(
    prompt: TokenizedPrompt,
    encoded: ReadonlyMap<TokenChunk, EncodedRow>,
    empties: ReadonlyMap<number, TokenChunk>,
    options: EncodeOptions,
  ): Encoding {
    const first = encoded.get(prompt.chunks[0]!)!;
    const emptyChunk = empties.get(prompt.chunks[0]!.ids.length);
    const empty = emptyChunk && encoded.get(emptyChunk);
    const hidden = joinRows(prompt, encoded, empty, weightsOf(options));
    const states = [...first.hiddenStates.keys()].map(
      (i) =>
        [i, concatenate(prompt.chunks.map((chunk) => encoded.get(chunk)!.hiddenStates.get(i)!))] as const,
    );
    return {
      prompt,
      tokens: hidden.length / this.network.width,
      width: this.network.width,
      hidden,
      pooled: first.pooled,
      projected: first.projected,
      hiddenStates: new Map(states),
    };
  }

  #layout(options: EncodeOptions): ChunkLayout {
    const positions = this.network.positions;
    const limit = Number.isFinite(positions) ? { minLength: positions, maxLength: positions } : {};
    const rules = options.dialect === 'comfyui' ? { rules: 'comfyui' as const } : {};
    return chunkLayout(this.family, { ...limit, ...rules, ...options.layout });
  }

  /** Waits for nothing: queued work of this encoder is cancelled when it owns its device. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#runner[Symbol.dispose]();
    this.#weights[Symbol.dispose]();
    if (this.#ownsDevice) this.device.close();
  }
}

function slice(values: Float32Array | undefined, index: number, length: number): Float32Array | undefined {
  return values?.subarray(index * length, (index + 1) * length);
}
