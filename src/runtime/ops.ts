/** The tensor ops that model code is written in. Each enqueues and returns at once; results are owned by the caller. */
import {
  native,
  type NativeActivation,
  type NativeConv2d,
  type NativeGroupNorm,
  type NativePatches,
  type NativePrecision,
} from '../../bindings/native.js';
import type { Device } from './device.js';
import { Tensor } from './tensor.js';

export type Activation = NativeActivation;
/** How matmuls run: `fp32` is exact on the stored weights, `int8` quantises activations per 32 columns. */
export type OpPrecision = NativePrecision;

/** A linear layer as stored: y = (scale · weight) x + bias. */
export interface Linear {
  /** [outputs, inputs], any stored dtype */
  readonly weight: Tensor;
  /** [outputs] */
  readonly bias?: Tensor | undefined;
  /** [1] or [outputs]: the scale of an FP8 weight */
  readonly scale?: Tensor | undefined;
}

/** A convolution with the columns of its weight in the order ky, kx, c: see Weights.conv. */
export interface Conv {
  /** [outputs, kernel · kernel · inputs] */
  readonly weight: Tensor;
  /** [outputs] */
  readonly bias?: Tensor | undefined;
  readonly kernel: number;
}

/** Images as rows of pixels, [batch · height · width, channels]. */
export interface ImageSize {
  readonly batch: number;
  /** pixels */
  readonly height: number;
  /** pixels */
  readonly width: number;
}

export interface ConvOptions extends ImageSize {
  stride?: number;
  /** Reads x as if nearest-upsampled to twice its size. */
  upscale?: 1 | 2;
  /** Zeros [above and left, below and right]; default: half the kernel on every side. */
  padding?: readonly [before: number, after: number];
  /** [batch · outHeight · outWidth, outputs], added to the result */
  add?: Tensor;
}

/** An image [batch, channels, height, width] cut into tokens. */
export interface PatchOptions extends ImageSize {
  channels: number;
  /** side of a patch, pixels; 1 turns NCHW into rows of pixels and back */
  patch: number;
  /** order of a token's features: Flux packs c, ph, pw; SD3's output has ph, pw, c */
  order?: 'c,ph,pw' | 'ph,pw,c';
}

export interface Norm {
  /** [columns] */
  readonly weight: Tensor;
  /** [columns] */
  readonly bias: Tensor;
}

/** T5's relative positions (arXiv:1910.10683 §2.1), computed inside attention. */
export interface RelativeBias {
  /** [buckets, heads] */
  readonly table: Tensor;
  readonly bidirectional: boolean;
  readonly maxDistance: number;
}

export interface AttentionOptions {
  batch: number;
  heads: number;
  scale: number;
  causal?: boolean;
  /** I32 [batch, keys], 0 = not attended */
  keyMask?: Tensor | undefined;
  bias?: RelativeBias;
}

export class Ops {
  readonly device: Device;
  readonly precision: OpPrecision;

  constructor(device: Device, precision: OpPrecision) {
    this.device = device;
    this.precision = precision;
  }

  /** @returns [rows, outputs] = activation(x · wᵀ + bias) · multiply */
  linear(x: Tensor, w: Linear, options: { activation?: Activation; multiply?: Tensor } = {}): Tensor {
    const out = this.device.empty('F32', [x.rows, w.weight.shape[0]!]);
    this.linearInto(out, x, w, options);
    return out;
  }

  /** out [rows, outputs], maybe columns of a wider tensor = activation(x · wᵀ + bias) · multiply */
  linearInto(
    out: Tensor,
    x: Tensor,
    w: Linear,
    options: { activation?: Activation; multiply?: Tensor } = {},
  ): void {
    const epilogue = {
      scale: w.scale?.native,
      bias: w.bias?.native,
      activation: options.activation,
      multiply: options.multiply?.native,
    };
    native.linear(this.device.native, out.native, x.native, w.weight.native, epilogue, this.precision);
  }

  /**
   * residual [rows, outputs] += gate · (x · wᵀ + bias)
   * @param gate [groups, outputs], one row for each of equal groups of rows; absent: 1
   */
  linearAdd(residual: Tensor, x: Tensor, w: Linear, gate?: Tensor): void {
    const epilogue = {
      scale: w.scale?.native,
      bias: w.bias?.native,
      multiply: gate?.native,
      add: residual.native,
    };
    native.linear(this.device.native, residual.native, x.native, w.weight.native, epilogue, this.precision);
  }

  /** @param q,k,v [batch · tokens, heads · headDim]; @returns of q's shape */
  attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
    const out = this.device.empty('F32', q.shape);
    this.attentionInto(out, q, k, v, options);
    return out;
  }

  /** @param out of q's shape, maybe columns of a wider tensor */
  attentionInto(out: Tensor, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): void {
    native.attention(this.device.native, out.native, q.native, k.native, v.native, {
      batch: options.batch,
      heads: options.heads,
      scale: options.scale,
      causal: options.causal ?? false,
      keyMask: options.keyMask?.native,
      bias: options.bias && { ...options.bias, table: options.bias.table.native },
    });
  }

  /** @param x [rows, columns]; arXiv:1910.07467 */
  rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
    const out = this.device.empty('F32', x.shape);
    native.rmsNorm(this.device.native, out.native, x.native, weight.native, eps);
    return out;
  }

  /** @param x [rows, columns]; arXiv:1607.06450 */
  layerNorm(x: Tensor, norm: Norm, eps: number): Tensor {
    const out = this.device.empty('F32', x.shape);
    native.layerNorm(this.device.native, out.native, x.native, norm.weight.native, norm.bias.native, eps);
    return out;
  }

  /**
   * The norm of a modulated block (arXiv:2212.09748 §3.2): x̂ · (1 + scale) + shift.
   * @param x [groups · rows, columns]
   * @param shift,scale [groups, columns]
   */
  layerNormModulated(x: Tensor, shift: Tensor, scale: Tensor, eps: number): Tensor {
    const out = this.device.empty('F32', x.shape);
    native.layerNormModulated(this.device.native, out.native, x.native, shift.native, scale.native, eps);
    return out;
  }

  /**
   * RMS norm of each head, then the rotation of its pairs (2i, 2i + 1) (arXiv:2104.09864), written into the tokens
   * of `out` from `offset` on.
   * @param out      [batch · longer, heads · headDim]
   * @param x        [batch · tokens, heads · headDim]
   * @param weight   [headDim]; absent: no norm
   * @param rotation [longer, headDim], cosine and sine of each pair side by side; absent: no rotation
   */
  headNormRope(
    out: Tensor,
    x: Tensor,
    parts: { weight?: Tensor | undefined; rotation?: Tensor | undefined },
    how: { batch: number; heads: number; offset: number; eps: number },
  ): void {
    const { weight, rotation } = parts;
    native.headNormRope(this.device.native, out.native, x.native, weight?.native, rotation?.native, how);
  }

  /** Tokens [xOffset, xOffset + tokens) of every sequence of x to those of `out` from outOffset on. */
  copyTokens(
    out: Tensor,
    x: Tensor,
    how: { batch: number; tokens: number; outOffset: number; xOffset: number },
  ): void {
    native.copyTokens(this.device.native, out.native, x.native, how);
  }

  activate(x: Tensor, activation: Activation): Tensor {
    const out = this.device.empty('F32', x.shape);
    native.activate(this.device.native, out.native, x.native, activation);
    return out;
  }

  /** @returns Σ coefficient · tensor, all of one shape */
  combine(terms: readonly (readonly [coefficient: number, tensor: Tensor])[]): Tensor {
    const out = this.device.empty('F32', terms[0]![1].shape);
    const flat = terms.flatMap(([coefficient, tensor]) => [coefficient, tensor.native]);
    native.combine(this.device.native, out.native, flat);
    return out;
  }

  /** @param x [batch · height · width, inputs]; @returns [batch · outHeight · outWidth, outputs] */
  conv2d(x: Tensor, w: Conv, options: ConvOptions): Tensor {
    const { batch, height, width, stride = 1, upscale = 1, add } = options;
    const half = Math.floor(w.kernel / 2);
    const [padBefore, padAfter] = options.padding ?? [half, half];
    const side = (size: number): number =>
      Math.floor((size * upscale + padBefore + padAfter - w.kernel) / stride) + 1;
    const out = this.device.empty('F32', [batch * side(height) * side(width), w.weight.shape[0]!]);
    const how: NativeConv2d = {
      batch,
      height,
      width,
      upscale,
      kernel: w.kernel,
      stride,
      padBefore,
      padAfter,
    };
    const epilogue = { bias: w.bias?.native, add: add?.native };
    native.conv2d(this.device.native, out.native, x.native, w.weight.native, epilogue, how, this.precision);
    return out;
  }

  /** A stored convolution [outputs, inputs, k, k] (or flat) in the column order that conv2d wants. */
  convWeight(out: Tensor, stored: Tensor, taps: number): void {
    native.convWeight(this.device.native, out.native, stored.native, taps);
  }

  /** @param x [batch · pixels, channels]; arXiv:1803.08494 */
  groupNorm(x: Tensor, norm: Norm, how: NativeGroupNorm): Tensor {
    const out = this.device.empty('F32', x.shape);
    native.groupNorm(this.device.native, out.native, x.native, norm.weight.native, norm.bias.native, how);
    return out;
  }

  /** @param x [batch, channels, height, width]; @returns [batch · tokens, channels · patch²] */
  patchify(x: Tensor, options: PatchOptions): Tensor {
    const { batch, channels, height, width, patch } = options;
    const tokens = batch * Math.floor(height / patch) * Math.floor(width / patch);
    const out = this.device.empty('F32', [tokens, channels * patch * patch]);
    native.patchify(this.device.native, out.native, x.native, nativePatches(options));
    return out;
  }

  /** @param x [batch · tokens, channels · patch²]; @returns [batch, channels, height, width] */
  unpatchify(x: Tensor, options: PatchOptions): Tensor {
    const { batch, channels, height, width } = options;
    const out = this.device.empty('F32', [batch, channels, height, width]);
    native.unpatchify(this.device.native, out.native, x.native, nativePatches(options));
    return out;
  }

  /** @param table [vocabulary, columns]; @param ids I32, any shape; @returns [ids, columns] */
  embedding(table: Tensor, ids: Tensor): Tensor {
    const out = this.device.empty('F32', [ids.rows * ids.cols, table.cols]);
    native.embedding(this.device.native, out.native, table.native, ids.native, false);
    return out;
  }

  /** x [ids, columns] += table[ids] */
  embeddingAdd(x: Tensor, table: Tensor, ids: Tensor): void {
    native.embedding(this.device.native, x.native, table.native, ids.native, true);
  }

  /** @returns F32 of the same shape */
  decode(x: Tensor): Tensor {
    const out = this.device.empty('F32', x.shape);
    this.decodeInto(out, x);
    return out;
  }

  decodeInto(out: Tensor, x: Tensor): void {
    native.decode(this.device.native, out.native, x.native);
  }

  /** @param x [m, n]; @returns F32 [n, m] */
  transpose(x: Tensor): Tensor {
    const out = this.device.empty('F32', [x.cols, x.rows]);
    native.transpose(this.device.native, out.native, x.native);
    return out;
  }

  /** The queue fails with ERR_NON_FINITE, naming `where`, if x holds a NaN or an infinity. */
  requireFinite(x: Tensor, where: string): void {
    native.requireFinite(this.device.native, x.native, where);
  }
}

function nativePatches({ order, ...how }: PatchOptions): NativePatches {
  return { ...how, channelsFirst: order !== 'ph,pw,c' };
}
