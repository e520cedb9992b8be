/**
 * The tensor cores' matmuls, every tile forced one by one, against a judge in FP64. The dense ones round their factors
 * to 16 bits and are exact to FP32 sums from there; the split ones are as exact as the FP32 kernel.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops, type Activation } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { TARGETS } from '../support/devices.js';
import { HALF_DTYPES, rounded, type Half } from '../support/half.js';
import { activations, matmul, maxAbsDifference, normal, relativeL2 } from '../support/reference.js';

const DENSE = ['mma_128x256', 'mma_128x128', 'mma_128x64', 'mma_64x64'] as const;
const SPLIT = ['mma_128x128', 'mma_64x128', 'mma_64x64'] as const;
const PRECISIONS = { F16: 'fp16', BF16: 'bf16' } as const;

/** m, n, k: odd ones, tiles ± 1, and k long enough to be cut in parts. */
const SHAPES = [
  [17, 49, 257],
  [77, 96, 80],
  [129, 65, 64],
  [63, 257, 24],
  [20, 40, 1032],
] as const;

const EPS = 2 ** -24; // FP32 rounding
const largest = (values: ArrayLike<number>) =>
  Array.from(values).reduce((a, v) => Math.max(a, Math.abs(v)), 0);
/** FP32 error of a dot product of N(0,1) values: c · eps · sqrt(k) · |x|max, c = 4. */
const dotBound = (k: number, most: number) => 4 * EPS * Math.sqrt(k) * Math.max(1, most);
/** A result stored in `dtype` is off by half a unit more. */
const storedBound = (dtype: Half, most: number) => most * (dtype === 'F16' ? 2 ** -11 : 2 ** -8);

describe.runIf(TARGETS.includes('cuda-sim'))('cuda-sim', () => {
  let device: Device;
  let exact: Ops;
  beforeAll(() => {
    device = Device.open('cuda-sim');
    exact = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());
  afterEach(() => {
    delete process.env['KOTOBA_VARIANT'];
  });

  const force = (names: string) => (process.env['KOTOBA_VARIANT'] = names);
  function stored(values: Float32Array, shape: readonly number[], dtype: string): Tensor {
    const floats = device.from(values, shape);
    if (dtype === 'F32') return floats;
    const out = device.empty(dtype, shape);
    exact.decodeInto(out, floats);
    floats.dispose();
    return out;
  }
  async function floats(x: Tensor): Promise<Float32Array> {
    using decoded = exact.decode(x);
    return await decoded.read();
  }
  const poisoned = (shape: readonly [number, number], dtype = 'F32') =>
    stored(new Float32Array(shape[0] * shape[1]).fill(NaN), shape, dtype);

  /** x [m, k] · w [n, k]ᵀ on the device, over NaNs. */
  async function product(
    x: Float32Array,
    w: Float32Array,
    [m, n, k]: readonly [number, number, number],
    dtypes: { ops?: Ops; x?: string; w?: string; out?: string } = {},
  ): Promise<Float32Array> {
    using xt = stored(x, [m, k], dtypes.x ?? 'F32');
    using weight = stored(w, [n, k], dtypes.w ?? 'F32');
    using out = poisoned([m, n], dtypes.out ?? 'F32');
    (dtypes.ops ?? exact).linearInto(out, xt, { weight });
    return await floats(out);
  }

  describe.each(DENSE)('dense %s', (tile) => {
    describe.each(HALF_DTYPES)('%s', (dtype) => {
      const round = (values: Float32Array) => values.map((v) => rounded(v, dtype));
      const inPrecision = () => new Ops(device, PRECISIONS[dtype]);
      const forced = () => force(`linear:dense,dense:${tile}`);

      test.each(SHAPES)('%i × %i × %i', async (m, n, k) => {
        forced();
        const [x, w] = [normal(m * k, 1), normal(n * k, 2)];
        const judge = matmul(round(x), round(w), m, n, k);
        const got = await product(x, w, [m, n, k], { ops: inPrecision() });
        expect(maxAbsDifference(got, judge)).toBeLessThan(dotBound(k, largest(judge)));
        const inHalf = await product(x, w, [m, n, k], { ops: inPrecision(), x: dtype, w: dtype, out: dtype });
        const bound = dotBound(k, largest(judge)) + storedBound(dtype, largest(judge));
        expect(maxAbsDifference(inHalf, judge)).toBeLessThan(bound);
      });

      test('columns in, columns out of a wider tensor; the others are left alone', async () => {
        forced();
        const [m, n, k] = [70, 44, 40];
        const [x, w] = [normal(m * 3 * k, 1), normal(n * k, 2)];
        using wide = stored(x, [m, 3 * k], dtype);
        using weight = stored(w, [n, k], dtype);
        using middle = wide.columnRange(k, 2 * k);
        const columns = x.filter((_, i) => Math.floor((i % (3 * k)) / k) === 1);
        const judge = matmul(round(columns), round(w), m, n, k);
        const bound = dotBound(k, largest(judge)) + storedBound(dtype, largest(judge));
        for (const first of [4, 3]) {
          using out = poisoned([m, 60], dtype);
          using part = out.columnRange(first, first + n);
          inPrecision().linearInto(part, middle, { weight });
          const all = await floats(out);
          const inside = (i: number) => i % 60 >= first && i % 60 < first + n;
          expect(
            maxAbsDifference(
              all.filter((_, i) => inside(i)),
              judge,
            ),
          ).toBeLessThan(bound);
          expect(all.filter((v, i) => !inside(i) && !Number.isNaN(v)).length).toBe(0);
        }
      });
    });
  });

  /** Epilogues on tiles of both kinds; n odd, a multiple of 4, and in 16 bits. */
  const EPILOGUES = [...DENSE.map((t) => `dense:${t}`), ...SPLIT.map((t) => `split:${t}`)];
  describe.each(EPILOGUES)('epilogues of %s', (tile) => {
    const isDense = tile.startsWith('dense');
    const ops = () => (isDense ? new Ops(device, 'fp16') : exact);
    const forced = () => force(`linear:${isDense ? 'dense' : 'split'},${tile}`);
    const factor = (count: number, seed: number) =>
      normal(count, seed).map((v) => (isDense ? rounded(v, 'F16') : v));

    test.each(
      (Object.keys(activations) as Activation[]).flatMap((a) => [[a, 37] as const, [a, 40] as const]),
    )('%s, bias, scale, multiply on %i columns', async (activation, n) => {
      forced();
      const [m, k] = [35, 48];
      const [x, w, bias] = [factor(m * k, 1), factor(n * k, 2), normal(n, 3)];
      const [gate, scale] = [factor(m * n, 4), normal(n, 6)];
      using xt = device.from(x, [m, k]);
      using weight = device.from(w, [n, k]);
      using bt = device.from(bias, [n]);
      using st = device.from(scale, [n]);
      const act = activations[activation];
      const expected = matmul(x, w, m, n, k).map((v, i) => act(v * scale[i % n]! + bias[i % n]!) * gate[i]!);
      for (const dtype of isDense ? (['F32', 'F16'] as const) : (['F32'] as const)) {
        using gt = stored(gate, [m, n], dtype);
        using out = poisoned([m, n], dtype);
        ops().linearInto(out, xt, { weight, bias: bt, scale: st }, { activation, multiply: gt });
        const bound =
          dotBound(k, 4 * largest(expected)) + (dtype === 'F16' ? storedBound(dtype, largest(expected)) : 0);
        expect(maxAbsDifference(await floats(out), expected)).toBeLessThan(bound);
      }
    });

    test.each([37, 40])('the residual, with one gate to a group of rows, %i columns', async (n) => {
      forced();
      const [m, k, groups] = [3 * 14, 48, 3];
      const [x, w, bias] = [factor(m * k, 1), factor(n * k, 2), normal(n, 3)];
      const [residual, gate] = [normal(m * n, 5), normal(groups * n, 6)];
      using xt = device.from(x, [m, k]);
      using weight = device.from(w, [n, k]);
      using bt = device.from(bias, [n]);
      using gt = device.from(gate, [groups, n]);
      using stream = device.from(residual, [m, n]);
      ops().linearAdd(stream, xt, { weight, bias: bt }, gt);
      const expected = matmul(x, w, m, n, k).map(
        (v, i) => (v + bias[i % n]!) * gate[Math.floor(i / n / 14) * n + (i % n)]! + residual[i]!,
      );
      expect(maxAbsDifference(await stream.read(), expected)).toBeLessThan(
        dotBound(k, 2 * largest(expected)),
      );
    });

    test('k in parts: the same bits every time', async () => {
      forced();
      const size = [18, 36, 1600] as const;
      const [x, w] = [factor(18 * 1600, 1), factor(36 * 1600, 2)];
      const first = await product(x, w, size, { ops: ops() });
      const judge = matmul(x, w, ...size);
      expect(maxAbsDifference(first, judge)).toBeLessThan(dotBound(1600, largest(judge)));
      expect(await product(x, w, size, { ops: ops() })).toEqual(first);
    });
  });

  describe.each(SPLIT)('split %s', (tile) => {
    const forced = () => force(`linear:split,split:${tile}`);

    test.each([...SHAPES, [24, 20, 4096] as const])('%i × %i × %i: no worse than SGEMM', async (m, n, k) => {
      const [x, w] = [normal(m * k, 1), normal(n * k, 2)];
      const judge = matmul(x, w, m, n, k);
      forced();
      const got = await product(x, w, [m, n, k]);
      force('linear:simt_64x64');
      const simt = await product(x, w, [m, n, k]);
      expect(maxAbsDifference(got, judge)).toBeLessThan(dotBound(k, largest(judge)));
      // With few products the rounding of the factors to 22 bits shows.
      expect(relativeL2(got, judge)).toBeLessThanOrEqual(Math.max(relativeL2(simt, judge), 2 * EPS));
    });

    test.each(HALF_DTYPES)('%s weights are exact in their high parts', async (dtype) => {
      forced();
      const [m, n, k] = [33, 70, 520];
      const [x, w] = [normal(m * k, 1), normal(n * k, 2)];
      using weight = stored(w, [n, k], dtype);
      using xt = device.from(x, [m, k]);
      using out = poisoned([m, n]);
      exact.linearInto(out, xt, { weight });
      const judge = matmul(x, await floats(weight), m, n, k);
      expect(maxAbsDifference(await out.read(), judge)).toBeLessThan(dotBound(k, largest(judge)));
    });

    test('rows of any magnitude, zeros, and numbers that are none', async () => {
      forced();
      const [m, n, k] = [70, 36, 136];
      const scaleOf = (row: number) => [1, 1e-30, 1e30, 0, 3e4, 1e-38, 1e-7][row % 7]!;
      const x = normal(m * k, 1).map((v, i) => v * scaleOf(Math.floor(i / k)));
      const w = normal(n * k, 2).map((v, i) => v * [1, 1e5, 1e-5, 1e20, 1e-20][Math.floor(i / k) % 5]!);
      x[3 * k + 5] = NaN;
      x[10 * k + 7] = Infinity;
      w[20 * k + 9] = NaN;
      const got = await product(x, w, [m, n, k]);
      for (let r = 0; r < m; r++)
        for (let c = 0; c < n; c++) {
          const value = got[r * n + c]!;
          if (r === 3 || r === 10 || c === 20) {
            expect(value).toBeNaN();
            continue;
          }
          const row = x.subarray(r * k, (r + 1) * k);
          const column = w.subarray(c * k, (c + 1) * k);
          const judge = Math.fround(row.reduce((a, v, i) => a + v * column[i]!, 0));
          const bound = dotBound(k, 8) * largest(row) * largest(column) + 2 ** -149;
          if (Number.isFinite(judge)) expect(Math.abs(value - judge)).toBeLessThanOrEqual(bound);
          else expect(value).toBe(judge);
        }
    });
  });
});
