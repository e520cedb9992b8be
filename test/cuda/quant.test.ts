/**
 * GGUF weights on the CUDA device: decoding to every dtype, and linear in each precision by each kernel that takes
 * them, on shapes that no tile divides. Weights are blocks of the golden file, in an order of our own.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Device, type DeviceName } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { describeGpus } from '../support/devices.js';
import { readGolden } from '../support/golden.js';
import { ROUND } from '../support/rounding.js';
import { matmul, maxAbsDifference, normal } from '../support/reference.js';

const golden = readGolden('gguf/types/gaussian.safetensors');
const TYPES = [...golden.keys()]
  .filter((key) => key.endsWith('.bytes'))
  .map((key) => key.replace('.bytes', ''))
  .filter((type) => type !== 'F16' && type !== 'BF16');
const BLOCKS: Record<string, number> = { NVFP4: 64, Q2_0: 64, Q1_0: 128 };
const blockOf = (type: string) =>
  BLOCKS[type] ?? (/_[01]$|_NL$|^MXFP4$/.test(type) && type !== 'TQ1_0' && type !== 'TQ2_0' ? 32 : 256);

const largest = (values: ArrayLike<number>) =>
  Array.from(values).reduce((a, v) => Math.max(a, Math.abs(v)), 0);

interface Matrix {
  bytes: Uint8Array;
  values: Float32Array;
}

/** Golden blocks of `type` as a matrix [n, k]. */
function matrixOf(type: string, n: number, k: number): Matrix {
  const stored = golden.get(`${type}.bytes`)!.data as Uint8Array;
  const decoded = golden.get(`${type}.values`)!.data as Float32Array;
  const block = blockOf(type);
  const blocks = decoded.length / block;
  const size = stored.length / blocks;
  const count = (n * k) / block;
  const bytes = new Uint8Array(count * size);
  const values = new Float32Array(count * block);
  for (let i = 0; i < count; i++) {
    const from = (i * 7 + (i >> 3)) % blocks;
    bytes.set(stored.subarray(from * size, (from + 1) * size), i * size);
    values.set(decoded.subarray(from * block, (from + 1) * block), i * block);
  }
  return { bytes, values };
}

describeGpus((target) => {
  let device: Device;
  beforeAll(() => (device = Device.open(target as DeviceName)));
  afterAll(() => device.close());
  afterEach(() => delete process.env['KOTOBA_VARIANT']);

  function upload(type: string, n: number, k: number, { bytes }: Matrix): Tensor {
    const weight = device.empty(type, [n, k]);
    device.native.upload(weight.native, bytes);
    return weight;
  }

  describe.each(['F32', 'F16', 'BF16'] as const)('decode to %s', (dtype) => {
    /** x [rows, cols] decoded to a tensor of its own and to columns of wider ones that start where they like. */
    async function expectDecoded(x: Tensor, rows: number, cols: number, expected: Float32Array) {
      const ops = new Ops(device, 'fp32');
      for (const [before, after] of [
        [0, 0],
        [4, 4],
        [5, 2],
      ] as const) {
        const pitch = before + cols + after;
        using wide = device.empty(dtype, [rows, pitch]);
        using nothing = device.from(new Float32Array(rows * pitch).fill(NaN), [rows, pitch]);
        ops.decodeInto(wide, nothing);
        using inside = wide.columnRange(before, before + cols);
        ops.decodeInto(inside, x);
        using floats = ops.decode(wide);
        const got = await floats.read();
        const isInside = (i: number) => i % pitch >= before && i % pitch < before + cols;
        expect(got.filter((_, i) => isInside(i))).toEqual(expected);
        expect(got.filter((v, i) => !isInside(i) && !Number.isNaN(v))).toEqual(new Float32Array());
      }
    }

    test.each(TYPES)('%s', async (type) => {
      const [n, k] = [5, blockOf(type) === 256 ? 1280 : blockOf(type) * 9];
      const matrix = matrixOf(type, n, k);
      using weight = upload(type, n, k, matrix);
      await expectDecoded(weight, n, k, matrix.values.map(ROUND[dtype]));
    });

    test.each(['F32', 'F16', 'BF16', 'F64', 'F8_E4M3', 'F8_E5M2'])('%s', async (from) => {
      const ops = new Ops(device, 'fp32');
      const [rows, cols] = [3, 1031];
      const bytes = Uint8Array.from({ length: rows * cols }, (_, i) => (i * 37) % 120); // finite in either FP8
      using x = device.empty(from, [rows, cols]);
      if (from.startsWith('F8')) device.native.upload(x.native, bytes);
      else if (from === 'F64')
        device.native.upload(
          x.native,
          Float64Array.from(bytes, (v) => v / 7),
        );
      else {
        using values = device.from(
          Float32Array.from(bytes, (v) => v / 7),
          [rows, cols],
        );
        ops.decodeInto(x, values);
      }
      using exact = ops.decode(x);
      await expectDecoded(x, rows, cols, (await exact.read()).map(ROUND[dtype]));
    });
  });

  /** x · wᵀ, its error against FP64 and that of the same product of rounded numbers. */
  async function errors(type: string, precision: 'fp32' | 'fp16' | 'bf16', m: number, n: number, k: number) {
    const ops = new Ops(device, precision);
    const matrix = matrixOf(type, n, k);
    const x = normal(m * k, m);
    using weight = upload(type, n, k, matrix);
    using wide = device.from(spread(x, m, k, 8), [m, k + 8]);
    using xt = wide.columnRange(8, k + 8);
    using outs = device.from(new Float32Array(m * (n + 3)).fill(NaN), [m, n + 3]);
    using out = outs.columnRange(2, n + 2);
    ops.linearInto(out, xt, { weight });
    const got = await out.read();
    const exact = matmul(x, matrix.values, m, n, k);
    const round = ROUND[({ fp32: 'F32', fp16: 'F16', bf16: 'BF16' } as const)[precision]];
    const reference = matmul(x.map(round), matrix.values.map(round), m, n, k);
    const untouched = Array.from(await outs.read()).filter(
      (_, i) => i % (n + 3) < 2 || i % (n + 3) === n + 2,
    );
    expect(untouched.every(Number.isNaN), 'columns beside out').toBe(true);
    return {
      error: maxAbsDifference(got, exact),
      reference: maxAbsDifference(reference, exact),
      scale: largest(exact),
    };
  }
  const spread = (x: Float32Array, m: number, k: number, pad: number) =>
    Float32Array.from({ length: m * (k + pad) }, (_, i) =>
      i % (k + pad) < pad ? NaN : x[Math.floor(i / (k + pad)) * k + (i % (k + pad)) - pad]!,
    );
  const longRows = (type: string) => (blockOf(type) === 256 ? 768 : blockOf(type) * 9);

  test.each(TYPES)('gemv on %s', async (type) => {
    process.env['KOTOBA_VARIANT'] = 'linear:gemv';
    for (const m of [1, 3, 11]) {
      const { error, scale } = await errors(type, 'fp32', m, 37, longRows(type));
      expect(error, `${m} rows`).toBeLessThan(4 * 2 ** -24 * Math.sqrt(longRows(type)) * scale);
    }
    for (const precision of ['fp16', 'bf16'] as const) {
      const { error, reference } = await errors(type, precision, 2, 37, longRows(type));
      expect(error, precision).toBeLessThan(2 * reference);
    }
  });

  test.each(TYPES)('tensor cores on %s', async (type) => {
    process.env['KOTOBA_VARIANT'] = 'linear:fused_quant';
    for (const [precision, m] of [
      ['fp16', 3],
      ['bf16', 16],
      ['bf16', 19],
      ['fp16', 83],
    ] as const) {
      const { error, reference } = await errors(type, precision, m, 131, longRows(type));
      expect(error, `${precision}, ${m} rows`).toBeLessThan(2 * reference);
    }
  });

  // Long rows: several slices of x in shared memory (gemv), k split over blocks (tensor cores).
  test.each([
    ['gemv', 'fp32', 1, 17_408],
    ['gemv', 'fp32', 11, 4352],
    ['fused_quant', 'fp16', 16, 4352],
    ['fused_quant', 'bf16', 18, 4352],
    ['fused_quant', 'fp16', 90, 1280],
  ] as const)('long rows: %s, %s, %i × %i', async (variant, precision, m, k) => {
    process.env['KOTOBA_VARIANT'] = `linear:${variant}`;
    const { error, reference, scale } = await errors('Q4_K', precision, m, 21, k);
    expect(error).toBeLessThan(precision === 'fp32' ? 4 * 2 ** -24 * Math.sqrt(k) * scale : 2 * reference);
  });

  test.each(['F32', 'F64', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2'])(
    'gemv on %s, rows of any length and alignment',
    async (type) => {
      process.env['KOTOBA_VARIANT'] = 'linear:gemv';
      for (const [m, n, k] of [
        [1, 5, 1],
        [2, 9, 77],
        [9, 6, 1031],
        [3, 3, 2048],
      ] as const) {
        const ops = new Ops(device, 'fp32');
        const x = normal(m * k, m);
        using xt = device.from(x, [m, k]);
        using weight = device.empty(type, [n, k]);
        const numbers = normal(n * k, 7);
        if (type.startsWith('F8'))
          device.native.upload(
            weight.native,
            Uint8Array.from(numbers, (v) => 70 + 8 * v),
          );
        else if (type === 'F64') device.native.upload(weight.native, Float64Array.from(numbers));
        else {
          using values = device.from(numbers, [n, k]);
          ops.decodeInto(weight, values);
        }
        using decoded = ops.decode(weight);
        const expected = matmul(x, await decoded.read(), m, n, k);
        using out = ops.linear(xt, { weight });
        expect(maxAbsDifference(await out.read(), expected), `${m} × ${n} × ${k}`).toBeLessThan(
          4 * 2 ** -24 * Math.sqrt(k) * Math.max(1, largest(expected)),
        );
      }
    },
  );

  test.each([
    ['gemv', 2],
    ['fused_quant', 6],
    ['fused_quant', 40],
  ] as const)('%s, %i rows: epilogue, inner dtypes, the same bits again', async (variant, m) => {
    process.env['KOTOBA_VARIANT'] = `linear:${variant}`;
    const ops = new Ops(device, 'fp16');
    const [n, k] = [70, 2048];
    const matrix = matrixOf('Q5_K', n, k);
    using weight = upload('Q5_K', n, k, matrix);
    const x = normal(m * k, 1).map(ROUND.F16);
    const [bias, gate] = [normal(n, 2), normal(m * n, 3).map(ROUND.F16)];
    using xs = device.from(x, [m, k]);
    using xt = device.empty('F16', [m, k]);
    ops.decodeInto(xt, xs);
    using bt = device.from(bias, [n]);
    using gs = device.from(gate, [m, n]);
    using gt = device.empty('F16', [m, n]);
    ops.decodeInto(gt, gs);
    const run = async () => {
      using out = ops.inner.linear(xt, { weight, bias: bt }, { activation: 'silu', multiply: gt });
      using floats = ops.decode(out);
      return floats.read();
    };
    const got = await run();
    const silu = (v: number) => v / (1 + Math.exp(-v));
    const product = (w: Float32Array) =>
      matmul(x, w, m, n, k).map((v, i) => silu(v + bias[i % n]!) * gate[i]!);
    const exact = product(matrix.values);
    const reference = product(matrix.values.map(ROUND.F16)).map(ROUND.F16);
    expect(maxAbsDifference(got, exact)).toBeLessThan(2 * maxAbsDifference(reference, exact));
    expect(await run()).toEqual(got);
  });

  test.each([
    ['gemv', 'fp32', 2],
    ['fused_quant', 'bf16', 5],
    ['fused_quant', 'fp16', 33],
  ] as const)('%s in %s: a NaN in a scale reaches its column and no other', async (variant, precision, m) => {
    process.env['KOTOBA_VARIANT'] = `linear:${variant}`;
    const [n, k] = [9, 512];
    const matrix = matrixOf('Q6_K', n, k);
    const broken = 5 * 2 + 1; // the second block of row 5
    matrix.bytes.set([0x00, 0x7e], broken * 210 + 208);
    using weight = upload('Q6_K', n, k, matrix);
    using xt = device.from(normal(m * k, 1), [m, k]);
    using out = new Ops(device, precision).linear(xt, { weight });
    const got = Array.from(await out.read());
    expect(got.map((v) => Number.isNaN(v))).toEqual(got.map((_, i) => i % n === 5));
  });
});
