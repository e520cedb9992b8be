/**
 * Attention in 16 bits, every kernel forced one by one, against a judge in FP64: the error may be twice that of a
 * plain computation of the same precision (weights and results rounded to 16 bits, the rest exact).
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { TARGETS } from '../support/devices.js';
import { attention, maxAbsDifference, normal, t5Bucket, type AttentionShape } from '../support/reference.js';

const VARIANTS = ['wgmma_128x128', 'mma_64x64', 'mma_128x64', 'simt_16x32'] as const;
const DTYPES = ['F16', 'BF16'] as const;
type Half = (typeof DTYPES)[number];

/** The nearest number of the type, ties to even. */
function rounded(value: number, dtype: Half): number {
  if (value === 0 || !Number.isFinite(value)) return value;
  const [digits, least] = dtype === 'F16' ? [10, -14] : [7, -126];
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), least);
  const unit = 2 ** (exponent - digits);
  const down = Math.floor(value / unit);
  const rest = value / unit - down;
  return (rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down) * unit;
}

interface Inputs {
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
}

/** N(0, 1), q times `spread`, all of them numbers of the type. */
function inputs(s: AttentionShape, dtype: Half, spread = 1): Inputs {
  const d = s.heads * s.headDim;
  const make = (tokens: number, seed: number, factor: number) =>
    normal(s.batch * tokens * d, seed).map((x) => rounded(x * factor, dtype));
  return { q: make(s.queries, 1, spread), k: make(s.keys, 2, 1), v: make(s.keys, 3, 1) };
}

/** What a plain kernel of that precision gives: weights and results are rounded. */
function plain({ q, k, v }: Inputs, s: AttentionShape, dtype: Half): Float64Array {
  const d = s.heads * s.headDim;
  // The weights of every key, one at a time, by attention over the identity.
  const out = new Float64Array(s.batch * s.queries * d);
  for (let b = 0; b < s.batch; b++)
    for (let h = 0; h < s.heads; h++) {
      const head = (x: Float32Array, tokens: number) =>
        Float32Array.from(
          { length: tokens * s.headDim },
          (_, i) => x[(b * tokens + Math.floor(i / s.headDim)) * d + h * s.headDim + (i % s.headDim)]!,
        );
      const values = head(v, s.keys);
      const weights = weightsOf(head(q, s.queries), head(k, s.keys), s, b, h);
      weights.forEach((row, i) => {
        const peak = Math.max(...row);
        const total = row.reduce((a, w) => a + w / peak, 0);
        const kept = row.map((w) => rounded(w / peak, dtype));
        for (let c = 0; c < s.headDim; c++) {
          let sum = 0;
          for (let j = 0; j < s.keys; j++) sum += kept[j]! * values[j * s.headDim + c]!;
          out[(b * s.queries + i) * d + h * s.headDim + c] = rounded(sum / total, dtype);
        }
      });
    }
  return out;
}

/** softmax's weights of one head, in doubles: [queries][keys] */
function weightsOf(q: Float32Array, k: Float32Array, s: AttentionShape, b: number, h: number): number[][] {
  return Array.from({ length: s.queries }, (_, i) => {
    const scores = Array.from({ length: s.keys }, (_, j) => {
      if (s.causal && j > i) return -Infinity;
      let dot = 0;
      for (let c = 0; c < s.headDim; c++) dot += q[i * s.headDim + c]! * k[j * s.headDim + c]!;
      const masked = s.keyMask && s.keyMask[b * s.keys + j] === 0 ? -3.4028234663852886e38 : 0;
      return dot * s.scale + (s.bias?.(h, j - i) ?? 0) + masked;
    });
    const peak = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - peak));
    const total = weights.reduce((a, w) => a + w, 0);
    return weights.map((w) => w / total);
  });
}

describe.runIf(TARGETS.includes('cuda-sim'))('cuda-sim', () => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = Device.open('cuda-sim');
    ops = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());
  afterEach(() => {
    delete process.env['KOTOBA_VARIANT'];
  });

  /** Exact: the values are numbers of the type already. */
  function half(values: Float32Array, shape: readonly number[], dtype: Half): Tensor {
    using floats = device.from(values, shape);
    const out = device.empty(dtype, shape);
    ops.decodeInto(out, floats);
    return out;
  }
  async function floats(x: Tensor): Promise<Float32Array> {
    using decoded = ops.decode(x);
    return await decoded.read();
  }

  interface Extra {
    keyMask?: Int32Array;
    /** [buckets, heads] */
    table?: Float32Array;
    bidirectional?: boolean;
  }
  const BUCKETS = 32;
  const MAX_DISTANCE = 128;

  /** The result on the device, written over NaNs. */
  async function run(x: Inputs, s: AttentionShape, dtype: Half, extra: Extra = {}): Promise<Float32Array> {
    const d = s.heads * s.headDim;
    using q = half(x.q, [s.batch * s.queries, d], dtype);
    using k = half(x.k, [s.batch * s.keys, d], dtype);
    using v = half(x.v, [s.batch * s.keys, d], dtype);
    using out = half(new Float32Array(x.q.length).fill(NaN), q.shape, dtype);
    using keyMask = extra.keyMask && device.from(extra.keyMask, [s.batch, s.keys]);
    using table = extra.table && device.from(extra.table, [BUCKETS, s.heads]);
    ops.attentionInto(out, q, k, v, {
      batch: s.batch,
      heads: s.heads,
      scale: s.scale,
      causal: s.causal ?? false,
      keyMask,
      ...(table && {
        bias: { table, bidirectional: extra.bidirectional ?? true, maxDistance: MAX_DISTANCE },
      }),
    });
    return await floats(out);
  }

  function check(got: Float32Array, x: Inputs, s: AttentionShape, dtype: Half): void {
    const judge = attention(x.q, x.k, x.v, s);
    const bound = 2 * maxAbsDifference(plain(x, s, dtype), judge);
    expect(maxAbsDifference(got, judge)).toBeLessThanOrEqual(bound + 2 ** -24);
  }

  const SHAPES = [
    { batch: 1, heads: 1, queries: 1, keys: 1, headDim: 16 },
    { batch: 2, heads: 3, queries: 7, keys: 7, headDim: 20, causal: true },
    { batch: 1, heads: 2, queries: 77, keys: 77, headDim: 64, causal: true },
    { batch: 2, heads: 2, queries: 40, keys: 129, headDim: 64 },
    { batch: 1, heads: 2, queries: 130, keys: 130, headDim: 80 },
    { batch: 1, heads: 2, queries: 65, keys: 64, headDim: 72 },
    { batch: 2, heads: 1, queries: 64, keys: 63, headDim: 40 },
    { batch: 1, heads: 1, queries: 150, keys: 150, headDim: 96, causal: true },
    { batch: 2, heads: 1, queries: 129, keys: 191, headDim: 128 },
    { batch: 1, heads: 2, queries: 128, keys: 128, headDim: 128, causal: true },
  ];

  const WIDE_SHAPES = [
    { batch: 1, heads: 1, queries: 33, keys: 70, headDim: 136 },
    { batch: 1, heads: 2, queries: 80, keys: 80, headDim: 160, causal: true },
    { batch: 2, heads: 1, queries: 65, keys: 33, headDim: 258 },
    { batch: 1, heads: 1, queries: 70, keys: 100, headDim: 512 },
  ];
  describe.each(['mma_wide_64x32', 'simt_16x32'])('%s', (variant) => {
    test.each(DTYPES.flatMap((dtype) => WIDE_SHAPES.map((shape) => [dtype, shape] as const)))(
      'wide heads, %s, %o',
      async (dtype, shape) => {
        process.env['KOTOBA_VARIANT'] = `attention:${variant}`;
        const s = { ...shape, scale: 1 / Math.sqrt(shape.headDim) };
        const x = inputs(s, dtype);
        check(await run(x, s, dtype), x, s, dtype);
      },
    );

    test.each(DTYPES)('wide heads, %s, with relative bias and masked keys', async (dtype) => {
      process.env['KOTOBA_VARIANT'] = `attention:${variant}`;
      const tokens = 170;
      const table = normal(BUCKETS, 4);
      const keyMask = Int32Array.from({ length: tokens }, (_, i) => (i % 7 ? 1 : 0));
      const s: AttentionShape = {
        ...{ batch: 1, heads: 1, headDim: 144, queries: tokens, keys: tokens, scale: 0.3, keyMask },
        bias: (_, distance) => table[t5Bucket(distance, BUCKETS, MAX_DISTANCE)]!,
      };
      const x = inputs(s, dtype);
      check(await run(x, s, dtype, { table, keyMask }), x, s, dtype);
    });
  });

  describe.each(VARIANTS)('%s', (variant) => {
    describe.each(DTYPES)('%s', (dtype) => {
      const force = () => (process.env['KOTOBA_VARIANT'] = `attention:${variant}`);

      test.each(SHAPES)('%o', async (shape) => {
        force();
        const s = { ...shape, scale: 1 / Math.sqrt(shape.headDim) };
        const x = inputs(s, dtype);
        check(await run(x, s, dtype), x, s, dtype);
      });

      test.each([
        [1, false],
        [77, true],
        [250, false],
        [250, true],
      ])('T5: relative bias, scale 1, logits of hundreds, %i tokens, masked: %s', async (tokens, masked) => {
        force();
        const [batch, heads, headDim] = [masked ? 2 : 1, 2, 64];
        const table = normal(BUCKETS * heads, 4).map((b) => 20 * b);
        const keyMask = masked
          ? Int32Array.from({ length: batch * tokens }, (_, i) => ((i % tokens) % 5 !== 3 ? 1 : 0))
          : undefined;
        const s: AttentionShape = {
          ...{ batch, heads, headDim, queries: tokens, keys: tokens, scale: 1 },
          ...(keyMask && { keyMask }),
          bias: (h, distance) => table[t5Bucket(distance, BUCKETS, MAX_DISTANCE) * heads + h]!,
        };
        const x = inputs(s, dtype, 12);
        check(await run(x, s, dtype, { table, ...(keyMask && { keyMask }) }), x, s, dtype);
      });

      test('causal relative bias: keys on the right are never seen', async () => {
        force();
        const s: AttentionShape = {
          ...{ batch: 1, heads: 2, queries: 230, keys: 230, headDim: 32, scale: 0.2, causal: true },
          bias: (h, distance) => Math.max(distance, -15) * 0.1 * (h + 1), // buckets 0…15 are single distances
        };
        const table = Float32Array.from({ length: BUCKETS * 2 }, (_, i) =>
          Math.fround(Math.max(-Math.floor(i / 2), -15) * 0.1 * ((i % 2) + 1)),
        );
        const x = inputs(s, dtype);
        check(await run(x, s, dtype, { table, bidirectional: false }), x, s, dtype);
      });

      test('a sequence whose keys are all masked attends to all alike', async () => {
        force();
        const keys = 90;
        const keyMask = Int32Array.from({ length: 2 * keys }, (_, i) => (i < keys || i % 3 ? 0 : 1));
        const s: AttentionShape = {
          ...{ batch: 2, heads: 1, queries: 5, keys, headDim: 64, scale: 0.125, keyMask },
        };
        const x = inputs(s, dtype);
        check(await run(x, s, dtype, { keyMask }), x, s, dtype);
      });

      test.each([24, 20])(
        'columns of a fused tensor, out in the place of q, heads of %i',
        async (headDim) => {
          force();
          const [tokens, heads] = [70, 3];
          const d = heads * headDim;
          const s: AttentionShape = { batch: 1, heads, queries: tokens, keys: tokens, headDim, scale: 0.2 };
          const x = inputs(s, dtype);
          const all = Float32Array.from({ length: tokens * 3 * d }, (_, i) => {
            const [row, column] = [Math.floor(i / (3 * d)), i % (3 * d)];
            return [x.q, x.k, x.v][Math.floor(column / d)]![row * d + (column % d)]!;
          });
          using fused = half(all, [tokens, 3 * d], dtype);
          using q = fused.columnRange(0, d);
          using k = fused.columnRange(d, 2 * d);
          using v = fused.columnRange(2 * d, 3 * d);
          ops.attentionInto(q, q, k, v, { batch: 1, heads, scale: s.scale });
          const got = await floats(fused);
          const part = (from: number) => got.filter((_, i) => i % (3 * d) >= from && i % (3 * d) < from + d);
          check(part(0), x, s, dtype);
          expect(maxAbsDifference(part(d), x.k)).toBe(0);
          expect(maxAbsDifference(part(2 * d), x.v)).toBe(0);
        },
      );

      test('NaNs and infinities show where they belong, and nowhere else', async () => {
        force();
        const s: AttentionShape = { batch: 1, heads: 2, queries: 70, keys: 140, headDim: 16, scale: 0.25 };
        const x = inputs(s, dtype);
        x.q[3 * 32] = NaN; // query 3 of head 0
        x.v[139 * 32 + 17] = Infinity; // column 1 of head 1
        for (let j = 0; j < 70; j++) x.k[j * 32 + 2] = -Infinity; // keys of head 0 that nobody attends to…
        for (let i = 0; i < 70; i++) x.q[i * 32 + 2] = i === 9 ? -1 : 1; // …but query 9
        const got = await run(x, s, dtype);
        const wrong = new Set<string>();
        got.forEach((value, i) => {
          if (!Number.isFinite(value))
            wrong.add(i % 32 < 16 ? `query ${Math.floor(i / 32)}` : `column ${i % 32}`);
        });
        expect(wrong).toEqual(new Set(['query 3', 'query 9', 'column 17']));
        const finite = (values: ArrayLike<number>) =>
          Array.from(got, (g, i) => (Number.isFinite(g) ? values[i]! : 0));
        const judge = attention(x.q, x.k, x.v, s);
        expect(maxAbsDifference(finite(got), finite(judge))).toBeLessThan(dtype === 'F16' ? 2e-3 : 2e-2);
      });

      test('the same bits again', async () => {
        force();
        const s: AttentionShape = { batch: 1, heads: 2, queries: 100, keys: 100, headDim: 64, scale: 0.125 };
        const x = inputs(s, dtype);
        expect(await run(x, s, dtype)).toEqual(await run(x, s, dtype));
      });
    });
  });
});
