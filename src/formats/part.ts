/** What identify() says about one network of a file: which it is, where each of its tensors lies, what is wrong. */
import type { TensorInfo } from './model_file.js';

/** The places a file can fill, as `--slot` and the pipelines name them. */
export type Slot =
  'clip_l' | 'clip_g' | 'clip_b' | 'clip_h' | 'longclip_l' | 't5' | 'transformer' | 'unet' | 'vae';

export const SLOTS: readonly Slot[] = [
  'clip_l',
  'clip_g',
  'clip_b',
  'clip_h',
  'longclip_l',
  't5',
  'transformer',
  'unet',
  'vae',
];

export type Family =
  | 'clip'
  | 't5'
  | 'flux'
  | 'sd1'
  | 'sd2'
  | 'sdxl'
  | 'sd3'
  /** a VAE alone: SD1 and SDXL share every shape, so do Flux and SD3 */
  | 'sd1_or_sdxl'
  | 'flux_or_sd3';

/** Half-open range of rows of the outermost dimension. */
export type Rows = readonly [start: number, end: number];

/** How to make one canonical tensor out of stored ones: slice, then append, then transpose, then scale. */
export interface TensorSource {
  readonly tensor: TensorInfo;
  /** only these rows: a third of a fused in_proj, or the head of a position table */
  readonly rows?: Rows;
  /** rows of a second tensor that follow (Long-CLIP's two position tables) */
  readonly append?: { readonly tensor: TensorInfo; readonly rows: Rows };
  /** stored [in, out] where the canonical tensor is [out, in] */
  readonly transposed?: true;
  /** one value that multiplies every weight (scaled FP8) */
  readonly scale?: TensorInfo;
  /** of the canonical tensor */
  readonly shape: readonly number[];
}

/** Keys as in Hugging Face's config.json. */
export interface ClipConfig {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly max_position_embeddings: number;
  readonly hidden_act: string;
  readonly layer_norm_eps: number;
  readonly bos_token_id: number;
  readonly eos_token_id: number;
  /** absent where the file has no projection */
  readonly projection_dim?: number;
}

/** Keys as in Hugging Face's config.json. */
export interface T5Config {
  readonly vocab_size: number;
  readonly d_model: number;
  readonly d_kv: number;
  readonly d_ff: number;
  readonly num_layers: number;
  readonly num_heads: number;
  readonly relative_attention_num_buckets: number;
  readonly relative_attention_max_distance: number;
  readonly layer_norm_epsilon: number;
  readonly is_gated_act: boolean;
  /** gelu_new (v1.1, Flan) or relu (v1.0) */
  readonly dense_act_fn: string;
}

interface PartBase {
  /** what it most likely is */
  readonly slot: Slot;
  /** every slot it can fill: a Long-CLIP goes where CLIP-L goes */
  readonly fits: readonly Slot[];
  /** the naming scheme, for people */
  readonly naming: string;
  /** for people: "CLIP-L text encoder, OpenAI names, with projection, F16" */
  readonly description: string;
  /** what stands before the scheme's names in this file */
  readonly prefix: string;
  /** file names of the weights, for messages */
  readonly path: string;
  /** canonical (Hugging Face) name → where it is; for diffusion networks the file's own names without the prefix */
  readonly tensors: ReadonlyMap<string, TensorSource>;
  /** file names of tensors that should be there */
  readonly missing: readonly string[];
  /** file names of tensors of this network that nothing uses */
  readonly unexpected: readonly string[];
  /** sentences on wrong shapes, types and scales */
  readonly wrong: readonly string[];
  /** config keys that neither tensors, files nor known models tell: the caller must give them */
  readonly undecided: readonly string[];
  /** remarks that are no errors */
  readonly notes: readonly string[];
  /** bytes and number of stored tensors that a loader reads, scales included */
  readonly bytesRead: number;
  readonly tensorCount: number;
}

export interface ClipPart extends PartBase {
  readonly family: 'clip';
  readonly config: ClipConfig;
}

export interface T5Part extends PartBase {
  readonly family: 't5';
  readonly config: T5Config;
}

export interface DiffusionPart extends PartBase {
  readonly family: Exclude<Family, 'clip' | 't5'>;
  /** what the file's own `__metadata__.config` or a --config says, unchecked */
  readonly config: Readonly<Record<string, unknown>>;
}

export type Part = ClipPart | T5Part | DiffusionPart;

/** Every stored tensor a part reads, once. */
export function usedTensors(tensors: ReadonlyMap<string, TensorSource>): Set<TensorInfo> {
  const used = new Set<TensorInfo>();
  for (const { tensor, append, scale } of tensors.values()) {
    used.add(tensor);
    if (append !== undefined) used.add(append.tensor);
    if (scale !== undefined) used.add(scale);
  }
  return used;
}
