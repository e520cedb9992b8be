/** What callers give an ImagePipeline and get from it. */
import type { Picture } from '../image/index.js';
import type { OpPrecision } from '../runtime/ops.js';
import type { PromptDialect, T5Length, ChunkLayout } from '../text/index.js';
import type { DeviceChoice } from './device_choice.js';
import type { Replay } from './encode_runner.js';
import { Job } from './job.js';
import type { Precision } from './precision.js';

/** The text encoders that a pipeline conditions on. */
export type EncoderSlot = 'clip_l' | 't5';

export type PipelinePart = EncoderSlot | 'transformer' | 'vae';

/** A text encoder: which file, and how to run it. */
export interface EncoderChoice {
  /** A file, shard, folder or checkpoint with the encoder in it. */
  readonly path: string;
  /** Default `auto`. */
  readonly precision?: Precision | undefined;
  /** T5: a spiece.model or tokenizer.json, or a folder with one, where the weights have none beside them. */
  readonly tokenizer?: string | undefined;
  /** Keys of Hugging Face's config.json that the file does not tell. */
  readonly config?: Readonly<Record<string, unknown>> | undefined;
}

export type EncoderChoices = Readonly<Record<EncoderSlot, EncoderChoice>>;

/** The files of an image model, one for each part. Several may name the same all-in-one file. */
export interface ImageModel {
  readonly transformer: string;
  readonly vae: string;
  readonly encoders: EncoderChoices;
}

/**
 * Which parts stay loaded between the phases of a request and between requests. `lean`: each part is released as soon
 * as it has done its work, and each of the transformer's blocks gives its pages of the file back once it has run, so that
 * the peak is the largest part at most. `keep`: all stay. `auto`: `keep` if all weights fit
 * into half of the device's memory.
 */
export type Residency = 'auto' | 'lean' | 'keep';

export interface PipelineOptions extends DeviceChoice {
  /** Of the transformer and the autoencoder, or of each. Default `auto`. */
  readonly precision?:
    Precision | Readonly<Partial<Record<'transformer' | 'vae', Precision | undefined>>> | undefined;
  /** Default `auto`. */
  readonly residency?: Residency | undefined;
  /**
   * Whether the denoising step is recorded and replayed, which spares the thread and a GPU's launches: `auto` (default) on
   * GPUs.
   */
  readonly replay?: Replay | undefined;
  /** Keys that the transformer's file does not tell, in the reference's names (`num_heads`, `axes_dim`, …). */
  readonly config?: Readonly<Record<string, unknown>> | undefined;
}

export interface GenerateOptions {
  readonly signal?: AbortSignal | undefined;
  /** Pixels, multiples of 16. Default: what the model was trained on. */
  readonly width?: number | undefined;
  readonly height?: number | undefined;
  /** Default: 4 for schnell, 28 for dev. */
  readonly steps?: number | undefined;
  /** Of the first picture; picture i takes seed + i. 0 … 2^64 − 1; default: random. */
  readonly seed?: number | bigint | undefined;
  /** Pictures of this prompt. Default 1. */
  readonly count?: number | undefined;
  /** A name of SOLVERS. Default `euler`. */
  readonly sampler?: string | undefined;
  /** A name of SCHEDULES, or `flux`: shifted by the picture's size for dev, not at all for schnell (default). */
  readonly schedule?: string | undefined;
  /** Distilled guidance of Flux.1 dev; ignored by schnell. Default 3.5. */
  readonly guidance?: number | undefined;
  /** Classifier-free guidance (arXiv:2207.12598) against the negative prompt. Default 1: none. */
  readonly cfg?: number | undefined;
  readonly negativePrompt?: string | undefined;
  /** Whose random numbers: PyTorch's CPU generator (ComfyUI, BFL) or CUDA's Philox (A1111). Default `torch`. */
  readonly noise?: 'torch' | 'philox' | undefined;
  /** Image-to-image: where to start from; resized and cropped to width × height. */
  readonly image?: Picture | undefined;
  /** How much of `image` to replace, above 0 (nothing) to 1 (everything). Default 0.75. */
  readonly strength?: number | undefined;
  /** Encoders for this request only; the others, and everything else, stay as loaded. */
  readonly encoders?: Partial<Record<EncoderSlot, EncoderChoice>> | undefined;
  /** How `(word:1.2)` is read; default `plain`: not at all. */
  readonly dialect?: PromptDialect | undefined;
  /** T5's padding and length; default: the model's (256 schnell, 512 dev). */
  readonly t5Length?: (Partial<ChunkLayout> & { t5Length?: T5Length }) | undefined;
  /** Side of the autoencoder's tiles, pixels; default 1024. Larger pictures are decoded in overlapping tiles. */
  readonly tile?: number | undefined;
  /** Whether progress carries previews. Default false. */
  readonly preview?: boolean | undefined;
}

/** Where a request is. */
export interface GenerateProgress {
  readonly phase: 'encode' | 'sample' | 'decode';
  /** Of `total`: layers of an encoder, blocks of the transformer over all steps, tiles of the autoencoder. */
  readonly done: number;
  readonly total: number;
  /** For people: "t5", "step 3 of 4". */
  readonly detail: string;
  /** After a step, if asked for: what the first picture of the batch is becoming. */
  readonly preview?: Picture | undefined;
}

/** How one picture was made: everything needed to make it again. */
export interface GeneratedPicture {
  readonly picture: Picture;
  readonly seed: bigint;
}

export interface PhaseSeconds {
  readonly encode: number;
  readonly sample: number;
  readonly decode: number;
}

/** The text conditioning, F32. */
export interface Conditioning {
  /** [vec_in_dim]: CLIP-L, pooled */
  readonly pooled: Float32Array;
  /** [tokens, context_in_dim]: T5's last state */
  readonly hidden: Float32Array;
  readonly tokens: number;
}

/** A prompt as the transformer is given it. */
export interface EncodedPrompt {
  readonly conditioning: Conditioning;
  /** of the negative prompt; with classifier-free guidance only */
  readonly negative?: Conditioning | undefined;
  /** Encodes that were run; the others came from the cache. */
  readonly encodes: number;
}

export interface GenerateResult {
  readonly pictures: readonly GeneratedPicture[];
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly sampler: string;
  readonly schedule: string;
  /** steps + 1 noise levels, as run */
  readonly sigmas: readonly number[];
  /** distilled guidance, where the model has it */
  readonly guidance?: number | undefined;
  readonly cfg: number;
  readonly encoders: EncoderChoices;
  /** What each part ran at. */
  readonly precisions: Readonly<Record<PipelinePart, OpPrecision>>;
  readonly conditioning: Conditioning;
  readonly seconds: PhaseSeconds;
  /** Encodes that this request ran; the others came from the cache. */
  readonly encodes: number;
}

/** A request under way: await it for the pictures, iterate `progress()` for previews. */
export class GenerateJob extends Job<GenerateResult, GenerateProgress> {}

/** A prompt being read ahead. */
export class EncodePromptJob extends Job<EncodedPrompt, GenerateProgress> {}
