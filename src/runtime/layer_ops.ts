/**
 * The tensor ops whose results may be inner activations: what only matmuls and attention read, stored in 16 bits where
 * the precision has 16. Each enqueues and returns at once; results are owned by the caller.
 */
import {
  native,
  type NativeActivation,
  type NativeConv2d,
  type NativeEpilogue,
  type NativeGroupNorm,
  type NativePrecision,
} from '../../bindings/native.js';
import type { Device } from './device.js';
import type { Tensor } from './tensor.js';

export type Activation = NativeActivation;
/**
 * How matmuls run: `fp32` is exact on the stored weights; `int8` quantises activations per 32 columns; `fp16` and `bf16`
 * round the inputs of matmuls and attention, and add in FP32.
 */
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

export interface Norm {
  /** [columns] */
  readonly weight: Tensor;
  /** [columns] */
  readonly bias: Tensor;
}

/** What is applied to x · wᵀ + bias, in this order. */
export interface LinearOptions {
  activation?: Activation;
  /** [rows, outputs] */
  multiply?: Tensor;
}

export class LayerOps {
  readonly device: Device;
  readonly precision: OpPrecision;
  /** Of every result. */
  readonly dtype: 'F32' | 'F16' | 'BF16';

  constructor(device: Device, precision: OpPrecision, dtype: LayerOps['dtype']) {
    this.device = device;
    this.precision = precision;
    this.dtype = dtype;
  }

  /** Uninitialised. */
  empty(shape: readonly number[]): Tensor {
    return this.device.empty(this.dtype, shape);
  }

  /** @returns [rows, outputs] = activation(x · wᵀ + bias) · multiply */
  linear(x: Tensor, w: Linear, options: LinearOptions = {}): Tensor {
    const out = this.empty([x.rows, w.weight.shape[0]!]);
    this.linearInto(out, x, w, options);
    return out;
  }

  /** out [rows, outputs], maybe columns of a wider tensor = activation(x · wᵀ + bias) · multiply */
  linearInto(out: Tensor, x: Tensor, w: Linear, { activation, multiply }: LinearOptions = {}): void {
    this.enqueueLinear(out, x, w, { activation, multiply: multiply?.native });
  }

  /** @param x [rows, columns]; arXiv:1910.07467 */
  rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
    const out = this.empty(x.shape);
    native.rmsNorm(this.device.native, out.native, x.native, weight.native, eps);
    return out;
  }

  /** @param x [rows, columns]; arXiv:1607.06450 */
  layerNorm(x: Tensor, norm: Norm, eps: number): Tensor {
    const out = this.empty(x.shape);
    native.layerNorm(this.device.native, out.native, x.native, norm.weight.native, norm.bias.native, eps);
    return out;
  }

  /**
   * The norm of a modulated block (arXiv:2212.09748 §3.2): x̂ · (1 + scale) + shift.
   * @param x [groups · rows, columns]
   * @param shift,scale [groups, columns]
   */
  layerNormModulated(x: Tensor, shift: Tensor, scale: Tensor, eps: number): Tensor {
    const out = this.empty(x.shape);
    native.layerNormModulated(this.device.native, out.native, x.native, shift.native, scale.native, eps);
    return out;
  }

  activate(x: Tensor, activation: Activation): Tensor {
    const out = this.empty(x.shape);
    native.activate(this.device.native, out.native, x.native, activation);
    return out;
  }

  /** @param x [batch · height · width, inputs]; @returns [batch · outHeight · outWidth, outputs] */
  conv2d(x: Tensor, w: Conv, options: ConvOptions): Tensor {
    const { batch, height, width, stride = 1, upscale = 1, add } = options;
    const half = Math.floor(w.kernel / 2);
    const [padBefore, padAfter] = options.padding ?? [half, half];
    const side = (size: number): number =>
      Math.floor((size * upscale + padBefore + padAfter - w.kernel) / stride) + 1;
    const out = this.empty([batch * side(height) * side(width), w.weight.shape[0]!]);
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

  /** @param x [batch · pixels, channels]; arXiv:1803.08494 */
  groupNorm(x: Tensor, norm: Norm, how: NativeGroupNorm): Tensor {
    const out = this.empty(x.shape);
    native.groupNorm(this.device.native, out.native, x.native, norm.weight.native, norm.bias.native, how);
    return out;
  }

  protected enqueueLinear(out: Tensor, x: Tensor, w: Linear, epilogue: NativeEpilogue): void {
    const all = { scale: w.scale?.native, bias: w.bias?.native, ...epilogue };
    native.linear(this.device.native, out.native, x.native, w.weight.native, all, this.precision);
  }
}
