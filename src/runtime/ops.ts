/** The tensor ops that model code is written in. Each enqueues and returns at once; results are owned by the caller. */
import { native, type NativeActivation, type NativePrecision } from '../../bindings/native.js';
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
    const epilogue = {
      scale: w.scale?.native,
      bias: w.bias?.native,
      activation: options.activation,
      multiply: options.multiply?.native,
    };
    native.linear(this.device.native, out.native, x.native, w.weight.native, epilogue, this.precision);
    return out;
  }

  /** residual [rows, outputs] += x · wᵀ + bias */
  linearAdd(residual: Tensor, x: Tensor, w: Linear): void {
    const epilogue = { scale: w.scale?.native, bias: w.bias?.native, add: residual.native };
    native.linear(this.device.native, residual.native, x.native, w.weight.native, epilogue, this.precision);
  }

  /** @param q,k,v [batch · tokens, heads · headDim] */
  attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
    const out = this.device.empty('F32', q.shape);
    native.attention(this.device.native, out.native, q.native, k.native, v.native, {
      batch: options.batch,
      heads: options.heads,
      scale: options.scale,
      causal: options.causal ?? false,
      keyMask: options.keyMask?.native,
      bias: options.bias && { ...options.bias, table: options.bias.table.native },
    });
    return out;
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
