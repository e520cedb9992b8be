/** The tensor ops that model code is written in. Each enqueues and returns at once; results are owned by the caller. */
import { native, type NativePatches } from '../../bindings/native.js';
import type { Device } from './device.js';
import { LayerOps, type ImageSize, type Linear, type OpPrecision } from './layer_ops.js';
import type { Tensor } from './tensor.js';

export type {
  Activation,
  Conv,
  ConvOptions,
  ImageSize,
  LayerOps,
  Linear,
  LinearOptions,
  Norm,
  OpPrecision,
} from './layer_ops.js';

/** An image [batch, channels, height, width] cut into tokens. */
export interface PatchOptions extends ImageSize {
  channels: number;
  /** side of a patch, pixels; 1 turns NCHW into rows of pixels and back */
  patch: number;
  /** order of a token's features: Flux packs c, ph, pw; SD3's output has ph, pw, c */
  order?: 'c,ph,pw' | 'ph,pw,c';
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

/** Stored in the inputs of matmuls and attention. */
const INNER_DTYPES = { fp32: 'F32', int8: 'F32', fp16: 'F16', bf16: 'BF16' } as const;

/** Results are F32, those of `inner` in the dtype of the precision's matmuls. */
export class Ops extends LayerOps {
  /** For what only matmuls and attention read: norms, queries, keys and values, the middle of an MLP. */
  readonly inner: LayerOps;

  constructor(device: Device, precision: OpPrecision) {
    super(device, precision, 'F32');
    this.inner = new LayerOps(device, precision, INNER_DTYPES[precision]);
  }

  /**
   * residual [rows, outputs] += gate · (x · wᵀ + bias)
   * @param gate [groups, outputs], one row for each of equal groups of rows; absent: 1
   */
  linearAdd(residual: Tensor, x: Tensor, w: Linear, gate?: Tensor): void {
    this.enqueueLinear(residual, x, w, { multiply: gate?.native, add: residual.native });
  }

  /** @param q,k,v [batch · tokens, heads · headDim] of one dtype; @returns of q's shape and dtype */
  attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
    const out = this.device.empty(q.dtype, q.shape);
    this.attentionInto(out, q, k, v, options);
    return out;
  }

  /** @param out of q's shape and dtype, maybe columns of a wider tensor */
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

  /** @returns F32 [rows, left.cols + right.cols], both of F32 and as many rows */
  joinColumns(left: Tensor, right: Tensor): Tensor {
    const both = this.empty([left.rows, left.cols + right.cols]);
    const put = (part: Tensor, first: number): void => {
      using place = both.columnRange(first, first + part.cols);
      this.copyTokens(place, part, { batch: 1, tokens: part.rows, outOffset: 0, xOffset: 0 });
    };
    put(left, 0);
    put(right, left.cols);
    return both;
  }

  /** @returns Σ coefficient · tensor, all of one shape */
  combine(terms: readonly (readonly [coefficient: number, tensor: Tensor])[]): Tensor {
    const out = this.empty(terms[0]![1].shape);
    this.combineInto(out, terms);
    return out;
  }

  /** out = Σ coefficient · tensor; it may be one of them */
  combineInto(out: Tensor, terms: readonly (readonly [coefficient: number, tensor: Tensor])[]): void {
    const flat = terms.flatMap(([coefficient, tensor]) => [coefficient, tensor.native]);
    native.combine(this.device.native, out.native, flat);
  }

  /** A stored convolution [outputs, inputs, k, k] (or flat) in the column order that conv2d wants. */
  convWeight(out: Tensor, stored: Tensor, taps: number): void {
    native.convWeight(this.device.native, out.native, stored.native, taps);
  }

  /** @param x [batch, channels, height, width]; @returns [batch · tokens, channels · patch²] */
  patchify(x: Tensor, options: PatchOptions): Tensor {
    const { batch, channels, height, width, patch } = options;
    const tokens = batch * Math.floor(height / patch) * Math.floor(width / patch);
    const out = this.empty([tokens, channels * patch * patch]);
    native.patchify(this.device.native, out.native, x.native, nativePatches(options));
    return out;
  }

  /** @param x [batch · tokens, channels · patch²]; @returns [batch, channels, height, width] */
  unpatchify(x: Tensor, options: PatchOptions): Tensor {
    const { batch, channels, height, width } = options;
    const out = this.empty([batch, channels, height, width]);
    native.unpatchify(this.device.native, out.native, x.native, nativePatches(options));
    return out;
  }

  /** @param table [vocabulary, columns]; @param ids I32, any shape; @returns [ids, columns] */
  embedding(table: Tensor, ids: Tensor): Tensor {
    const out = this.empty([ids.rows * ids.cols, table.cols]);
    native.embedding(this.device.native, out.native, table.native, ids.native, false);
    return out;
  }

  /** x [ids, columns] += table[ids] */
  embeddingAdd(x: Tensor, table: Tensor, ids: Tensor): void {
    native.embedding(this.device.native, x.native, table.native, ids.native, true);
  }

  /** @returns F32 of the same shape */
  decode(x: Tensor): Tensor {
    const out = this.empty(x.shape);
    this.decodeInto(out, x);
    return out;
  }

  decodeInto(out: Tensor, x: Tensor): void {
    native.decode(this.device.native, out.native, x.native);
  }

  /** @param x F32, rows of whole blocks, finite; @returns the same shape in `dtype`, a type that files are written in */
  quantize(x: Tensor, dtype: string): Tensor {
    const out = this.device.empty(dtype, x.shape);
    native.quantize(this.device.native, out.native, x.native);
    return out;
  }

  /** @param x [m, n]; @returns F32 [n, m] */
  transpose(x: Tensor): Tensor {
    const out = this.empty([x.cols, x.rows]);
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
