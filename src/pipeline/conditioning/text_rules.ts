/**
 * What each family of image models is conditioned on: which state of which text encoder, and how they are joined. These
 * are facts of the models' training, the same in every program; what programs differ in is in profiles.ts.
 *
 * | family  | attended to                            | modulates                       | source                                   |
 * |---------|----------------------------------------|---------------------------------|------------------------------------------|
 * | SD1     | CLIP-L, last state                     |                                 | CompVis/stable-diffusion v1-inference    |
 * | SD2     | CLIP-H, last but one, final norm       |                                 | Stability-AI/stablediffusion v2-inference |
 * | SDXL    | CLIP-L ⊕ CLIP-G, last but one, no norm | CLIP-G projected                | generative-models sd_xl_base.yaml        |
 * | refiner | CLIP-G, last but one, no norm          | CLIP-G projected                | generative-models sd_xl_refiner.yaml     |
 * | SD3     | (CLIP-L ⊕ CLIP-G ⊕ zeros), then T5     | CLIP-L pooled ⊕ CLIP-G projected | sd3.5 sd3_infer.py get_cond              |
 * | Flux    | T5                                     | CLIP-L pooled                   | flux conditioner.py                      |
 *
 * ⊕ joins widths, "then" joins tokens.
 */
import type { DenoiserPart, EncoderSlot } from '../image_types.js';

export type TextFamily = 'sd1' | 'sd2' | 'sdxl' | 'sdxl_refiner' | 'sd3' | 'flux';
export type ClipEncoderSlot = Exclude<EncoderSlot, 't5'>;

/** How one CLIP is read. */
export interface ClipRules {
  readonly slot: ClipEncoderSlot;
  /** What fills a chunk after its end of text: OpenAI's CLIP was used with that token again, LAION's with token 0. */
  readonly padId: 0 | 'eos';
  /** Which state, as A1111 counts: 1 is the last layer's. */
  readonly clipSkip: number;
  /** Whether CLIP's final norm follows, also after an earlier layer. */
  readonly norm: 'final' | 'none';
  /** Layers of files that were saved without the last one, as nothing reads it. */
  readonly layersWithoutLast?: number;
}

/** A vector of one CLIP at the end of its first chunk. */
export interface PooledRules {
  readonly slot: ClipEncoderSlot;
  /** `pooled`: after the final norm; `projected`: multiplied by the file's text_projection, too. */
  readonly kind: 'pooled' | 'projected';
}

export interface TextRules {
  /** for messages */
  readonly title: string;
  /** In order of their columns. */
  readonly clips: readonly ClipRules[];
  readonly t5: 'none' | 'optional' | 'required';
  /** Whether the CLIPs' states are attended to, or only their pooled vectors are used. */
  readonly attendsClip: boolean;
  /** In order of their columns; none: nothing modulates but the time. */
  readonly pooled: readonly PooledRules[];
}

const lastOfL: ClipRules = { slot: 'clip_l', padId: 'eos', clipSkip: 1, norm: 'final' };
const penultimateOfL: ClipRules = { slot: 'clip_l', padId: 'eos', clipSkip: 2, norm: 'none' };
const penultimateOfG: ClipRules = { slot: 'clip_g', padId: 0, clipSkip: 2, norm: 'none' };
/** diffusers' folders of SD2 hold 23 of ViT-H's 24 layers. */
const penultimateOfH: ClipRules = {
  slot: 'clip_h',
  padId: 0,
  clipSkip: 2,
  norm: 'final',
  layersWithoutLast: 23,
};
const pooledOfL: PooledRules = { slot: 'clip_l', kind: 'pooled' };
const projectedOfG: PooledRules = { slot: 'clip_g', kind: 'projected' };

export const TEXT_RULES: Readonly<Record<TextFamily, TextRules>> = {
  sd1: { title: 'SD1', clips: [lastOfL], t5: 'none', attendsClip: true, pooled: [] },
  sd2: { title: 'SD2', clips: [penultimateOfH], t5: 'none', attendsClip: true, pooled: [] },
  sdxl: {
    title: 'SDXL',
    clips: [penultimateOfL, penultimateOfG],
    t5: 'none',
    attendsClip: true,
    pooled: [projectedOfG],
  },
  sdxl_refiner: {
    title: 'the SDXL refiner',
    clips: [penultimateOfG],
    t5: 'none',
    attendsClip: true,
    pooled: [projectedOfG],
  },
  sd3: {
    title: 'SD3',
    clips: [penultimateOfL, penultimateOfG],
    t5: 'optional',
    attendsClip: true,
    pooled: [pooledOfL, projectedOfG],
  },
  flux: { title: 'Flux.1', clips: [lastOfL], t5: 'required', attendsClip: false, pooled: [pooledOfL] },
};

/** Columns of the sinusoids of one number beside the pooled text. */
export const SINUSOIDS = 256;
/** Numbers that SDXL is told: sizes of original, crop and target; the refiner has a score in the target's place. */
const NUMBERS = { sdxl: 6, sdxl_refiner: 5 } as const;

/** Columns of a UNet's vector that are text; 0 without one. */
export function textColumns(family: TextFamily, admInChannels: number): number {
  if (family !== 'sdxl' && family !== 'sdxl_refiner') return admInChannels;
  return admInChannels - NUMBERS[family] * SINUSOIDS;
}

/** The refiner shows by its shapes: it attends to what fills its vector beside five numbers, CLIP-G alone. */
export function textFamily({ family, config }: DenoiserPart): TextFamily {
  if (family !== 'sdxl') return family;
  const isRefiner = config.context_dim === textColumns('sdxl_refiner', config.adm_in_channels);
  return isRefiner ? 'sdxl_refiner' : 'sdxl';
}
