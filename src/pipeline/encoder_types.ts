/** What callers give a TextEncoder and get from it. */
import type { Slot } from '../formats/index.js';
import type { DeviceChoice } from './device_choice.js';
import type { Replay } from './encode_runner.js';
import type { Precision } from './precision.js';
import type { ChunkLayout, ClipFlavour, PromptDialect, T5Length, TokenizedPrompt } from '../text/index.js';

export interface LoadOptions extends DeviceChoice {
  /** Which network, where the file holds several. */
  slot?: Slot | undefined;
  /** Default `auto`. */
  precision?: Precision | undefined;
  /** Keys of Hugging Face's config.json that the file does not tell. */
  config?: Readonly<Record<string, unknown>> | undefined;
  /**
   * What will be encoded. `prompts` (default): the tokenizer is loaded with the weights, 0.2 s of the thread, so that
   * encoding never holds it. `ids`: only encodeTokens() will be called, and no tokenizer is needed.
   */
  input?: 'prompts' | 'ids' | undefined;
  /**
   * `keep` (default): the weights stay in memory once they were read. `lean`: each layer gives its pages of the file back
   * once it has run; encoding again reads them again, from the system's cache where memory allows.
   */
  residency?: 'lean' | 'keep' | undefined;
  /**
   * Whether batches of a shape that comes again are recorded and replayed, which spares the thread and a GPU's launches,
   * and keeps the activations' memory: `auto` (default) on GPUs. Never where residency is `lean`.
   */
  replay?: Replay | undefined;
  /** T5: a spiece.model or tokenizer.json, or a folder with one. */
  t5Tokenizer?: string | undefined;
  /** CLIP: whose cleaning of the prompt to follow. */
  clipFlavour?: ClipFlavour | undefined;
}

export interface EncodeOptions {
  signal?: AbortSignal | undefined;
  /** How `(word:1.2)` is read; default `plain`: not at all. */
  dialect?: PromptDialect | undefined;
  /** Whether the dialect's weights are applied (default), or only taken out of the text. */
  weighting?: 'applied' | 'none' | undefined;
  /** Padding, length, truncation, chunks; defaults of the family (chunkLayout). */
  layout?: (Partial<ChunkLayout> & { t5Length?: T5Length }) | undefined;
  /** 1 (default): the last layer's state; 2: the one before, and so on. */
  clipSkip?: number | undefined;
  /** `final` (default): after the final norm; `none`: as the layer left it (SDXL, SD3). */
  norm?: 'final' | 'none' | undefined;
  /** Further raw hidden states to return, 0 = the embedding. */
  hiddenStates?: 'all' | readonly number[] | undefined;
}

/** One prompt's embeddings, F32. */
export interface Encoding {
  readonly prompt: TokenizedPrompt;
  readonly tokens: number;
  readonly width: number;
  /** [tokens, width]: the conditioning, prompt weights applied; chunks one after another */
  readonly hidden: Float32Array;
  /** [width]: CLIP's, at the first end-of-text of the first chunk */
  readonly pooled?: Float32Array | undefined;
  /** [projection]: the same, projected, where the file has a projection */
  readonly projected?: Float32Array | undefined;
  /** The layers asked for, each [tokens, width], before final norm and weights */
  readonly hiddenStates: ReadonlyMap<number, Float32Array>;
}
