/** The weights of an autoencoder, under the names of Stability AI's and Black Forest Labs' checkpoints. */
import { vaeFactor, type VaeConfig } from '../formats/index.js';
import type { Conv, Linear, Norm } from '../runtime/ops.js';
import type { Weights } from '../runtime/weights.js';

export interface ResnetBlock {
  norm1: Norm;
  conv1: Conv;
  norm2: Norm;
  conv2: Conv;
  /** where the number of channels changes */
  nin_shortcut?: Linear | undefined;
}

export interface AttnBlock {
  norm: Norm;
  q: Linear;
  k: Linear;
  v: Linear;
  proj_out: Linear;
}

export interface Middle {
  block_1: ResnetBlock;
  attn_1: AttnBlock;
  block_2: ResnetBlock;
}

export interface Level {
  block: readonly ResnetBlock[];
  /** the convolution that follows, on half or twice the size; absent at the end */
  resample?: Conv | undefined;
}

/** One direction of the autoencoder: the encoder's levels go down, the decoder's up, both in running order. */
export interface Tower {
  conv_in: Conv;
  levels: readonly Level[];
  mid: Middle;
  norm_out: Norm;
  conv_out: Conv;
  /** SD1, SDXL: quant_conv after the encoder, post_quant_conv before the decoder */
  quant?: Linear | undefined;
}

export interface Vae {
  readonly config: VaeConfig;
  /** Pixels along a side of a latent. */
  readonly factor: number;
}
export interface VaeDecoder extends Vae {
  readonly decoder: Tower;
}
export interface VaeEncoder extends Vae {
  readonly encoder: Tower;
}

/** @throws KotobaError ERR_MODEL_TENSORS */
export function vaeDecoder(w: Weights, config: VaeConfig): VaeDecoder {
  const widths = config.ch_mult.map((multiple) => config.ch * multiple);
  const top = widths.at(-1)!;
  const levels = widths.map((width, i): Level => {
    const inputs = widths[i + 1] ?? top;
    const at = `decoder.up.${i}`;
    return {
      block: Array.from({ length: config.num_res_blocks + 1 }, (_, j) =>
        resnetBlock(w, `${at}.block.${j}`, j === 0 ? inputs : width, width),
      ),
      resample: i > 0 ? w.conv(`${at}.upsample.conv`, width, width, 3) : undefined,
    };
  });
  const decoder: Tower = {
    conv_in: w.conv('decoder.conv_in', top, config.z_channels, 3),
    mid: middle(w, 'decoder.mid', top),
    levels: levels.reverse(),
    norm_out: w.norm('decoder.norm_out', widths[0]!),
    conv_out: w.conv('decoder.conv_out', config.out_ch, widths[0]!, 3),
    quant: config.quant_conv
      ? w.pointwise('post_quant_conv', config.z_channels, config.z_channels)
      : undefined,
  };
  return { config, factor: vaeFactor(config), decoder };
}

/** @throws KotobaError ERR_MODEL_TENSORS */
export function vaeEncoder(w: Weights, config: VaeConfig): VaeEncoder {
  const widths = config.ch_mult.map((multiple) => config.ch * multiple);
  const top = widths.at(-1)!;
  const levels = widths.map((width, i): Level => {
    const inputs = widths[i - 1] ?? config.ch;
    const at = `encoder.down.${i}`;
    return {
      block: Array.from({ length: config.num_res_blocks }, (_, j) =>
        resnetBlock(w, `${at}.block.${j}`, j === 0 ? inputs : width, width),
      ),
      resample: i + 1 < widths.length ? w.conv(`${at}.downsample.conv`, width, width, 3) : undefined,
    };
  });
  const moments = 2 * config.z_channels;
  const encoder: Tower = {
    conv_in: w.conv('encoder.conv_in', config.ch, config.in_channels, 3),
    levels,
    mid: middle(w, 'encoder.mid', top),
    norm_out: w.norm('encoder.norm_out', top),
    conv_out: w.conv('encoder.conv_out', moments, top, 3),
    quant: config.quant_conv ? w.pointwise('quant_conv', moments, moments) : undefined,
  };
  return { config, factor: vaeFactor(config), encoder };
}

function resnetBlock(w: Weights, at: string, inputs: number, outputs: number): ResnetBlock {
  return {
    norm1: w.norm(`${at}.norm1`, inputs),
    conv1: w.conv(`${at}.conv1`, outputs, inputs, 3),
    norm2: w.norm(`${at}.norm2`, outputs),
    conv2: w.conv(`${at}.conv2`, outputs, outputs, 3),
    nin_shortcut: inputs !== outputs ? w.pointwise(`${at}.nin_shortcut`, outputs, inputs) : undefined,
  };
}

function middle(w: Weights, at: string, width: number): Middle {
  const attn = `${at}.attn_1`;
  return {
    block_1: resnetBlock(w, `${at}.block_1`, width, width),
    attn_1: {
      norm: w.norm(`${attn}.norm`, width),
      q: w.pointwise(`${attn}.q`, width, width),
      k: w.pointwise(`${attn}.k`, width, width),
      v: w.pointwise(`${attn}.v`, width, width),
      proj_out: w.pointwise(`${attn}.proj_out`, width, width),
    },
    block_2: resnetBlock(w, `${at}.block_2`, width, width),
  };
}
