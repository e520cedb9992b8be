/** What a modulated transformer block needs: layer_norm_modulated, and gates of groups of rows in linear's epilogue. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../bindings/native.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { isCpu, openTarget, TARGETS } from '../support/devices.js';
import { readGolden } from '../support/golden.js';
import { maxAbsDifference, normal, relativeL2 } from '../support/reference.js';

const EPS = 2 ** -24; // FP32 rounding
const ERR_ARGUMENT = expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error;
const golden = readGolden('diffusion/ops/ops.safetensors');

/** @param shift,scale row r of x takes shift[g * stride + c], g its group */
function modulated(
  x: Float32Array,
  [groups, rows, cols]: readonly [number, number, number],
  shift: (group: number, col: number) => number,
  scale: (group: number, col: number) => number,
  eps: number,
): Float64Array {
  const out = new Float64Array(x.length);
  for (let r = 0; r < groups * rows; r++) {
    const row = Array.from(x.subarray(r * cols, (r + 1) * cols));
    const mean = row.reduce((a, v) => a + v, 0) / cols;
    const variance = row.reduce((a, v) => a + (v - mean) ** 2, 0) / cols;
    const group = Math.floor(r / rows);
    row.forEach((v, c) => {
      const normal = (v - mean) / Math.sqrt(variance + eps);
      out[r * cols + c] = normal * (1 + scale(group, c)) + shift(group, c);
    });
  }
  return out;
}

describe.each(TARGETS)('%s', (target) => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = openTarget(target, { threads: 2 });
    ops = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());

  describe('layer_norm_modulated', () => {
    test.each([
      [1, 1, 1],
      [1, 3, 7],
      [2, 1, 33],
      [3, 5, 100],
      [2, 40, 257],
      [1, 2, 3072],
      [2, 1, 20000], // a row is more than a chunk
    ] as const)('%i groups × %i rows × %i', async (groups, rows, cols) => {
      const x = normal(groups * rows * cols, 1).map((v, i) => v * 10 ** ((i % 5) - 2) + 1);
      // Both are columns of one wide row for each group, as a model's modulation makes them.
      const wide = normal(groups * 3 * cols, 2);
      using xt = device.from(x, [groups * rows, cols]);
      using modulation = device.from(wide, [groups, 3 * cols]);
      using shift = modulation.columnRange(cols, 2 * cols);
      using scale = modulation.columnRange(2 * cols, 3 * cols);
      using out = ops.layerNormModulated(xt, shift, scale, 1e-6);
      const at = (part: number) => (g: number, c: number) => wide[(g * 3 + part) * cols + c]!;
      const expected = modulated(x, [groups, rows, cols], at(1), at(2), 1e-6);
      // x̂ to 16 roundings (sums of 64 or more partial sums, a square root, a division), times 1 + scale.
      const largest = expected.reduce((a, v) => Math.max(a, Math.abs(v)), 1);
      expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(32 * EPS * largest);
    });

    test('on columns of a wider tensor, in place: the others stay', async () => {
      const [rows, cols] = [5, 37];
      const x = normal(rows * 2 * cols, 1);
      using wide = device.from(x, [rows, 2 * cols]);
      using right = wide.columnRange(cols, 2 * cols);
      using shift = device.from(normal(cols, 2), [1, cols]);
      using scale = device.from(normal(cols, 3), [1, cols]);
      using dense = ops.layerNormModulated(right, shift, scale, 1e-6);
      native.layerNormModulated(device.native, right.native, right.native, shift.native, scale.native, 1e-6);
      const expected = x.slice();
      const normed = await dense.read();
      for (let r = 0; r < rows; r++)
        expected.set(normed.subarray(r * cols, (r + 1) * cols), (2 * r + 1) * cols);
      expect(await wide.read()).toEqual(expected);
    });

    test('without modulation it is the norm of the reference implementation', async () => {
      const { data, shape } = golden.get('norm.in')!;
      const [rows, cols] = shape as [number, number];
      using x = device.from(data as Float32Array, [rows, cols]);
      using zero = device.from(new Float32Array(cols), [1, cols]);
      using out = ops.layerNormModulated(x, zero, zero, 1e-6);
      const expected = golden.get('layernorm_noaffine_eps1e-6.out')!.data as Float32Array;
      const got = await out.read();
      for (let r = 0; r < rows; r++) {
        const row = [r * cols, (r + 1) * cols] as const; // magnitudes differ by row: 1e-5 to 10
        expect(relativeL2(got.subarray(...row), expected.subarray(...row)), `row ${r}`).toBeLessThan(2e-6);
      }
    });

    test('the same bits for any number of threads', async () => {
      const bits: string[] = [];
      for (const threads of [1, 3]) {
        await using other = openTarget(target, { threads });
        const x = other.from(normal(300 * 130, 1), [300, 130]);
        const shift = other.from(normal(3 * 130, 2), [3, 130]);
        const out = new Ops(other, 'fp32').layerNormModulated(x, shift, shift, 1e-6);
        bits.push(Buffer.from((await out.read()).buffer).toString('base64'));
      }
      expect(new Set(bits).size).toBe(1);
    });

    test.each<[string, [number, number], [number, number], [number, number], RegExp]>([
      ['shift of other columns', [6, 8], [2, 7], [2, 7], /shift/],
      ['scale of other columns', [6, 8], [2, 8], [2, 7], /scale/],
      ['scale of other groups', [6, 8], [2, 8], [3, 8], /scale/],
      ['groups that do not divide the rows', [6, 8], [4, 8], [4, 8], /x .* split into 4/],
    ])('refuses %s', (_, xShape, shiftShape, scaleShape, message) => {
      using x = device.empty('F32', xShape);
      using shift = device.empty('F32', shiftShape);
      using scale = device.empty('F32', scaleShape);
      const call = () => ops.layerNormModulated(x, shift, scale, 1e-6);
      expect(call).toThrow(ERR_ARGUMENT);
      expect(call).toThrow(message);
    });

    // GPUs write 16 bits: test/cuda/norms.test.ts.
    test('refuses to read anything but F32', () => {
      using x = device.empty('F32', [2, 8]);
      using half = device.empty('F16', [2, 8]);
      expect(() => ops.layerNormModulated(half, x, x, 1e-6)).toThrow(ERR_ARGUMENT);
      expect(() => ops.layerNormModulated(x, half, x, 1e-6)).toThrow(ERR_ARGUMENT);
      expect(() => ops.layerNormModulated(x, x, half, 1e-6)).toThrow(ERR_ARGUMENT);
    });
  });

  describe.each(['fp32', 'int8'] as const)('linear with gates, %s', (precision) => {
    test.each([
      [1, 1, 20], // rows, groups, outputs
      [2, 2, 35],
      [4, 2, 65],
      [18, 1, 70],
      [18, 3, 131],
      [19, 19, 33],
      [70, 2, 64],
      [300, 4, 40], // more than one slab or block of tokens
      [300, 100, 7],
    ] as const)('%i rows in %i groups, %i outputs', async (m, groups, n) => {
      const k = 96;
      const typed = new Ops(device, precision);
      const gates = normal(groups * 2 * n, 3);
      const residual = normal(m * n, 4);
      using x = device.from(normal(m * k, 1), [m, k]);
      using weight = device.from(normal(n * k, 2), [n, k]);
      using bias = device.from(normal(n, 5), [n]);
      using wide = device.from(gates, [groups, 2 * n]);
      using gate = wide.columnRange(n, 2 * n);
      using stream = device.from(residual, [m, n]);
      // Ungated, the result is known (ops.test.ts); the gate and the residual add one rounding each.
      using plain = typed.linear(x, { weight, bias }, { activation: 'silu' });
      using gated = typed.linear(x, { weight, bias }, { activation: 'silu', multiply: gate });
      using product = typed.linear(x, { weight, bias });
      typed.linearAdd(stream, x, { weight, bias }, gate);
      const gateOf = (i: number) => gates[Math.floor(i / n / (m / groups)) * 2 * n + n + (i % n)]!;
      expect(await gated.read()).toEqual((await plain.read()).map((v, i) => v * gateOf(i)));
      expect(await stream.read()).toEqual(
        (await product.read()).map((v, i) => Math.fround(v * gateOf(i)) + residual[i]!),
      );
    });

    test('refuses gates that do not fit', () => {
      using x = device.empty('F32', [6, 8]);
      using weight = device.empty('F32', [5, 8]);
      using four = device.empty('F32', [4, 5]);
      using narrow = device.empty('F32', [3, 4]);
      using whole = device.empty('I32', [3, 5]);
      using half = device.empty('F16', [3, 5]); // GPUs take it
      const typed = new Ops(device, precision);
      for (const multiply of [four, narrow, whole, ...(isCpu(target) ? [half] : [])]) {
        expect(() => typed.linear(x, { weight }, { multiply })).toThrow(ERR_ARGUMENT);
        expect(() => typed.linear(x, { weight }, { multiply })).toThrow(/multiply/);
      }
    });
  });
});
