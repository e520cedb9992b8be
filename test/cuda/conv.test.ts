/** Every variant of conv2d by name, in every precision and dtype, against double-precision references. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { native, type NativeEpilogue } from '../../bindings/native.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { convolve, type ConvCase } from '../support/convolution.js';
import { describeGpus, openTarget } from '../support/devices.js';
import { activations, maxAbsDifference, normal } from '../support/reference.js';
import { ROUND } from '../support/rounding.js';
import { readAny, stored } from '../support/typed_tensors.js';

const EPS = 2 ** -24; // FP32 rounding
const HALF = { fp16: 'F16', bf16: 'BF16' } as const;
type Dtype = keyof typeof ROUND;
const largest = (values: ArrayLike<number>) =>
  Array.from(values).reduce((a, v) => Math.max(a, Math.abs(v)), 0);
/** FP32 error of a dot product of N(0,1) values: c · eps · sqrt(k) · |x|max, c = 4. */
const dotBound = (k: number, values: ArrayLike<number>) =>
  4 * EPS * Math.sqrt(k) * Math.max(1, largest(values));
const rounded = (values: ArrayLike<number>, dtype: Dtype) => Float64Array.from(values, ROUND[dtype]);

const CASES: readonly ConvCase[] = [
  { height: 7, width: 9, c: 5, n: 3, kernel: 3 },
  { height: 12, width: 11, c: 3, n: 33, kernel: 3 },
  { height: 13, width: 11, c: 64, n: 70, kernel: 3, batch: 2 }, // 286 pixels: two tiles and a bit
  { height: 9, width: 8, c: 130, n: 33, kernel: 3, stride: 2, padding: [0, 1] },
  { height: 5, width: 6, c: 40, n: 130, kernel: 3, upscale: 2, batch: 2 },
  { height: 6, width: 7, c: 96, n: 20, kernel: 5, padding: [2, 2] },
  { height: 7, width: 6, c: 16, n: 9, kernel: 1, stride: 2 },
  { height: 4, width: 6, c: 256, n: 64, kernel: 3, padding: [0, 0] }, // sums of several promotions
];
const FP32_VARIANTS = ['simt_64x64', 'mma_128x32', 'mma_128x64'];
const HALF_VARIANTS = [...FP32_VARIANTS, 'mma_128x128'];

describeGpus((target) => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = openTarget(target);
    ops = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());
  afterEach(() => {
    delete process.env['KOTOBA_VARIANT'];
  });
  const force = (variant: string) => {
    process.env['KOTOBA_VARIANT'] = `conv2d:${variant}`;
  };

  function sizes(how: ConvCase) {
    const { batch = 1, height, width, kernel, stride = 1, upscale = 1 } = how;
    const half = (kernel - 1) / 2;
    const [padBefore, padAfter] = how.padding ?? [half, half];
    const side = (size: number) => Math.floor((size * upscale + padBefore + padAfter - kernel) / stride) + 1;
    const native = { batch, height, width, upscale, kernel, stride, padBefore, padAfter };
    return { native, pixels: batch * height * width, outPixels: batch * side(height) * side(width) };
  }

  /** Enqueues conv2d into a new tensor. */
  function convolved(
    how: ConvCase,
    [x, w]: readonly [Tensor, Tensor],
    precision: 'fp32' | 'fp16' | 'bf16',
    { outDtype = 'F32', ...epilogue }: NativeEpilogue & { outDtype?: Dtype } = {},
  ): Tensor {
    const size = sizes(how);
    const out = device.empty(outDtype, [size.outPixels, how.n]);
    native.conv2d(device.native, out.native, x.native, w.native, epilogue, size.native, precision);
    return out;
  }

  function example(how: ConvCase) {
    const taps = how.kernel ** 2 * how.c;
    const x = normal(sizes(how).pixels * how.c, 1);
    const w = normal(how.n * taps, 2);
    return { x, w, xShape: [sizes(how).pixels, how.c], wShape: [how.n, taps], taps };
  }

  describe.each(FP32_VARIANTS)('fp32, %s', (variant) => {
    test.each(CASES)('%o', async (how) => {
      force(variant);
      const { x, w, xShape, wShape, taps } = example(how);
      using xt = device.from(x, xShape);
      using wt = device.from(w, wShape);
      using out = convolved(how, [xt, wt], 'fp32');
      const expected = convolve(x, w, how);
      expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(dotBound(taps, expected));
      using again = convolved(how, [xt, wt], 'fp32');
      expect(await again.read()).toEqual(await out.read()); // the same bits
    });
  });

  describe.each(['fp16', 'bf16'] as const)('%s', (precision) => {
    const dtype = HALF[precision];

    /** No more than twice what rounding the factors and the result cost, or FP32 sums if that is nothing. */
    async function check(
      out: Tensor,
      exact: Float64Array,
      plain: Float64Array,
      outDtype: Dtype,
      taps: number,
    ): Promise<void> {
      const lost = maxAbsDifference(rounded(plain, outDtype), exact);
      const bound = Math.max(2 * lost, dotBound(taps, exact));
      expect(maxAbsDifference(await readAny(out), exact)).toBeLessThanOrEqual(bound);
    }

    describe.each(HALF_VARIANTS)('%s', (variant) => {
      test.each(CASES)('%o', async (how) => {
        force(variant);
        const { x, w, xShape, wShape, taps } = example(how);
        using xt = device.from(x, xShape);
        using wt = device.from(w, wShape);
        using out = convolved(how, [xt, wt], precision);
        const plain = convolve(rounded(x, dtype), rounded(w, dtype), how);
        await check(out, convolve(x, w, how), plain, 'F32', taps);
      });
    });

    test.each([
      ['F32', 'F32', dtype],
      [dtype, 'F32', dtype],
      [dtype, dtype, 'F32'],
      [dtype, 'BF16', dtype],
      [dtype, 'F16', dtype],
    ] as const)('x %s, weights %s, out %s', async (xDtype, wDtype, outDtype) => {
      for (const c of [64, 20]) {
        const how = { height: 7, width: 6, c, n: 34, kernel: 3 };
        const { x, w, xShape, wShape, taps } = example(how);
        using xt = stored(device, x, xShape, xDtype);
        using wt = stored(device, w, wShape, wDtype);
        using out = convolved(how, [xt, wt], precision, { outDtype });
        const [xs, ws] = [rounded(x, xDtype), rounded(w, wDtype)];
        const plain = convolve(rounded(xs, dtype), rounded(ws, dtype), how);
        await check(out, convolve(xs, ws, how), plain, outDtype, taps);
      }
    });
  });

  test.each(['fp32', 'fp16', 'bf16'] as const)(
    '%s: bias, SiLU, gate and residual, on columns of wider tensors',
    async (precision) => {
      const how = { height: 6, width: 9, c: 24, n: 35, kernel: 3 };
      const { w, wShape, taps } = example(how);
      const dtype = precision === 'fp32' ? 'F32' : HALF[precision];
      const [rows, seen] = [54, normal(54 * 40, 1)];
      const [bias, gate, residual] = [normal(35, 3), normal(35, 4), normal(rows * 70, 5)];
      using wide = stored(device, seen, [rows, 40], dtype);
      using xt = wide.columnRange(8, 32);
      using wt = device.from(w, wShape);
      using bt = device.from(bias, [35]);
      using gt = stored(device, gate, [1, 35], dtype);
      using joined = device.from(residual, [rows, 70]);
      using out = joined.columnRange(35, 70);
      const epilogue = {
        bias: bt.native,
        activation: 'silu',
        multiply: gt.native,
        add: out.native,
      } as const;
      native.conv2d(device.native, out.native, xt.native, wt.native, epilogue, sizes(how).native, precision);

      const columns = rounded(seen, dtype).filter((_, i) => i % 40 >= 8 && i % 40 < 32);
      const gates = rounded(gate, dtype);
      const finished = (products: Float64Array) =>
        Float64Array.from(residual, (before, i) => {
          const [row, col] = [Math.floor(i / 70), (i % 70) - 35];
          if (col < 0) return before;
          return activations.silu(products[row * 35 + col]! + bias[col]!) * gates[col]! + before;
        });
      const exact = finished(convolve(columns, w, how));
      const plain = finished(convolve(columns, rounded(w, dtype), how));
      const bound = Math.max(2 * maxAbsDifference(plain, exact), 4 * dotBound(taps, exact));
      expect(maxAbsDifference(await joined.read(), exact)).toBeLessThan(bound);
    },
  );

  test.each(['F16', 'BF16', 'F8_E4M3', 'Q8_0'])(
    'fp32 on %s weights is exact on their values',
    async (dtype) => {
      const how = { height: 5, width: 6, c: 32, n: 5, kernel: 3 };
      using wt = device.empty(dtype, [5, 288]);
      if (dtype === 'F16' || dtype === 'BF16') {
        using floats = device.from(normal(5 * 288, 7), [5, 288]);
        ops.decodeInto(wt, floats);
      } else {
        const [count, keep] = dtype === 'Q8_0' ? [45 * 34, 0xff] : [5 * 288, 0xbf]; // F8: no NaN
        const bytes = Uint8Array.from(normal(count, 7), (v) => (v * 40) & keep);
        if (dtype === 'Q8_0') for (let at = 0; at < count; at += 34) bytes.set([0x1f, 0x24], at); // 0.016
        device.native.upload(wt.native, bytes);
      }
      const x = normal(30 * 32, 1);
      using xt = device.from(x, [30, 32]);
      const values = await readAny(wt);
      using out = convolved(how, [xt, wt], 'fp32');
      const expected = convolve(x, values, how);
      expect(largest(values)).toBeGreaterThan(0.5);
      const bound = dotBound(288, expected) * Math.max(1, largest(values));
      expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(bound);
    },
  );

  test.each(FP32_VARIANTS)('fp32, %s: what is dark stays exact beside what is bright', async (variant) => {
    force(variant);
    // Pixels of magnitudes 2^-30 to 2^30: every output is exact to FP32 of the products that it sums.
    const how = { height: 9, width: 9, c: 48, n: 8, kernel: 3 };
    const { x, w, xShape, wShape } = example(how);
    const scaled = x.map((v, i) => v * 2 ** (((Math.floor(i / 48) * 37) % 61) - 30));
    using xt = device.from(scaled, xShape);
    using wt = device.from(w, wShape);
    using out = convolved(how, [xt, wt], 'fp32');
    const magnitudes = convolve(scaled.map(Math.abs), w.map(Math.abs), how);
    const [got, expected] = [await out.read(), convolve(scaled, w, how)];
    const worst = Math.max(...expected.map((v, i) => Math.abs(got[i]! - v) / magnitudes[i]!));
    expect(worst).toBeLessThan(8 * EPS);
  });

  test.each(['fp32', 'fp16', 'bf16'] as const)(
    '%s: a NaN and an infinity reach every output that sees them, and no other',
    async (precision) => {
      const how = { height: 8, width: 10, c: 12, n: 5, kernel: 3 };
      const { x, w, xShape, wShape } = example(how);
      x[(2 * 10 + 3) * 12 + 5] = NaN;
      x[(6 * 10 + 8) * 12 + 1] = Infinity;
      for (const variant of precision === 'fp32' ? FP32_VARIANTS : HALF_VARIANTS) {
        force(variant);
        using xt = device.from(x, xShape);
        using wt = device.from(w, wShape);
        using out = convolved(how, [xt, wt], precision);
        const got = await out.read();
        const sees = (pixel: number, y: number, z: number) =>
          Math.abs(Math.floor(pixel / 10) - y) <= 1 && Math.abs((pixel % 10) - z) <= 1;
        got.forEach((v, i) => {
          const pixel = Math.floor(i / 5);
          expect(Number.isFinite(v), `${variant} ${i}`).toBe(!sees(pixel, 2, 3) && !sees(pixel, 6, 8));
        });
      }
    },
  );

  test('a 1×1 convolution is the linear layer, bit for bit', async () => {
    const [x, w] = [normal(35 * 48, 1), normal(20 * 48, 2)];
    for (const precision of ['fp32', 'bf16'] as const) {
      using xt = device.from(x, [35, 48]);
      using weight = device.from(w, [20, 48]);
      using out = convolved({ height: 5, width: 7, c: 48, n: 20, kernel: 1 }, [xt, weight], precision);
      using linear = new Ops(device, precision).linear(xt, { weight });
      expect(await out.read()).toEqual(await readAny(linear));
    }
  });
});
