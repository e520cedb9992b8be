/**
 * The autoencoder of latent diffusion (arXiv:2112.10752; Flux, SD3, SDXL and SD1 differ in sizes): residual blocks of
 * group norm, SiLU and 3×3 convolutions, one single-headed attention in the middle. Images are rows of pixels
 * [batch · height · width, channels] throughout. Reference: black-forest-labs/flux, modules/autoencoder.py.
 */
import type { Conv, ImageSize, Norm, Ops } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type { AttnBlock, Middle, ResnetBlock, Tower, VaeDecoder, VaeEncoder } from './vae_model.js';

const EPS = 1e-6;

/** What a stage has left: an image as rows of pixels. Borrowed. */
export interface VaeStage {
  /** as in the checkpoint: "up.1.block.0" */
  readonly name: string;
  readonly image: Tensor;
  readonly size: ImageSize;
}

/** An image that a stage hands to the next, which takes it over. */
interface Image {
  readonly pixels: Tensor;
  readonly size: ImageSize;
}

/**
 * @param z    [batch · height · width, z_channels]: latents as the decoder wants them, scale and shift undone
 * @param size of the latents
 * @returns [batch · factor · height · factor · width, out_ch], −1 … 1 where the picture is in range; the caller's
 */
export function* decodeStages(
  ops: Ops,
  vae: VaeDecoder,
  z: Tensor,
  size: ImageSize,
): Generator<VaeStage, Tensor> {
  const { decoder, config } = vae;
  let image: Image = { pixels: convInput(ops, decoder, z, size), size };
  const groups = config.num_groups;
  try {
    yield stage('conv_in', image);
    yield* runMiddle(ops, decoder.mid, image, groups, (next) => (image = next));
    for (const [i, level] of decoder.levels.entries()) {
      const at = `up.${decoder.levels.length - 1 - i}`;
      for (const [j, block] of level.block.entries()) {
        image = replace(image, resnet(ops, block, image, groups));
        yield stage(`${at}.block.${j}`, image);
      }
      if (!level.resample) continue;
      image = replace(image, upsample(ops, level.resample, image));
      yield stage(`${at}.upsample`, image);
    }
    return output(ops, decoder, image, groups);
  } finally {
    image.pixels.dispose();
  }
}

/**
 * @param pixels [batch · height · width, in_channels], −1 … 1; height and width multiples of the factor
 * @returns [batch · latentHeight · latentWidth, 2 · z_channels]: means, then log variances; the caller's
 */
export function* encodeStages(
  ops: Ops,
  vae: VaeEncoder,
  pixels: Tensor,
  size: ImageSize,
): Generator<VaeStage, Tensor> {
  const { encoder, config } = vae;
  let image: Image = { pixels: ops.conv2d(pixels, encoder.conv_in, size), size };
  const groups = config.num_groups;
  try {
    yield stage('conv_in', image);
    for (const [i, level] of encoder.levels.entries()) {
      for (const [j, block] of level.block.entries()) {
        image = replace(image, resnet(ops, block, image, groups));
        yield stage(`down.${i}.block.${j}`, image);
      }
      if (!level.resample) continue;
      image = replace(image, downsample(ops, level.resample, image));
      yield stage(`down.${i}.downsample`, image);
    }
    yield* runMiddle(ops, encoder.mid, image, groups, (next) => (image = next));
    if (!encoder.quant) return output(ops, encoder, image, groups);
    using moments = output(ops, encoder, image, groups);
    return ops.linear(moments, encoder.quant);
  } finally {
    image.pixels.dispose();
  }
}

const stage = (name: string, { pixels, size }: Image): VaeStage => ({ name, image: pixels, size });

function replace(old: Image, next: Image): Image {
  old.pixels.dispose();
  return next;
}

function convInput(ops: Ops, tower: Tower, x: Tensor, size: ImageSize): Tensor {
  if (!tower.quant) return ops.conv2d(x, tower.conv_in, size);
  using quantised = ops.linear(x, tower.quant);
  return ops.conv2d(quantised, tower.conv_in, size);
}

function* runMiddle(
  ops: Ops,
  w: Middle,
  start: Image,
  groups: number,
  keep: (image: Image) => void,
): Generator<VaeStage, void> {
  let image = start;
  const next = (name: string, made: Image): VaeStage => {
    image = replace(image, made);
    keep(image);
    return stage(`mid.${name}`, image);
  };
  yield next('block_1', resnet(ops, w.block_1, image, groups));
  yield next('attn_1', attention(ops, w.attn_1, image, groups));
  yield next('block_2', resnet(ops, w.block_2, image, groups));
}

function output(ops: Ops, tower: Tower, { pixels, size }: Image, groups: number): Tensor {
  using normed = ops.inner.groupNorm(pixels, tower.norm_out, {
    batch: size.batch,
    groups,
    eps: EPS,
    activation: 'silu',
  });
  return ops.conv2d(normed, tower.conv_out, size);
}

/** x + conv2(silu(norm2(conv1(silu(norm1(x)))))) */
function resnet(ops: Ops, w: ResnetBlock, { pixels: x, size }: Image, groups: number): Image {
  const norm = { batch: size.batch, groups, eps: EPS, activation: 'silu' } as const;
  using hidden = convOfNorm(ops, x, w.norm1, w.conv1, norm, size);
  using normed = ops.inner.groupNorm(hidden, w.norm2, norm);
  if (!w.nin_shortcut) return { pixels: ops.conv2d(normed, w.conv2, { ...size, add: x }), size };
  using shortcut = ops.linear(x, w.nin_shortcut);
  return { pixels: ops.conv2d(normed, w.conv2, { ...size, add: shortcut }), size };
}

function convOfNorm(
  ops: Ops,
  x: Tensor,
  norm: Norm,
  conv: Conv,
  how: Parameters<Ops['groupNorm']>[2],
  size: ImageSize,
): Tensor {
  using normed = ops.inner.groupNorm(x, norm, how);
  return ops.conv2d(normed, conv, size);
}

/** x + proj_out(attention over all pixels) */
function attention(ops: Ops, w: AttnBlock, { pixels: x, size }: Image, groups: number): Image {
  const { batch } = size;
  const { inner } = ops;
  using normed = inner.groupNorm(x, w.norm, { batch, groups, eps: EPS });
  using q = inner.linear(normed, w.q);
  using k = inner.linear(normed, w.k);
  using v = inner.linear(normed, w.v);
  using mixed = ops.attention(q, k, v, { batch, heads: 1, scale: 1 / Math.sqrt(x.cols) });
  const out = ops.combine([[1, x]]);
  ops.linearAdd(out, mixed, w.proj_out);
  return { pixels: out, size };
}

/** Nearest-neighbour to twice the size, then a convolution. */
function upsample(ops: Ops, conv: Conv, { pixels, size }: Image): Image {
  const larger = { batch: size.batch, height: 2 * size.height, width: 2 * size.width };
  return { pixels: ops.conv2d(pixels, conv, { ...size, upscale: 2 }), size: larger };
}

/** A convolution to half the size, padded on the right and below only. */
function downsample(ops: Ops, conv: Conv, { pixels, size }: Image): Image {
  const smaller = {
    batch: size.batch,
    height: Math.floor((size.height - 2) / 2) + 1,
    width: Math.floor((size.width - 2) / 2) + 1,
  };
  return { pixels: ops.conv2d(pixels, conv, { ...size, stride: 2, padding: [0, 1] }), size: smaller };
}
