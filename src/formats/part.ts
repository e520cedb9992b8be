/** What identify() says about one network of a file: which it is, where each of its tensors lies, what is wrong. */
import type { TensorInfo } from './model_file.js';
import type { UnetLayout } from './names/unet.js';

/** The places a file can fill, as `--slot` and the pipelines name them. */
export type Slot = ClipSlot | 't5' | 'transformer' | 'unet' | 'vae';
export type ClipSlot = 'clip_l' | 'clip_g' | 'clip_b' | 'clip_h' | 'longclip_l';

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

/** Rows of one stored tensor. */
export interface Piece {
  readonly tensor: TensorInfo;
  /** only these: a third of a fused in_proj, or the head of a position table */
  readonly rows?: Rows;
  /** one value that multiplies every weight (scaled FP8) */
  readonly scale?: TensorInfo;
}

/** How to make one canonical tensor out of stored ones: scale each piece, join their rows, then transpose. */
export interface TensorSource extends Piece {
  /** pieces that follow: k and v of a fused qkv, the other half of swapped rows, Long-CLIP's second position table */
  readonly append?: readonly Piece[];
  /** stored [in, out] where the canonical tensor is [out, in] */
  readonly transposed?: true;
  /** of the canonical tensor; a 1×1 convolution may be stored as a matrix of the same elements */
  readonly shape: readonly number[];
}

/** All pieces of a source, first to last. */
export const piecesOf = (source: TensorSource): readonly Piece[] => [source, ...(source.append ?? [])];

/**
 * Rows [start, end) of a canonical tensor that is not transposed: of each piece what lies among them.
 * @param range within source.shape[0]
 */
export function rowsOf(source: TensorSource, [start, end]: Rows): TensorSource {
  const pieces: Piece[] = [];
  let at = 0;
  for (const { tensor, rows = [0, tensor.shape[0] ?? 1], scale } of piecesOf(source)) {
    const from = Math.max(start - at, 0) + rows[0];
    const to = Math.min(end - at, rows[1] - rows[0]) + rows[0];
    if (from < to) pieces.push({ tensor, rows: [from, to], ...(scale && { scale }) });
    at += rows[1] - rows[0];
  }
  const [first, ...append] = pieces;
  const shape = [end - start, ...source.shape.slice(1)];
  return { ...first!, ...(append.length > 0 && { append }), shape };
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

/** Keys as in Black Forest Labs' code. */
export interface FluxConfig {
  readonly in_channels: number;
  readonly out_channels: number;
  readonly vec_in_dim: number;
  readonly context_in_dim: number;
  readonly hidden_size: number;
  /** width of the MLPs / hidden_size: round their product */
  readonly mlp_ratio: number;
  readonly num_heads: number;
  readonly depth: number;
  readonly depth_single_blocks: number;
  /** how a head's width is shared among the axes of a position: index, row, column */
  readonly axes_dim: readonly number[];
  readonly theta: number;
  readonly qkv_bias: boolean;
  readonly guidance_embed: boolean;
  /** T5 tokens it was trained with, where the file says so */
  readonly max_sequence_length?: number;
}

/** Keys as in the LDM's code, where it has them. */
export interface UnetConfig {
  /** 4 latents; 9 where a mask and a masked picture join them (inpainting) */
  readonly in_channels: number;
  readonly out_channels: number;
  /** channels of the first convolution */
  readonly model_channels: number;
  /** channels of every level, finest first */
  readonly widths: readonly number[];
  /** width of the tokens that are attended to */
  readonly context_dim: number;
  /** width of the vector of sizes and pooled text; 0: none */
  readonly adm_in_channels: number;
  /** attention heads of every level, finest first */
  readonly heads: readonly number[];
  readonly layout: UnetLayout;
  /** what it predicts: the noise, or the velocity of arXiv:2202.00512 */
  readonly prediction: 'eps' | 'v';
  /** whether its last step is pure noise (arXiv:2305.08891) */
  readonly zero_terminal_snr: boolean;
}

/** Keys as in Stability AI's code, where it has them. */
export interface MmditConfig {
  readonly in_channels: number;
  readonly patch_size: number;
  readonly hidden_size: number;
  readonly num_heads: number;
  readonly depth: number;
  /** width of the MLPs / hidden_size */
  readonly mlp_ratio: number;
  readonly context_dim: number;
  /** width of the pooled texts */
  readonly adm_in_channels: number;
  /** side of the table of positions, patches */
  readonly pos_embed_max_size: number;
  readonly qk_norm: boolean;
  readonly x_block_self_attn_layers: readonly number[];
}

/** Keys as in the LDM and Black Forest Labs' code. */
export interface VaeConfig {
  readonly ch: number;
  /** channels of each level / ch, finest level first */
  readonly ch_mult: readonly number[];
  readonly num_res_blocks: number;
  /** latent channels */
  readonly z_channels: number;
  readonly in_channels: number;
  readonly out_ch: number;
  readonly num_groups: number;
  /** whether 1×1 convolutions stand around the latent */
  readonly quant_conv: boolean;
  /** latent = (mean − shift_factor) · scale_factor */
  readonly scale_factor: number;
  readonly shift_factor: number;
  /** side of the pictures it was trained with, pixels, where the file says so */
  readonly resolution?: number;
}

export type VaeHalf = 'encoder' | 'decoder';

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
  /** canonical name → where it is: Hugging Face's names of encoders, those of the original code of the others */
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
  readonly slot: ClipSlot;
  readonly config: ClipConfig;
}

export interface T5Part extends PartBase {
  readonly family: 't5';
  readonly slot: 't5';
  readonly config: T5Config;
}

export interface FluxPart extends PartBase {
  readonly family: 'flux';
  readonly slot: 'transformer';
  readonly config: FluxConfig;
}

export interface VaePart extends PartBase {
  readonly family: Exclude<Family, 'clip' | 't5'>;
  readonly slot: 'vae';
  readonly config: VaeConfig;
  /** which halves the file holds */
  readonly halves: readonly VaeHalf[];
  /** `assumed`: neither file nor a denoiser beside it told scale_factor and shift_factor; see vaeOfFamily() */
  readonly factors: 'told' | 'assumed';
}

export interface UnetPart extends PartBase {
  readonly family: 'sd1' | 'sd2' | 'sdxl';
  readonly slot: 'unet';
  readonly config: UnetConfig;
}

export interface MmditPart extends PartBase {
  readonly family: 'sd3';
  readonly slot: 'transformer';
  readonly config: MmditConfig;
}

/** The network that pictures are sampled from: a UNet (SD1, SD2, SDXL), an MMDiT (SD3, SD3.5) or a Flux transformer. */
export type DenoiserPart = UnetPart | MmditPart | FluxPart;
export type DiffusionPart = DenoiserPart | VaePart;
export type Part = ClipPart | T5Part | DiffusionPart;

export const isDenoiser = (part: Part): part is DenoiserPart =>
  part.slot === 'unet' || part.slot === 'transformer';

/** Pixels along a side of a latent. */
export const vaeFactor = ({ ch_mult }: Pick<VaeConfig, 'ch_mult'>): number => 2 ** (ch_mult.length - 1);

/** Every stored tensor a part reads, once. */
export function usedTensors(tensors: ReadonlyMap<string, TensorSource>): Set<TensorInfo> {
  const used = new Set<TensorInfo>();
  for (const source of tensors.values())
    for (const { tensor, scale } of piecesOf(source)) {
      used.add(tensor);
      if (scale !== undefined) used.add(scale);
    }
  return used;
}
