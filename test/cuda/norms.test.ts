/** Norms of every length of row and in every dtype, the other ops that read and write 16 bits, on GPUs. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../bindings/native.js';
import { Device } from '../../src/runtime/device.js';
import { Ops, type Activation } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { describeGpus, openTarget } from '../support/devices.js';
import { activations, maxAbsDifference, normal } from '../support/reference.js';
import { ROUND } from '../support/rounding.js';
import { readAny, stored } from '../support/typed_tensors.js';

const EPS = 2 ** -24; // FP32 rounding
type Dtype = keyof typeof ROUND;
const DTYPES = ['F32', 'F16', 'BF16'] as const;
const HALVES = ['F16', 'BF16'] as const;
const largest = (values: ArrayLike<number>) =>
  Array.from(values).reduce((a, v) => Math.max(a, Math.abs(v)), 0);
const rounded = (values: ArrayLike<number>, dtype: Dtype) => Float32Array.from(values, ROUND[dtype]);

describeGpus((target) => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = openTarget(target);
    ops = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());

  /** `out` of 16 bits holds what the op made in FP32, rounded once. */
  async function expectRounded(out: Tensor, exact: Tensor): Promise<void> {
    expect(await readAny(out)).toEqual(rounded(await exact.read(), out.dtype as Dtype));
  }

  describe('rms_norm, layer_norm, layer_norm_modulated', () => {
    const NORMS = {
      rms: (row: readonly number[], w: Float64Array) => {
        const square = row.reduce((a, v) => a + v * v, 0) / row.length;
        return row.map((v, c) => (v / Math.sqrt(square + 1e-6)) * w[c]!);
      },
      layer: (row: readonly number[], w: Float64Array, b: Float64Array) => {
        const mean = row.reduce((a, v) => a + v, 0) / row.length;
        const variance = row.reduce((a, v) => a + (v - mean) ** 2, 0) / row.length;
        return row.map((v, c) => ((v - mean) / Math.sqrt(variance + 1e-6)) * w[c]! + b[c]!);
      },
    };
    const kinds = ['rms', 'layer', 'modulated'] as const;

    function enqueue(kind: (typeof kinds)[number], out: Tensor, x: Tensor, w: Tensor, b: Tensor): void {
      const tensors = [device.native, out.native, x.native] as const;
      if (kind === 'rms') native.rmsNorm(...tensors, w.native, 1e-6);
      else if (kind === 'layer') native.layerNorm(...tensors, w.native, b.native, 1e-6);
      else native.layerNormModulated(...tensors, b.native, w.native, 1e-6);
    }

    // Rows of a warp's registers (to 1024), of a block's (to 4096), longer ones, and those of no whole vectors.
    const COLS = [4, 7, 100, 768, 1024, 1028, 3072, 4096, 4100, 5001];
    test.each(kinds.flatMap((kind) => COLS.map((cols) => [kind, cols] as const)))(
      '%s, rows of %i',
      async (kind, cols) => {
        const rows = cols > 1024 ? 3 : 19;
        const x = normal(rows * cols, 1).map((v, i) => v * 10 ** ((Math.floor(i / cols) % 5) - 2) + 0.25);
        const [w, b] = [normal(cols, 2), normal(cols, 3)];
        using xt = device.from(x, [rows, cols]);
        using wt = device.from(w, kind === 'modulated' ? [1, cols] : [cols]);
        using bt = device.from(b, kind === 'modulated' ? [1, cols] : [cols]);
        using out = device.empty('F32', [rows, cols]);
        enqueue(kind, out, xt, wt, bt);
        const weights = Float64Array.from(w, (v) => (kind === 'modulated' ? 1 + v : v));
        const expected = Array.from({ length: rows }, (_, r) =>
          NORMS[kind === 'rms' ? 'rms' : 'layer'](
            Array.from(x.subarray(r * cols, (r + 1) * cols)),
            weights,
            Float64Array.from(b),
          ),
        ).flat();
        // Up to 16 roundings of x̂, however far the mean is from 0, times the weight.
        const bound = 32 * EPS * largest(expected);
        expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(bound);
        for (const dtype of HALVES) {
          using half = device.empty(dtype, [rows, cols]);
          enqueue(kind, half, xt, wt, bt);
          await expectRounded(half, out);
        }
      },
    );

    test.each(kinds)('%s: columns of wider tensors, aligned to vectors and not', async (kind) => {
      for (const [start, cols, width] of [
        [8, 64, 80],
        [3, 64, 80],
        [4, 64, 77],
      ] as const) {
        const x = normal(5 * width, 1);
        using wide = device.from(x, [5, width]);
        using xt = wide.columnRange(start, start + cols);
        using w = device.from(normal(cols, 2), kind === 'modulated' ? [1, cols] : [cols]);
        using out = device.empty('F32', [5, cols]);
        enqueue(kind, out, xt, w, w);
        using dense = device.from(await xt.read(), [5, cols]);
        using expected = device.empty('F32', [5, cols]);
        enqueue(kind, expected, dense, w, w);
        const bound = 32 * EPS * largest(await expected.read());
        expect(maxAbsDifference(await out.read(), await expected.read())).toBeLessThan(bound);
        using joined = device.from(x, [5, width]);
        using part = joined.columnRange(start, start + cols);
        enqueue(kind, part, dense, w, w);
        const [got, made] = [await joined.read(), await part.read()];
        expect(maxAbsDifference(made, await expected.read())).toBeLessThan(bound);
        const outside = (_: number, i: number) => i % width < start || i % width >= start + cols;
        expect(got.filter(outside)).toEqual(x.filter(outside));
      }
    });

    test.each(['F16', 'BF16', 'F8_E4M3', 'Q8_0'])('weights of %s', async (dtype) => {
      const cols = 96;
      using w = device.empty(dtype, [cols]);
      const bytes = { F16: 192, BF16: 192, F8_E4M3: 96, Q8_0: 102 }[dtype]!;
      const noise = Uint8Array.from(normal(bytes, 4), (v) => (v * 40) & 0x3b);
      if (dtype === 'Q8_0') for (let at = 0; at < bytes; at += 34) noise.set([0x1f, 0x24], at);
      device.native.upload(w.native, noise);
      using values = ops.decode(w);
      using x = device.from(normal(4 * cols, 1), [4, cols]);
      for (const kind of ['rms', 'layer'] as const) {
        using out = device.empty('F32', [4, cols]);
        using expected = device.empty('F32', [4, cols]);
        enqueue(kind, out, x, w, w);
        enqueue(kind, expected, x, values, values);
        const bound = 32 * EPS * largest(await expected.read());
        expect(maxAbsDifference(await out.read(), await expected.read())).toBeLessThan(bound);
      }
    });

    test.each(kinds)('%s: a NaN fills its row, and only it', async (kind) => {
      for (const cols of [64, 2048, 5001]) {
        const x = normal(3 * cols, 1);
        x[cols + 17] = NaN;
        using xt = device.from(x, [3, cols]);
        using w = device.from(normal(cols, 2), kind === 'modulated' ? [1, cols] : [cols]);
        using out = device.empty('F32', [3, cols]);
        enqueue(kind, out, xt, w, w);
        const got = await out.read();
        expect(got.subarray(cols, 2 * cols).every(Number.isNaN)).toBe(true);
        expect(got.filter((_, i) => Math.floor(i / cols) !== 1).every(Number.isFinite)).toBe(true);
      }
    });
  });

  describe('group_norm', () => {
    const SHAPES = [
      { batch: 2, pixels: 130, channels: 96, groups: 32, mean: 3 }, // groups of 3: vectors cross them
      { batch: 1, pixels: 77, channels: 320, groups: 32, mean: 0 }, // groups of 10
      { batch: 2, pixels: 50, channels: 1280, groups: 32, mean: 0 }, // two tiles of channels
      { batch: 1, pixels: 1100, channels: 128, groups: 32, mean: 100 }, // many tiles of pixels
      { batch: 3, pixels: 1, channels: 64, groups: 16, mean: 0 },
      { batch: 1, pixels: 9, channels: 33, groups: 3, mean: 0 }, // no vectors
      { batch: 1, pixels: 5, channels: 4800, groups: 2, mean: 1 }, // a group is wider than a tile
    ];

    test.each(SHAPES)('%o', async ({ batch, pixels, channels, groups, mean }) => {
      const count = batch * pixels * channels;
      const x = normal(count, 1).map((v) => 2 * v + mean);
      using weight = device.from(normal(channels, 2), [channels]);
      using bias = device.from(normal(channels, 3), [channels]);
      const [w, b] = [await weight.read(), await bias.read()];
      const how = { batch, groups, eps: 1e-6 };
      for (const dtype of DTYPES) {
        using xt = stored(device, x, [batch * pixels, channels], dtype);
        using out = ops.groupNorm(xt, { weight, bias }, how);
        const expected = groupNormed(rounded(x, dtype), w, b, how);
        const bound = 8 * EPS * Math.max(1, largest(expected));
        expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(bound);
        using silu = ops.groupNorm(xt, { weight, bias }, { ...how, activation: 'silu' });
        using half = device.empty(dtype === 'F32' ? 'BF16' : dtype, xt.shape);
        native.groupNorm(device.native, half.native, xt.native, weight.native, bias.native, {
          ...how,
          activation: 'silu',
        });
        await expectRounded(half, silu);
      }
    });

    test('columns of a wider tensor, in place', async () => {
      const x = normal(40 * 80, 1);
      using wide = device.from(x, [40, 80]);
      using part = wide.columnRange(8, 72);
      using weight = device.from(normal(64, 2), [64]);
      using dense = device.from(await part.read(), [40, 64]);
      using expected = ops.groupNorm(dense, { weight, bias: weight }, { batch: 2, groups: 8, eps: 1e-6 });
      native.groupNorm(device.native, part.native, part.native, weight.native, weight.native, {
        batch: 2,
        groups: 8,
        eps: 1e-6,
      });
      expect(await part.read()).toEqual(await expected.read());
      const outside = (_: number, i: number) => i % 80 < 8 || i % 80 >= 72;
      expect((await wide.read()).filter(outside)).toEqual(x.filter(outside));
    });

    test('a NaN fills its group of its image, and only it', async () => {
      const x = normal(2 * 30 * 64, 1);
      x[(30 + 7) * 64 + 21] = NaN; // image 1, group 2 of 8
      using xt = device.from(x, [60, 64]);
      using weight = device.from(normal(64, 2), [64]);
      using out = ops.groupNorm(xt, { weight, bias: weight }, { batch: 2, groups: 8, eps: 1e-6 });
      (await out.read()).forEach((v, i) => {
        const inside = i >= 30 * 64 && Math.floor((i % 64) / 8) === 2;
        expect(Number.isNaN(v), `${i}`).toBe(inside);
      });
    });
  });

  describe('16 bits in and out', () => {
    test.each(HALVES)('head_norm_rope on %s', async (dtype) => {
      for (const [heads, headDim, parts] of [
        [3, 128, 'both'],
        [2, 64, 'both'],
        [4, 40, 'norm'],
        [5, 18, 'rotation'], // no whole vectors
      ] as const) {
        const [tokens, longer, cols] = [7, 12, heads * headDim];
        using x = stored(device, normal(2 * tokens * cols, 1), [2 * tokens, cols], dtype);
        using exact = ops.decode(x);
        using weight = device.from(normal(headDim, 2), [headDim]);
        using rotation = device.from(normal(longer * headDim, 3), [longer, headDim]);
        const given = {
          weight: parts === 'rotation' ? undefined : weight,
          rotation: parts === 'norm' ? undefined : rotation,
        };
        const how = { batch: 2, heads, offset: 4, eps: 1e-6 };
        const before = normal(2 * longer * cols, 4);
        using wanted = device.from(before, [2 * longer, cols]);
        ops.headNormRope(wanted, exact, given, how);
        using out = stored(device, before, [2 * longer, cols], dtype);
        ops.headNormRope(out, x, given, how);
        // Sums of squares in another order, so not the same bits: half a unit in the last place, and FP32's own.
        const expected = await wanted.read();
        const unit = dtype === 'F16' ? 2 ** -11 : 2 ** -8;
        (await readAny(out)).forEach((v, i) => {
          const bound = unit * Math.abs(expected[i]!) + 16 * EPS * largest(expected);
          expect(Math.abs(v - expected[i]!), `${heads}x${headDim} ${i}`).toBeLessThanOrEqual(bound);
        });
        using same = device.from(before, [2 * longer, cols]);
        ops.headNormRope(same, x, given, how); // from 16 bits to F32
        const bound = 16 * EPS * largest(expected);
        expect(maxAbsDifference(await same.read(), expected)).toBeLessThanOrEqual(bound);
      }
    });

    const KINDS = Object.keys(activations) as Activation[];
    test.each(KINDS)('activate: %s', async (kind) => {
      for (const cols of [64, 37])
        for (const dtype of DTYPES) {
          using x = stored(
            device,
            normal(6 * cols, 1).map((v) => 3 * v),
            [6, cols],
            dtype,
          );
          using exact = ops.decode(x);
          using expected = ops.activate(exact, kind);
          for (const outDtype of DTYPES) {
            using out = device.empty(outDtype, [6, cols]);
            native.activate(device.native, out.native, x.native, kind);
            await expectRounded(out, expected);
          }
          native.activate(device.native, x.native, x.native, kind); // in place
          await expectRounded(x, expected);
        }
    });

    test.each(HALVES)('copy_tokens moves %s as it is', async (dtype) => {
      for (const [start, cols] of [
        [8, 24],
        [3, 7],
      ] as const) {
        const values = normal(10 * 40, 1);
        using wide = stored(device, values, [10, 40], dtype);
        using x = wide.columnRange(start, start + cols);
        using out = stored(device, normal(14 * cols, 2), [14, cols], dtype);
        const expected = await readAny(out);
        const inside = (_: number, i: number) => i % 40 >= start && i % 40 < start + cols;
        const from = rounded(values, dtype).filter(inside);
        ops.copyTokens(out, x, { batch: 2, tokens: 3, outOffset: 2, xOffset: 1 });
        for (const b of [0, 1])
          expected.set(from.subarray((b * 5 + 1) * cols, (b * 5 + 4) * cols), (b * 7 + 2) * cols);
        expect(await readAny(out)).toEqual(expected);
      }
    });
  });

  test.each(['F32', 'F16', 'BF16', 'F8_E4M3', 'Q4_0', 'Q8_0', 'Q6_K', 'IQ3_S', 'IQ4_XS'])(
    'embedding from %s is what decode makes of its rows',
    async (dtype) => {
      const [rows, cols] = [9, 512];
      using table = device.empty(dtype, [rows, cols]);
      const [block, size] = BLOCKS[dtype as keyof typeof BLOCKS];
      const bytes = Uint8Array.from(normal(((rows * cols) / block) * size, 5), (v) => (v * 40) & 0x3b);
      device.native.upload(table.native, bytes);
      using decoded = ops.decode(table);
      const values = await decoded.read();
      using ids = device.from(new Int32Array([8, 0, 3, 8]), [4]);
      using out = ops.embedding(table, ids);
      const expected = Float32Array.from(
        { length: 4 * cols },
        (_, i) => values[[8, 0, 3, 8][Math.floor(i / cols)]! * cols + (i % cols)]!,
      );
      expect(await out.read()).toEqual(expected);
      // Into columns that are no whole vectors, twice.
      using wide = device.from(new Float32Array(4 * 517), [4, 517]);
      using part = wide.columnRange(3, 3 + cols);
      ops.embeddingAdd(part, table, ids);
      ops.embeddingAdd(part, table, ids);
      expect(await part.read()).toEqual(expected.map((v) => 0 + v + v)); // -0 is lost
    },
  );
});

/** weights and bytes of a block */
const BLOCKS = {
  F32: [1, 4],
  F16: [1, 2],
  BF16: [1, 2],
  F8_E4M3: [1, 1],
  Q4_0: [32, 18],
  Q8_0: [32, 34],
  Q6_K: [256, 210],
  IQ3_S: [256, 110],
  IQ4_XS: [256, 136],
} as const;

/** x [batch · pixels, channels], arXiv:1803.08494 */
function groupNormed(
  x: Float32Array,
  weight: Float32Array,
  bias: Float32Array,
  { batch, groups, eps }: { batch: number; groups: number; eps: number },
): Float64Array {
  const channels = weight.length;
  const of = (i: number) =>
    Math.floor(i / (x.length / batch)) * groups + Math.floor(((i % channels) * groups) / channels);
  const count = x.length / batch / groups;
  const mean = new Float64Array(batch * groups);
  const variance = new Float64Array(batch * groups);
  x.forEach((v, i) => (mean[of(i)]! += v / count));
  x.forEach((v, i) => (variance[of(i)]! += (v - mean[of(i)]!) ** 2 / count));
  return Float64Array.from(
    x,
    (v, i) =>
      ((v - mean[of(i)]!) / Math.sqrt(variance[of(i)]! + eps)) * weight[i % channels]! + bias[i % channels]!,
  );
}
