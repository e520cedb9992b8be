/**
 * The plain reference of a 16-bit precision: the CPU's exact ops, with the inputs of every matmul, convolution and attention
 * rounded to the precision's numbers, and what only those read rounded where it is made. What a device adds to its error
 * (sums in another order, probabilities rounded before they meet the values) is left to the factor that a test allows.
 *
 * Rounding is Veltkamp's splitting (Dekker 1971, doi:10.1007/BF01397083): with γ = (2^s + 1) · x, the sum γ + (x − γ) keeps
 * 24 − s bits of x, to nearest. FP16's narrower range is not modelled: below it the reference is the stricter one.
 */
import type { Device } from '../../src/runtime/device.js';
import { LayerOps } from '../../src/runtime/layer_ops.js';
import {
  Ops,
  type Activation,
  type AttentionOptions,
  type Conv,
  type ConvOptions,
  type Linear,
  type LinearOptions,
  type Norm,
} from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';

/** Bits of a float's significand that go. */
const DROPPED = { fp16: 13, bf16: 16 } as const;
export type SixteenBits = keyof typeof DROPPED;

class Rounding {
  readonly #exact: Ops;
  readonly #factor: number;
  readonly #weights = new Map<Tensor, Tensor>();

  constructor(device: Device, precision: SixteenBits) {
    this.#exact = new Ops(device, 'fp32');
    this.#factor = 2 ** DROPPED[precision] + 1;
  }

  /** Every element becomes the nearest number of 16 bits. */
  inPlace(x: Tensor): Tensor {
    using wide = this.#exact.combine([[this.#factor, x]]);
    using rest = this.#exact.combine([
      [1, x],
      [-1, wide],
    ]);
    this.#exact.combineInto(x, [
      [1, wide],
      [1, rest],
    ]);
    return x;
  }

  copy(x: Tensor): Tensor {
    return this.inPlace(this.#exact.combine([[1, x]]));
  }

  /** A layer's weight, decoded and rounded, kept for the next time. */
  weight<Layer extends Linear | Conv>(layer: Layer): Layer {
    let rounded = this.#weights.get(layer.weight);
    if (!rounded) {
      rounded = this.inPlace(this.#exact.decode(layer.weight));
      this.#weights.set(layer.weight, rounded);
    }
    return { ...layer, weight: rounded };
  }

  [Symbol.dispose](): void {
    for (const weight of this.#weights.values()) weight.dispose();
  }
}

/** Results rounded, as what stands between matmuls. */
class RoundedLayers extends LayerOps {
  readonly #rounding: Rounding;

  constructor(device: Device, rounding: Rounding) {
    super(device, 'fp32', 'F32');
    this.#rounding = rounding;
  }

  override linearInto(out: Tensor, x: Tensor, w: Linear, options?: LinearOptions): void {
    using rounded = this.#rounding.copy(x);
    super.linearInto(out, rounded, this.#rounding.weight(w), options);
    this.#rounding.inPlace(out);
  }

  override rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
    return this.#rounding.inPlace(super.rmsNorm(x, weight, eps));
  }

  override layerNorm(x: Tensor, norm: Norm, eps: number): Tensor {
    return this.#rounding.inPlace(super.layerNorm(x, norm, eps));
  }

  override layerNormModulated(x: Tensor, shift: Tensor, scale: Tensor, eps: number): Tensor {
    return this.#rounding.inPlace(super.layerNormModulated(x, shift, scale, eps));
  }

  override activate(x: Tensor, activation: Activation): Tensor {
    return this.#rounding.inPlace(super.activate(x, activation));
  }

  override groupNorm(...args: Parameters<LayerOps['groupNorm']>): Tensor {
    return this.#rounding.inPlace(super.groupNorm(...args));
  }
}

/** Results exact but for what attention reads and makes; inputs of matmuls rounded. */
export class RoundedOps extends Ops implements Disposable {
  readonly #rounding: Rounding;
  override readonly inner: LayerOps;

  constructor(device: Device, precision: SixteenBits) {
    super(device, 'fp32');
    this.#rounding = new Rounding(device, precision);
    this.inner = new RoundedLayers(device, this.#rounding);
  }

  override linearInto(out: Tensor, x: Tensor, w: Linear, options?: LinearOptions): void {
    using rounded = this.#rounding.copy(x);
    super.linearInto(out, rounded, this.#rounding.weight(w), options);
  }

  override linearAdd(residual: Tensor, x: Tensor, w: Linear, gate?: Tensor): void {
    using rounded = this.#rounding.copy(x);
    super.linearAdd(residual, rounded, this.#rounding.weight(w), gate);
  }

  override conv2d(x: Tensor, w: Conv, options: ConvOptions): Tensor {
    using rounded = this.#rounding.copy(x);
    return super.conv2d(rounded, this.#rounding.weight(w), options);
  }

  override attentionInto(out: Tensor, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): void {
    super.attentionInto(out, q, k, v, options);
    this.#rounding.inPlace(out);
  }

  override headNormRope(...args: Parameters<Ops['headNormRope']>): void {
    super.headNormRope(...args);
    this.#rounding.inPlace(args[0]);
  }

  [Symbol.dispose](): void {
    this.#rounding[Symbol.dispose]();
  }
}
