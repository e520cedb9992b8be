/**
 * Denoisers and VAEs: how each is recognised and described, so that `inspect` can name every file. They are then read
 * under canonical names (flux.ts, unet.ts, mmdit.ts, vae.ts).
 */
import type { Family, Slot, VaeHalf } from '../part.js';

/** Looks up a tensor's shape by its name after the prefix. */
export type ShapeOf = (name: string) => readonly number[] | undefined;

type Count = (pattern: RegExp) => number;

interface SchemeBase {
  readonly slot: Slot;
  /** for people */
  readonly naming: string;
  /** all of these must be there; the first one finds the prefix */
  readonly anchors: readonly string[];
  /** a tensor of another scheme, which then takes the network */
  readonly unless?: string;
  /** the network's tensors, by their name after the prefix */
  readonly members: RegExp;
}

/** By which of its two namings a network is stored. */
export interface CheckedScheme<F extends Family> extends SchemeBase {
  readonly names: 'original' | 'diffusers';
  describe(shapeOf: ShapeOf, count: Count): { family: F; title: string };
}

export type FluxScheme = CheckedScheme<'flux'> & { readonly network: 'flux' };
export type VaeScheme = CheckedScheme<'sd1_or_sdxl' | 'flux_or_sd3'> & { readonly network: 'vae' };

export type UnetScheme = CheckedScheme<'sd1' | 'sd2' | 'sdxl'> & { readonly network: 'unet' };
export type MmditScheme = CheckedScheme<'sd3'> & { readonly network: 'mmdit' };

export type DiffusionScheme = FluxScheme | UnetScheme | MmditScheme | VaeScheme;

const isDefined = (value: unknown): boolean => value !== undefined;

function fluxTitle(guidance: boolean, double: number, single: number): string {
  return `Flux.1 ${guidance ? 'dev' : 'schnell'} transformer (${double} double and ${single} single blocks)`;
}

const flux: FluxScheme = {
  network: 'flux',
  names: 'original',
  slot: 'transformer',
  naming: 'Black Forest Labs names',
  anchors: ['double_blocks.0.img_attn.qkv.weight', 'single_blocks.0.linear1.weight', 'img_in.weight'],
  members: /^(img_in|txt_in|time_in|vector_in|guidance_in|double_blocks|single_blocks|final_layer)\./,
  describe: (shapeOf, count) => ({
    family: 'flux',
    title: fluxTitle(
      isDefined(shapeOf('guidance_in.in_layer.weight')),
      count(/^double_blocks\.(\d+)\./),
      count(/^single_blocks\.(\d+)\./),
    ),
  }),
};

const fluxDiffusers: FluxScheme = {
  network: 'flux',
  names: 'diffusers',
  slot: 'transformer',
  naming: 'diffusers names',
  anchors: [
    'single_transformer_blocks.0.attn.to_q.weight',
    'transformer_blocks.0.attn.add_q_proj.weight',
    'x_embedder.weight',
  ],
  members:
    /^(x_embedder|context_embedder|time_text_embed|transformer_blocks|single_transformer_blocks|norm_out|proj_out)\./,
  describe: (shapeOf, count) => ({
    family: 'flux',
    title: fluxTitle(
      isDefined(shapeOf('time_text_embed.guidance_embedder.linear_1.weight')),
      count(/^transformer_blocks\.(\d+)\./),
      count(/^single_transformer_blocks\.(\d+)\./),
    ),
  }),
};

function sd3Title(hidden: number | undefined, qkNorm: boolean, dual: boolean, blocks: number): string {
  const name = !qkNorm ? 'SD3 Medium' : dual ? 'SD3.5 Medium' : 'SD3.5 Large';
  return `${name} transformer (MMDiT, ${blocks} blocks of width ${hidden ?? '?'})`;
}

const mmdit: MmditScheme = {
  network: 'mmdit',
  names: 'original',
  slot: 'transformer',
  naming: 'Stability AI names',
  anchors: ['joint_blocks.0.x_block.attn.qkv.weight', 'x_embedder.proj.weight', 'context_embedder.weight'],
  members:
    /^(pos_embed$|(x_embedder|t_embedder|y_embedder|context_embedder|joint_blocks|final_layer|register)\b)/,
  describe: (shapeOf, count) => ({
    family: 'sd3',
    title: sd3Title(
      shapeOf('x_embedder.proj.weight')?.[0],
      isDefined(shapeOf('joint_blocks.0.x_block.attn.ln_q.weight')),
      isDefined(shapeOf('joint_blocks.0.x_block.attn2.qkv.weight')),
      count(/^joint_blocks\.(\d+)\./),
    ),
  }),
};

const mmditDiffusers: MmditScheme = {
  network: 'mmdit',
  names: 'diffusers',
  slot: 'transformer',
  naming: 'diffusers names',
  anchors: [
    'transformer_blocks.0.attn.add_q_proj.weight',
    'pos_embed.proj.weight',
    'context_embedder.weight',
  ],
  members: /^(pos_embed|time_text_embed|context_embedder|transformer_blocks|norm_out|proj_out)\./,
  describe: (shapeOf, count) => ({
    family: 'sd3',
    title: sd3Title(
      shapeOf('pos_embed.proj.weight')?.[0],
      isDefined(shapeOf('transformer_blocks.0.attn.norm_q.weight')),
      isDefined(shapeOf('transformer_blocks.0.attn2.to_q.weight')),
      count(/^transformer_blocks\.(\d+)\./),
    ),
  }),
};

/** SD1 attends to 768 wide tokens, SD2 to 1024; SDXL adds a vector of sizes. */
function unetKind(
  isXl: boolean,
  contextWidth: number | undefined,
  inputs: number | undefined,
): { family: 'sd1' | 'sd2' | 'sdxl'; title: string } {
  const family = isXl ? 'sdxl' : contextWidth === 1024 ? 'sd2' : 'sd1';
  const name = { sd1: 'SD1', sd2: 'SD2', sdxl: 'SDXL' }[family];
  return { family, title: `${name} UNet${inputs === 9 ? ' (inpainting)' : ''}` };
}

const unet: UnetScheme = {
  network: 'unet',
  names: 'original',
  slot: 'unet',
  naming: 'Stability AI names',
  anchors: [
    'input_blocks.0.0.weight',
    'time_embed.0.weight',
    'middle_block.0.in_layers.0.weight',
    'out.2.weight',
  ],
  members: /^(time_embed|label_emb|input_blocks|middle_block|output_blocks|out)\./,
  describe: (shapeOf) =>
    unetKind(
      isDefined(shapeOf('label_emb.0.0.weight')),
      shapeOf('middle_block.1.transformer_blocks.0.attn2.to_k.weight')?.[1],
      shapeOf('input_blocks.0.0.weight')?.[1],
    ),
};

const unetDiffusers: UnetScheme = {
  network: 'unet',
  names: 'diffusers',
  slot: 'unet',
  naming: 'diffusers names',
  anchors: [
    'down_blocks.0.resnets.0.conv1.weight',
    'time_embedding.linear_1.weight',
    'conv_in.weight',
    'mid_block.resnets.0.conv1.weight',
  ],
  members: /^(conv_in|conv_norm_out|conv_out|time_embedding|add_embedding|down_blocks|mid_block|up_blocks)\./,
  describe: (shapeOf) =>
    unetKind(
      isDefined(shapeOf('add_embedding.linear_1.weight')),
      shapeOf('mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight')?.[1],
      shapeOf('conv_in.weight')?.[1],
    ),
};

/** Only the VAEs of SD1, SD2 and SDXL have convolutions around the latent; the latent's channels are no proof. */
function vaeKind(shapeOf: ShapeOf): { family: 'sd1_or_sdxl' | 'flux_or_sd3'; title: string } {
  const ofEncoder = shapeOf('encoder.conv_out.weight')?.[0];
  const latent = shapeOf('decoder.conv_in.weight')?.[1] ?? (ofEncoder === undefined ? '?' : ofEncoder / 2);
  const channels = `${latent} latent channels`;
  return isDefined(shapeOf('post_quant_conv.weight')) || isDefined(shapeOf('quant_conv.weight'))
    ? { family: 'sd1_or_sdxl', title: `SD1 / SDXL VAE (${channels})` }
    : { family: 'flux_or_sd3', title: `Flux / SD3 VAE (${channels})` };
}

const kVaeMembers = /^((en|de)coder\.(conv_in|conv_out|norm_out|mid|down|up)\.|(post_)?quant_conv\.)/;
const kVaeDiffusersMembers =
  /^((en|de)coder\.(conv_in|conv_out|conv_norm_out|mid_block|down_blocks|up_blocks)\.|(post_)?quant_conv\.)/;

/** Found by its decoder, or, where the file holds none, by its encoder. */
function vaeSchemes(names: VaeScheme['names'], anchor: string, members: RegExp): VaeScheme[] {
  const naming = names === 'original' ? 'Stability AI names' : 'diffusers names';
  const rest = { network: 'vae', slot: 'vae', naming, members, names, describe: vaeKind } as const;
  const anchors = (half: VaeHalf): string[] =>
    [anchor, 'conv_in.weight', 'conv_out.weight'].map((name) => `${half}.${name}`);
  return [
    { ...rest, anchors: anchors('decoder') },
    { ...rest, anchors: anchors('encoder'), unless: `decoder.${anchor}` },
  ];
}

export const diffusionSchemes: readonly DiffusionScheme[] = [
  flux,
  fluxDiffusers,
  mmdit,
  mmditDiffusers,
  unet,
  unetDiffusers,
  ...vaeSchemes('original', 'mid.block_1.norm1.weight', kVaeMembers),
  ...vaeSchemes('diffusers', 'mid_block.resnets.0.conv1.weight', kVaeDiffusersMembers),
];
