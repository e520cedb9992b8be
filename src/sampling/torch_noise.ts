/**
 * PyTorch's CPU generator: MT19937, and the normal distribution as `torch.randn` draws it. At least 16 values: uniforms
 * for the whole tensor, then Box–Muller within blocks of 16 (the first eight are radii, the last eight angles), the
 * last 16 drawn anew if the count is no multiple of 16. Fewer: one double-precision pair at a time, whose second
 * value is kept for the next draw, of whatever type.
 */
import { Mt19937 } from './mt19937.js';
import { checkSeed, type NoiseGenerator } from './noise_generator.js';

const kBlock = 16;
const kHalf = kBlock / 2;

/** An arithmetic of torch: how it rounds, and the uniforms it draws. */
interface Arithmetic {
  readonly round: (value: number) => number;
  readonly uniform: (bits: Mt19937) => number;
  /** 2π as Box–Muller has it: rounded to float32 in torch's AVX2 code, which is what runs on any x86 of today. */
  readonly fullTurn: number;
}

const uniform53 = (bits: Mt19937): number => {
  const high = bits.next() & 0x1fffff; // the upper 11 of 64 bits are not used
  return (high * 2 ** 32 + bits.next()) * 2 ** -53;
};
const f32: Arithmetic = {
  round: Math.fround,
  uniform: (bits) => (bits.next() & 0xffffff) * 2 ** -24,
  fullTurn: Math.fround(2 * Math.PI),
};
const f64: Arithmetic = { round: (value) => value, uniform: uniform53, fullTurn: 2 * Math.PI };
const bf16: Arithmetic = {
  round: roundToBf16,
  uniform: (bits) => (bits.next() & 0xff) * 2 ** -8,
  fullTurn: 2 * Math.PI,
};

export class TorchNoise implements NoiseGenerator {
  readonly #bits: Mt19937;
  #kept: number | undefined;

  constructor(seed: number | bigint) {
    // Torch takes 64 bits and uses the lower 32.
    this.#bits = new Mt19937(Number(BigInt.asUintN(32, checkSeed(seed))));
  }

  /** torch.randn(count) */
  normal(count: number): Float32Array {
    return this.#fill(new Float32Array(count), f32);
  }

  /** torch.randn(count, dtype=torch.bfloat16) of PyTorch 1.13, as numbers: another stream than float32's. */
  normalBf16(count: number): Float32Array {
    return this.#fill(new Float32Array(count), bf16);
  }

  /** torch.randn(count, dtype=torch.float64): another stream than float32's. */
  normalF64(count: number): Float64Array {
    return this.#fill(new Float64Array(count), f64);
  }

  /** torch.rand(count): 0 ≤ value < 1 */
  uniform(count: number): Float32Array {
    return new Float32Array(count).map(() => f32.uniform(this.#bits));
  }

  #fill<T extends Float32Array | Float64Array>(out: T, arithmetic: Arithmetic): T {
    if (out.length < kBlock) {
      for (let i = 0; i < out.length; i++) out[i] = arithmetic.round(this.#single());
      return out;
    }
    for (let i = 0; i < out.length; i++) out[i] = arithmetic.uniform(this.#bits);
    for (let at = 0; at + kBlock <= out.length; at += kBlock) boxMullerBlock(out, at, arithmetic);
    if (out.length % kBlock !== 0) {
      const last = out.length - kBlock;
      for (let i = last; i < out.length; i++) out[i] = arithmetic.uniform(this.#bits);
      boxMullerBlock(out, last, arithmetic);
    }
    return out;
  }

  #single(): number {
    const kept = this.#kept;
    if (kept !== undefined) {
      this.#kept = undefined;
      return kept;
    }
    const angle = 2 * Math.PI * uniform53(this.#bits);
    const radius = Math.sqrt(-2 * Math.log1p(-uniform53(this.#bits)));
    this.#kept = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

/** Replaces 16 uniforms at `at` by normals, rounding after each operation as the type does. */
function boxMullerBlock(out: Float32Array | Float64Array, at: number, { round, fullTurn }: Arithmetic): void {
  for (let i = at; i < at + kHalf; i++) {
    const radius = round(Math.sqrt(round(-2 * round(Math.log(round(1 - out[i]!))))));
    const angle = round(fullTurn * out[i + kHalf]!);
    out[i] = round(radius * round(Math.cos(angle)));
    out[i + kHalf] = round(radius * round(Math.sin(angle)));
  }
}

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** To the nearest bfloat16, ties to even. */
function roundToBf16(value: number): number {
  float[0] = value;
  bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
  return float[0];
}
