/** Every op on every instruction set this CPU runs, odd shapes included, against double references. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops, type Activation } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { isCpu, openTarget, TARGETS } from '../support/devices.js';
import { activations, attention, matmul, maxAbsDifference, normal, t5Bucket } from '../support/reference.js';

const EPS = 2 ** -24; // FP32 rounding
/** FP32 error of a dot product of N(0,1) values: c · eps · sqrt(k) · |x|max, c = 4. */
const dotBound = (k: number, largest: number) => 4 * EPS * Math.sqrt(k) * Math.max(1, largest);
const largest = (values: ArrayLike<number>) =>
  Array.from(values).reduce((a, v) => Math.max(a, Math.abs(v)), 0);

describe.each(TARGETS)('%s', (target) => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = openTarget(target);
    ops = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());

  const SHAPES = [
    [1, 1, 1],
    [1, 33, 7],
    [3, 5, 300],
    [7, 130, 65],
    [16, 48, 64],
    [17, 49, 257],
    [77, 96, 80],
    [100, 7, 1030],
  ] as const;

  test.each(SHAPES)('linear %i × %i × %i', async (m, n, k) => {
    const x = normal(m * k, 1);
    const w = normal(n * k, 2);
    using xt = device.from(x, [m, k]);
    using wt = device.from(w, [n, k]);
    using out = ops.linear(xt, { weight: wt });
    const expected = matmul(x, w, m, n, k);
    expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(dotBound(k, largest(expected)));
  });

  test.each(Object.keys(activations) as Activation[])(
    'linear epilogue: %s, bias, scale, multiply, add',
    async (activation) => {
      const [m, n, k] = [19, 37, 50];
      const [x, w, bias, gate, residual, scale] = [
        normal(m * k, 1),
        normal(n * k, 2),
        normal(n, 3),
        normal(m * n, 4),
        normal(m * n, 5),
        normal(n, 6),
      ];
      using xt = device.from(x, [m, k]);
      using weight = device.from(w, [n, k]);
      using bt = device.from(bias, [n]);
      using gt = device.from(gate, [m, n]);
      using st = device.from(scale, [n]);
      using out = ops.linear(xt, { weight, bias: bt, scale: st }, { activation, multiply: gt });
      const act = activations[activation];
      const product = matmul(x, w, m, n, k);
      const expected = product.map((v, i) => act(v * scale[i % n]! + bias[i % n]!) * gate[i]!);
      expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(dotBound(k, 4 * largest(expected)));

      using stream = device.from(residual, [m, n]);
      ops.linearAdd(stream, xt, { weight, bias: bt });
      const added = product.map((v, i) => v + bias[i % n]! + residual[i]!);
      expect(maxAbsDifference(await stream.read(), added)).toBeLessThan(dotBound(k, 2 * largest(added)));
    },
  );

  test('linear on strided views: columns in, columns out of a fused tensor', async () => {
    const [m, n, k] = [9, 20, 24];
    const x = normal(m * 3 * k, 1);
    const w = normal(n * k, 2);
    using fused = device.from(x, [m, 3 * k]);
    using middle = fused.columnRange(k, 2 * k);
    using weight = device.from(w, [n, k]);
    using out = ops.linear(middle, { weight });
    const columns = Float32Array.from(
      { length: m * k },
      (_, i) => x[Math.floor(i / k) * 3 * k + k + (i % k)]!,
    );
    expect(await middle.read()).toEqual(columns);
    const expected = matmul(columns, w, m, n, k);
    expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(dotBound(k, largest(expected)));
  });

  // GPUs run int8 as fp32.
  test.runIf(isCpu(target))(
    'int8: error of a product of N(0,1) values stays below 1.2 % relative RMS',
    async () => {
      const [m, n, k] = [33, 70, 512];
      const x = normal(m * k, 1);
      const w = normal(n * k, 2);
      using xt = device.from(x, [m, k]);
      using weight = device.from(w, [n, k]);
      using out = new Ops(device, 'int8').linear(xt, { weight });
      const got = await out.read();
      const expected = matmul(x, w, m, n, k);
      const error = Math.sqrt(expected.reduce((a, v, i) => a + (v - got[i]!) ** 2, 0));
      const ratio = error / Math.sqrt(expected.reduce((a, v) => a + v * v, 0));
      expect(ratio).toBeLessThan(0.012);
      expect(ratio).toBeGreaterThan(1e-4); // it is the int8 path that ran
    },
  );

  test('int8: a NaN or an infinity is never hidden', async () => {
    const x = normal(2 * 64, 1);
    x[3] = NaN;
    x[64 + 40] = Infinity;
    using xt = device.from(x, [2, 64]);
    using weight = device.from(normal(5 * 64, 2), [5, 64]);
    using out = new Ops(device, 'int8').linear(xt, { weight });
    expect(Array.from(await out.read()).filter(Number.isFinite)).toEqual([]);
  });

  const ATTENTION = [
    { batch: 1, heads: 1, queries: 1, keys: 1, headDim: 16 },
    { batch: 2, heads: 3, queries: 7, keys: 7, headDim: 20, causal: true },
    { batch: 1, heads: 2, queries: 77, keys: 77, headDim: 64, causal: true },
    { batch: 2, heads: 2, queries: 40, keys: 129, headDim: 64 },
    { batch: 1, heads: 2, queries: 130, keys: 130, headDim: 80 },
    { batch: 1, heads: 1, queries: 33, keys: 70, headDim: 136 },
  ];

  test.each(ATTENTION)('attention %o', async (shape) => {
    const { batch, heads, queries, keys, headDim } = shape;
    const d = heads * headDim;
    const q = normal(batch * queries * d, 1);
    const k = normal(batch * keys * d, 2);
    const v = normal(batch * keys * d, 3);
    const scale = 1 / Math.sqrt(headDim);
    using qt = device.from(q, [batch * queries, d]);
    using kt = device.from(k, [batch * keys, d]);
    using vt = device.from(v, [batch * keys, d]);
    using out = ops.attention(qt, kt, vt, { batch, heads, scale, causal: shape.causal ?? false });
    const expected = attention(q, k, v, { ...shape, scale });
    expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(dotBound(keys, largest(expected)));
  });

  test.each([1, 7, 77, 300])('attention with T5 bias and a key mask, %i tokens', async (tokens) => {
    const [batch, heads, headDim, buckets, maxDistance] = [2, 3, 16, 32, 128];
    const d = heads * headDim;
    const [q, k, v] = [1, 2, 3].map((seed) => normal(batch * tokens * d, seed)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const table = normal(buckets * heads, 4);
    const keyMask = Int32Array.from({ length: batch * tokens }, (_, i) => ((i % tokens) % 5 !== 3 ? 1 : 0));
    const tensors: Tensor[] = [q, k, v].map((x) => device.from(x, [batch * tokens, d]));
    using tableT = device.from(table, [buckets, heads]);
    using maskT = device.from(keyMask, [batch, tokens]);
    using out = ops.attention(tensors[0]!, tensors[1]!, tensors[2]!, {
      batch,
      heads,
      scale: 1,
      keyMask: maskT,
      bias: { table: tableT, bidirectional: true, maxDistance },
    });
    const bias = (h: number, distance: number) =>
      table[t5Bucket(distance, buckets, maxDistance) * heads + h]!;
    const expected = attention(q, k, v, {
      batch,
      heads,
      queries: tokens,
      keys: tokens,
      headDim,
      scale: 1,
      keyMask,
      bias,
    });
    expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(
      8 * dotBound(tokens, largest(expected)),
    );
    for (const tensor of tensors) tensor.dispose();
  });

  test('a sequence whose keys are all masked attends to all alike, as additive masking does', async () => {
    const v = normal(3 * 16, 3);
    using q = device.from(normal(3 * 16, 1), [3, 16]);
    using vt = device.from(v, [3, 16]);
    using mask = device.from(new Int32Array(3), [1, 3]);
    using out = ops.attention(q, q, vt, { batch: 1, heads: 1, scale: 1, keyMask: mask });
    const mean = Float32Array.from(
      { length: 48 },
      (_, i) => (v[i % 16]! + v[16 + (i % 16)]! + v[32 + (i % 16)]!) / 3,
    );
    expect(maxAbsDifference(await out.read(), mean)).toBeLessThan(1e-6);
  });

  test.each([
    [1, 1],
    [3, 7],
    [5, 768],
    [2, 4099],
  ])('norms %i × %i', async (rows, cols) => {
    const x = normal(rows * cols, 1).map((v, i) => v * (Math.floor(i / cols) === 0 ? 1e-3 : 300) + 0.5);
    const weight = normal(cols, 2);
    const bias = normal(cols, 3);
    using xt = device.from(x, [rows, cols]);
    using wt = device.from(weight, [cols]);
    using bt = device.from(bias, [cols]);
    using rms = ops.rmsNorm(xt, wt, 1e-6);
    using layer = ops.layerNorm(xt, { weight: wt, bias: bt }, 1e-5);
    const expectedRms = new Float64Array(rows * cols);
    const expectedLayer = new Float64Array(rows * cols);
    for (let r = 0; r < rows; r++) {
      const row = Array.from(x.subarray(r * cols, (r + 1) * cols));
      const mean = row.reduce((a, v) => a + v, 0) / cols;
      const square = row.reduce((a, v) => a + v * v, 0) / cols;
      const variance = row.reduce((a, v) => a + (v - mean) ** 2, 0) / cols;
      row.forEach((v, c) => {
        expectedRms[r * cols + c] = (v / Math.sqrt(square + 1e-6)) * weight[c]!;
        expectedLayer[r * cols + c] = ((v - mean) / Math.sqrt(variance + 1e-5)) * weight[c]! + bias[c]!;
      });
    }
    const bound = (expected: Float64Array) => 32 * EPS * largest(expected);
    expect(maxAbsDifference(await rms.read(), expectedRms)).toBeLessThan(bound(expectedRms));
    // Row 0 is 0.5 ± 0.001: subtracting the mean costs the digits that the input never had.
    expect(maxAbsDifference(await layer.read(), expectedLayer)).toBeLessThan(512 * bound(expectedLayer));
  });

  test('embedding, accumulate, transpose', async () => {
    const table = normal(5 * 9, 1);
    const ids = new Int32Array([4, 0, 4]);
    using tt = device.from(table, [5, 9]);
    using it = device.from(ids, [3]);
    using rows = ops.embedding(tt, it);
    ops.embeddingAdd(rows, tt, it);
    const expected = Float32Array.from(
      { length: 27 },
      (_, i) => 2 * table[ids[Math.floor(i / 9)]! * 9 + (i % 9)]!,
    );
    expect(await rows.read()).toEqual(expected);
    using transposed = ops.transpose(tt);
    expect(transposed.shape).toEqual([9, 5]);
    expect(await transposed.read()).toEqual(
      Float32Array.from({ length: 45 }, (_, i) => table[(i % 5) * 9 + Math.floor(i / 5)]!),
    );
  });

  test('the same bits for any number of threads, and on repeat', async () => {
    const x = normal(77 * 640, 1);
    const w = normal(300 * 640, 2);
    const bits: string[] = [];
    for (const threads of [1, 2, 3, 2]) {
      await using other = openTarget(target, { threads });
      const otherOps = new Ops(other, 'fp32');
      const xt = other.from(x, [77, 640]);
      const wt = other.from(w, [300, 640]);
      const y = otherOps.linear(xt, { weight: wt });
      const z = otherOps.attention(xt, xt, xt, { batch: 1, heads: 10, scale: 0.1 });
      const i8 = new Ops(other, 'int8').linear(xt, { weight: wt });
      const values = await Promise.all([y.read(), z.read(), i8.read()]);
      bits.push(values.map((v) => Buffer.from(v.buffer).toString('base64')).join());
    }
    expect(new Set(bits).size).toBe(1);
  });
});
