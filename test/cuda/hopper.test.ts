/**
 * The matmuls on TMA and wgmma, every tile forced, on the simulator (or a Hopper GPU): sizes that end inside of tiles,
 * more tiles than blocks, tiles divided along k, every epilogue.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Device } from '../../src/runtime/device.js';
import { Ops, type Activation } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { describeGpus, GPU_TARGETS, openTarget } from '../support/devices.js';
import { activations, matmul, maxAbsDifference, normal } from '../support/reference.js';

const DENSE = ['wgmma_128x256', 'wgmma_128x192', 'wgmma_128x128', 'wgmma_128x64'] as const;
const SPLIT = ['wgmma_128x128', 'wgmma_128x64'] as const;
const ACTIVATIONS = Object.keys(activations) as Activation[];

/** Integers from -8 to 8: products and sums of them are exact in 16 bits and in FP32. */
const integers = (count: number, seed: number): Float32Array =>
  normal(count, seed).map((v) => Math.max(-8, Math.min(8, Math.round(3 * v))));

const hopper = GPU_TARGETS.filter((target) => {
  const device = openTarget(target);
  const arch = device.info.instructions;
  device.close();
  return arch === 'sm_90';
});

describeGpus((target) => {
  let device: Device;
  beforeAll(() => {
    device = openTarget(target);
  });
  afterAll(() => device.close());
  afterEach(() => {
    delete process.env['KOTOBA_VARIANT'];
  });
  const forceDense = (tile: string) => (process.env['KOTOBA_VARIANT'] = `linear:dense,dense:${tile}`);
  const forceSplit = (tile: string) => (process.env['KOTOBA_VARIANT'] = `linear:split,split:${tile}`);
  /** `x` in the dtype of the precision's matmuls. */
  const inner = (ops: Ops, x: Tensor) => ops.inner.activate(x, 'none');

  /** With the four multiprocessors of the simulator: fewer tiles than blocks, more, and tiles divided along k. */
  const SHAPES = [
    [1, 1, 8],
    [5, 9, 3],
    [77, 131, 72],
    [129, 257, 200],
    [300, 520, 65],
    [70, 50, 3000], // divided along k
    [257, 260, 320],
  ] as const;

  describe.each(DENSE)('dense %s', (tile) => {
    const exact = async (precision: 'fp16' | 'bf16', m: number, n: number, k: number) => {
      forceDense(tile);
      const ops = new Ops(device, precision);
      const x = integers(m * k, 1);
      const w = integers(n * k, 2);
      using xt = device.from(x, [m, k]);
      using weight = device.from(w, [n, k]);
      using out = ops.linear(xt, { weight });
      expect(await out.read()).toEqual(Float32Array.from(matmul(x, w, m, n, k)));
    };
    test.each(SHAPES)('%i × %i × %i in fp16 is exact on integers', (m, n, k) => exact('fp16', m, n, k));
    test('and so is bf16', () => exact('bf16', 129, 257, 200));

    test('columns of wider tensors in and out, stored in 16 bits', async () => {
      forceDense(tile);
      const ops = new Ops(device, 'bf16');
      const [m, n, k] = [140, 72, 136];
      const x = integers(m * 3 * k, 1);
      const w = integers(n * k, 2);
      using fused = device.from(x, [m, 3 * k]);
      using fusedInner = inner(ops, fused);
      using middle = fusedInner.columnRange(k, 2 * k);
      using full = device.from(w, [n, k]);
      using weight = inner(ops, full);
      using out = device.from(new Float32Array(m * (n + 8)).fill(0.5), [m, n + 8]);
      using columns = out.columnRange(4, 4 + n);
      ops.linearInto(columns, middle, { weight });
      const part = x.filter((_, i) => Math.floor((i % (3 * k)) / k) === 1);
      const product = matmul(part, w, m, n, k);
      const expected = Float32Array.from({ length: m * (n + 8) }, (_, i) => {
        const [row, col] = [Math.floor(i / (n + 8)), (i % (n + 8)) - 4];
        return col < 0 || col >= n ? 0.5 : product[row * n + col]!;
      });
      expect(await out.read()).toEqual(expected);
    });

    test.each(ACTIVATIONS)(
      'epilogue: %s, bias, scale, multiply, add; F32 and 16-bit results',
      async (activation) => {
        forceDense(tile);
        const ops = new Ops(device, 'fp16');
        const [m, n, k] = [38, 70, 72];
        const [x, w] = [integers(m * k, 1), integers(n * k, 2)];
        const [bias, gate, residual] = [normal(n, 3), normal(m * n, 4), normal(m * n, 5)];
        const scale = normal(n, 6).map((v) => v / 100);
        using xt = device.from(x, [m, k]);
        using weight = device.from(w, [n, k]);
        using bt = device.from(bias, [n]);
        using gt = device.from(gate, [m, n]);
        using st = device.from(scale, [n]);
        const layer = { weight, bias: bt, scale: st };
        const product = matmul(x, w, m, n, k).map((v, i) => v * scale[i % n]! + bias[i % n]!);
        const expected = product.map((v, i) => activations[activation](v) * gate[i]!);
        const largest = expected.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
        using out = ops.linear(xt, layer, { activation, multiply: gt });
        expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(8 * 2 ** -24 * largest);
        using short = ops.inner.linear(xt, layer, { activation, multiply: gt });
        using decoded = ops.decode(short);
        expect(maxAbsDifference(await decoded.read(), expected)).toBeLessThan(1.01 * 2 ** -11 * largest);

        using stream = device.from(residual, [m, n]);
        using groups = device.from(gate.slice(0, 2 * n), [2, n]);
        ops.linearAdd(stream, xt, layer, groups);
        const added = product.map((v, i) => v * gate[Math.floor(i / n / 19) * n + (i % n)]! + residual[i]!);
        const most = added.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
        expect(maxAbsDifference(await stream.read(), added)).toBeLessThan(8 * 2 ** -24 * most);
      },
    );
  });

  describe.each(SPLIT)('split %s', (tile) => {
    test.each(SHAPES)('%i × %i × %i is exact on integers', async (m, n, k) => {
      forceSplit(tile);
      const ops = new Ops(device, 'fp32');
      const x = integers(m * k, 1);
      const w = integers(n * k, 2);
      using xt = device.from(x, [m, k]);
      using weight = device.from(w, [n, k]);
      using out = ops.linear(xt, { weight });
      const expected = Float32Array.from(matmul(x, w, m, n, k));
      expect(await out.read()).toEqual(expected);
      // F16 weights have no low part.
      using short = inner(new Ops(device, 'fp16'), weight);
      using same = ops.linear(xt, { weight: short });
      expect(await same.read()).toEqual(expected);
    });

    test('is at least as exact as the FP32 kernel, rows of any size', async () => {
      const ops = new Ops(device, 'fp32');
      const [m, n, k] = [20, 36, 1024];
      const x = normal(m * k, 1).map((v, i) => v * 10 ** ((Math.floor(i / k) % 9) - 4));
      const w = normal(n * k, 2);
      using xt = device.from(x, [m, k]);
      using weight = device.from(w, [n, k]);
      const expected = matmul(x, w, m, n, k);
      const size = (i: number) => 10 ** ((Math.floor(i / n) % 9) - 4);
      const error = async () => {
        using out = ops.linear(xt, { weight });
        const got = await out.read();
        return Math.sqrt(expected.reduce((a, v, i) => a + ((v - got[i]!) / size(i)) ** 2, 0));
      };
      process.env['KOTOBA_VARIANT'] = 'linear:simt_64x64';
      const plain = await error();
      forceSplit(tile);
      expect(await error()).toBeLessThan(plain);
    });
  });

  test.each([
    ['bf16', 'linear:dense,dense:wgmma_128x64'],
    ['fp32', 'linear:split,split:wgmma_128x64'],
  ] as const)('%s: tiles divided along k give the same bits in every run', async (precision, variant) => {
    process.env['KOTOBA_VARIANT'] = variant;
    const ops = new Ops(device, precision);
    const [m, n, k] = [100, 60, 3000];
    using xt = device.from(normal(m * k, 1), [m, k]);
    using weight = device.from(normal(n * k, 2), [n, k]);
    using first = ops.linear(xt, { weight });
    using second = ops.linear(xt, { weight });
    expect(await second.read()).toEqual(await first.read());
  });

  test.each([
    ['fp16', 'linear:dense,dense:wgmma_128x128'],
    ['fp32', 'linear:split,split:wgmma_128x128'],
  ] as const)('%s: a NaN spoils its row, and no other', async (precision, variant) => {
    process.env['KOTOBA_VARIANT'] = variant;
    const ops = new Ops(device, precision);
    const [m, n, k] = [130, 20, 72];
    const x = integers(m * k, 1);
    x[129 * k + 71] = NaN;
    using xt = device.from(x, [m, k]);
    using weight = device.from(integers(n * k, 2), [n, k]);
    using out = ops.linear(xt, { weight });
    const got = await out.read();
    const rows = Array.from({ length: m }, (_, row) => got.slice(row * n, (row + 1) * n));
    expect(rows.map((row) => row.every(Number.isFinite))).toEqual(rows.map((_, row) => row !== 129));
    expect(rows[129]!.every(Number.isNaN)).toBe(true);
  });
}, hopper);
