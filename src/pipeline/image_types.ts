/** What callers give an ImagePipeline and get from it. */
import type { Slot } from '../formats/index.js';
import type { Picture } from '../image/index.js';
import type { OpPrecision } from '../runtime/ops.js';
import type { PromptDialect, T5Length, ChunkLayout } from '../text/index.js';
import type { DeviceChoice } from './device_choice.js';
import type { Replay } from './encode_runner.js';
import { Job } from './job.js';
import type { Precision } from './precision.js';

/** The text encoders that pipelines condition on; which of them is the family's matter. */
export const ENCODER_SLOTS = ['clip_l', 'clip_g', 'clip_h', 't5'] as const satisfies readonly Slot[];
export type EncoderSlot = (typeof ENCODER_SLOTS)[number];

export type { DenoiserPart } from '../formats/index.js';

export type PipelinePart = EncoderSlot | 'denoiser' | 'vae';

/** What each part runs at; encoders where the model has them. */
export type Precisions = Readonly<
  Record<'denoiser' | 'vae', OpPrecision> & Partial<Record<EncoderSlot, OpPrecision>>
>;

/**
 * Whose rules a prompt is read by: lengths, padding, chunks, weights, what an empty negative prompt is, and which noise a
 * seed stands for. `bfl`: Black Forest Labs' and Stability AI's own code.
 */
export const PROFILES = ['bfl', 'comfy', 'a1111', 'diffusers'] as const;
export type Profile = (typeof PROFILES)[number];

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

/** Those of the family: SD1 clip_l; SD2 clip_h; SDXL clip_l and clip_g; SD3 both and, if wanted, t5; Flux clip_l and t5. */
export type EncoderChoices = Readonly<Partial<Record<EncoderSlot, EncoderChoice>>>;

/** Encoders in the place of a model's own; `none` leaves one out that the model can do without. */
export type ReplacedEncoders = Readonly<Partial<Record<EncoderSlot, EncoderChoice | 'none'>>>;

/** The files of an image model, one for each part. Several may name the same all-in-one file. */
export interface ImageModel {
  /** a UNet, an MMDiT or a Flux transformer, or a checkpoint with one in it */
  readonly denoiser: string;
  readonly vae: string;
  readonly encoders: EncoderChoices;
}

/**
 * Which parts stay loaded between the phases of a request and between requests. `lean`: each part is released as soon
 * as it has done its work, and each of the denoiser's blocks gives its pages of the file back once it has run, so that
 * the peak is the largest part at most. `keep`: all stay. `auto`: `keep` if all weights fit
 * into half of the device's memory.
 */
export type Residency = 'auto' | 'lean' | 'keep';

export interface PipelineOptions extends DeviceChoice {
  /** Of the denoiser and the autoencoder, or of each. Default `auto`. */
  readonly precision?:
    Precision | Readonly<Partial<Record<'denoiser' | 'vae', Precision | undefined>>> | undefined;
  /** Default `auto`. */
  readonly residency?: Residency | undefined;
  /**
   * Whether the denoising step is recorded and replayed, which spares the thread and a GPU's launches: `auto` (default) on
   * GPUs.
   */
  readonly replay?: Replay | undefined;
  /** Keys that the denoiser's file does not tell, in the reference's names (`num_heads`, `axes_dim`, …). */
  readonly config?: Readonly<Record<string, unknown>> | undefined;
}

export interface GenerateOptions {
  readonly signal?: AbortSignal | undefined;
  /** Pixels, multiples of 16 (UNets: of 64). Default: what the model was trained on. */
  readonly width?: number | undefined;
  readonly height?: number | undefined;
  /** Whose rules the prompt is read by. Default: `bfl` for Flux, else `comfy`. */
  readonly profile?: Profile | undefined;
  /** How a distilled model wants to be sampled: a name of PRESETS. Default: by the file's name. */
  readonly preset?: string | undefined;
  /** Default: the preset's. */
  readonly steps?: number | undefined;
  /** Of the first picture; picture i takes seed + i. 0 … 2^64 − 1; default: random. */
  readonly seed?: number | bigint | undefined;
  /** Pictures of this prompt. Default 1. */
  readonly count?: number | undefined;
  /** A name of SOLVERS. Default: the preset's. */
  readonly sampler?: string | undefined;
  /** A name of SCHEDULES. Default: the preset's; Flux's is shifted by the picture's size for dev, not at all for schnell. */
  readonly schedule?: string | undefined;
  /** Of the noise levels of SD3 (default 3) and Flux (default: by the picture's size): how much time is spent at high noise. */
  readonly shift?: number | undefined;
  /** Distilled guidance of Flux.1 dev; ignored by the others. Default 3.5. */
  readonly guidance?: number | undefined;
  /** Classifier-free guidance (arXiv:2207.12598) against the negative prompt; 1: none. Default: the preset's. */
  readonly cfg?: number | undefined;
  readonly negativePrompt?: string | undefined;
  /** Skip-layer guidance of SD3.5 Medium, beside `cfg`. Default: none. */
  readonly skipLayers?: SkipLayers | undefined;
  /** Which CLIP state is the conditioning, as A1111 counts: 1 is the last layer's. Default: what the family was trained on. */
  readonly clipSkip?: number | undefined;
  /** Whose random numbers: PyTorch's CPU generator (ComfyUI, BFL) or CUDA's Philox (A1111). Default: the profile's. */
  readonly noise?: 'torch' | 'philox' | undefined;
  /** Image-to-image: where to start from; resized and cropped to width × height. */
  readonly image?: Picture | undefined;
  /** Where to paint: white anew, black kept, greys between; resized and cropped as `image`. Default: everywhere. */
  readonly mask?: Picture | undefined;
  /** How much of `image` to replace, above 0 (nothing) to 1 (everything). Default 0.75; for inpainting models 1. */
  readonly strength?: number | undefined;
  /** Encoders for this request only; the others, and everything else, stay as loaded. */
  readonly encoders?: ReplacedEncoders | undefined;
  /** How `(word:1.2)` is read; default: the profile's, `plain` (not at all) for bfl and diffusers. */
  readonly dialect?: PromptDialect | undefined;
  /** T5's padding and length; default: the profile's. */
  readonly t5Length?: (Partial<ChunkLayout> & { t5Length?: T5Length }) | undefined;
  /** Side of the autoencoder's tiles, pixels; default 1024. Larger pictures are decoded in overlapping tiles. */
  readonly tile?: number | undefined;
  /** Whether progress carries previews. Default false. */
  readonly preview?: boolean | undefined;
}

/** arXiv:2403.03206's followers leave layers out to see what they do: guidance away from that. */
export interface SkipLayers {
  /** Default 2.5. 0: none. */
  readonly scale?: number | undefined;
  /** Blocks left out. Default 7, 8, 9. */
  readonly layers?: readonly number[] | undefined;
  /** Shares of the sampling between which it is on. Default 0.01 and 0.2. */
  readonly start?: number | undefined;
  readonly end?: number | undefined;
}

/** Where a request is. */
export interface GenerateProgress {
  readonly phase: 'encode' | 'sample' | 'decode';
  /** Of `total`: layers of an encoder, blocks of the denoiser over all steps, tiles of the autoencoder. */
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
  /** [tokens, width]: what the denoiser attends to */
  readonly hidden: Float32Array;
  readonly tokens: number;
  /** [width]: what modulates it; SD1 and SD2 have none */
  readonly pooled?: Float32Array | undefined;
  /** What each encoder gave, to compare encoders by: its states, or CLIP-L's pooled one where no more of it is used. */
  readonly states: Readonly<Partial<Record<EncoderSlot, EncoderStates>>>;
  /** Tokens of the prompt that had no effect, of encoders that take no more; those not named lost none. */
  readonly truncated?: Readonly<Partial<Record<EncoderSlot, number>>> | undefined;
}

/** F32. */
export interface EncoderStates {
  /** [rows, width] */
  readonly values: Float32Array;
  readonly width: number;
}

/** A prompt as the denoiser is given it. */
export interface EncodedPrompt {
  readonly conditioning: Conditioning;
  /** of the negative prompt; with classifier-free guidance only */
  readonly negative?: Conditioning | undefined;
  /** Encodes that were run; the others came from the cache. */
  readonly encodes: number;
}

/** How pictures were made. */
export interface RunSettings {
  readonly width: number;
  readonly height: number;
  readonly profile: Profile;
  readonly preset: string;
  readonly steps: number;
  readonly sampler: string;
  readonly schedule: string;
  /** steps + 1 noise levels, as run */
  readonly sigmas: readonly number[];
  /** distilled guidance, where the model has it */
  readonly guidance?: number | undefined;
  readonly cfg: number;
  readonly noise: 'torch' | 'philox';
  /** of a picture to start from */
  readonly strength?: number | undefined;
}

export interface GenerateResult extends RunSettings {
  readonly pictures: readonly GeneratedPicture[];
  readonly encoders: EncoderChoices;
  readonly precisions: Precisions;
  readonly conditioning: Conditioning;
  readonly seconds: PhaseSeconds;
  /** Encodes that this request ran; the others came from the cache. */
  readonly encodes: number;
}

/** A request under way: await it for the pictures, iterate `progress()` for previews. */
export class GenerateJob extends Job<GenerateResult, GenerateProgress> {}

/** A prompt being read ahead. */
export class EncodePromptJob extends Job<EncodedPrompt, GenerateProgress> {}
