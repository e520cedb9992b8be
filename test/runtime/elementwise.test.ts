/** activate and combine: one result for every element. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../bindings/native.js';
import { Device } from '../../src/runtime/device.js';
import { Ops, type Activation } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { isCpu, openTarget, TARGETS } from '../support/devices.js';
import { readGolden } from '../support/golden.js';
import { activations, maxAbsDifference, normal, relativeL2 } from '../support/reference.js';

const EPS = 2 ** -24; // FP32 rounding
const ERR_ARGUMENT = expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error;
const KINDS = Object.keys(activations) as Activation[];
const SHAPES = [
  [1, 1],
  [3, 7],
  [5, 16],
  [2, 33],
  [7, 5000], // rows of more than one chunk between them
] as const;
const golden = readGolden('diffusion/ops/ops.safetensors');

/** Columns [start, end) of x [rows, cols], dense. */
const columns = (x: Float32Array, cols: number, start: number, end: number) =>
  x.filter((_, i) => i % cols >= start && i % cols < end);

describe.each(TARGETS)('%s', (target) => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = openTarget(target, { threads: 2 });
    ops = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());

  describe('activate', () => {
    test.each(KINDS.flatMap((kind) => SHAPES.map((shape) => [kind, ...shape] as const)))(
      '%s %i × %i',
      async (kind, rows, cols) => {
        const x = normal(rows * cols, 1).map((v) => 4 * v);
        using xt = device.from(x, [rows, cols]);
        using out = ops.activate(xt, kind);
        // A polynomial, e^x to an ulp and a division, times x: at most 4 roundings of x's size.
        const expected = Float64Array.from(x, activations[kind]);
        const largest = x.reduce((a, v) => Math.max(a, Math.abs(v)), 1);
        expect(maxAbsDifference(await out.read(), expected)).toBeLessThanOrEqual(4 * EPS * largest);
        if (kind === 'none') expect(await out.read()).toEqual(x);
      },
    );

    test('on columns of a wider tensor, in place: the others stay', async () => {
      const x = normal(6 * 40, 1);
      using wide = device.from(x, [6, 40]);
      using part = wide.columnRange(3, 22);
      native.activate(device.native, part.native, part.native, 'silu');
      const expected = x.map((v, i) => (i % 40 >= 3 && i % 40 < 22 ? activations.silu(v) : v));
      expect(maxAbsDifference(await wide.read(), expected)).toBeLessThan(8 * EPS * 4);
    });

    test.each(KINDS)('%s keeps a NaN and does not spread it', async (kind) => {
      const x = normal(35, 1);
      x[20] = NaN;
      using xt = device.from(x, [1, 35]);
      using out = ops.activate(xt, kind);
      expect(Array.from(await out.read(), Number.isNaN).indexOf(true)).toBe(20);
      expect((await out.read()).filter(Number.isFinite)).toHaveLength(34);
    });

    test.each(KINDS.filter((kind) => kind !== 'none'))('%s of the reference implementation', async (kind) => {
      const { data } = golden.get('act.in')!;
      using x = device.from(data as Float32Array, [1, data.length]);
      using out = ops.activate(x, kind);
      const expected = golden.get(`act.${kind}`)!.data as Float32Array;
      expect(relativeL2(await out.read(), expected)).toBeLessThan(2e-7);
    });

    test('refuses what does not fit', () => {
      using x = device.empty('F32', [3, 4]);
      using other = device.empty('F32', [4, 3]);
      using whole = device.empty('I32', [3, 4]);
      using half = device.empty('F16', [3, 4]);
      const call = (out: Tensor, from: Tensor, kind: string) => () =>
        native.activate(device.native, out.native, from.native, kind as Activation);
      expect(call(other, x, 'silu')).toThrow(ERR_ARGUMENT);
      expect(call(whole, x, 'silu')).toThrow(ERR_ARGUMENT);
      expect(call(x, whole, 'silu')).toThrow(ERR_ARGUMENT);
      expect(call(x, x, 'relu')).toThrow(ERR_ARGUMENT);
      if (!isCpu(target)) return; // GPUs take 16 bits: test/cuda/norms.test.ts
      expect(call(half, x, 'silu')).toThrow(ERR_ARGUMENT);
      expect(call(x, half, 'silu')).toThrow(ERR_ARGUMENT);
    });
  });

  describe('combine', () => {
    const COEFFICIENTS = [0.5, -1.25, 3, 1e-3, 0, 0.7, -2, 1];

    /** Σ in this order; with at most two roundings a term. */
    const sum = (tensors: readonly Float32Array[]) =>
      Float64Array.from(tensors[0]!, (_, i) =>
        tensors.reduce((a, x, t) => a + Math.fround(COEFFICIENTS[t]!) * x[i]!, 0),
      );
    const bound = (tensors: readonly Float32Array[]) =>
      2 * tensors.length * EPS * tensors.reduce((a, x, t) => a + Math.abs(COEFFICIENTS[t]!) * largest(x), 0);
    const largest = (x: Float32Array) => x.reduce((a, v) => Math.max(a, Math.abs(v)), 0);

    test.each([1, 2, 3, 8].flatMap((terms) => SHAPES.map((shape) => [terms, ...shape] as const)))(
      '%i terms of %i × %i',
      async (terms, rows, cols) => {
        const data = Array.from({ length: terms }, (_, t) => normal(rows * cols, t));
        const tensors = data.map((x) => device.from(x, [rows, cols]));
        using out = ops.combine(tensors.map((x, t) => [COEFFICIENTS[t]!, x] as const));
        expect(maxAbsDifference(await out.read(), sum(data))).toBeLessThanOrEqual(bound(data));
        for (const tensor of tensors) tensor.dispose();
      },
    );

    test.each([0, 1, 2])('out is term %i', async (alias) => {
      const data = [1, 2, 3].map((seed) => normal(3 * 6000, seed));
      const tensors = data.map((x) => device.from(x, [3, 6000]));
      const terms = tensors.flatMap((x, t) => [COEFFICIENTS[t]!, x.native]);
      native.combine(device.native, tensors[alias]!.native, terms);
      expect(maxAbsDifference(await tensors[alias]!.read(), sum(data))).toBeLessThanOrEqual(bound(data));
      for (const tensor of tensors) tensor.dispose();
    });

    test.each(['columns of wider tensors', 'dense tensors'])('of %s, into columns of one', async (terms) => {
      const wide = [1, 2].map((seed) => normal(5 * 30, seed));
      const parts = [columns(wide[0]!, 30, 0, 19), columns(wide[1]!, 30, 11, 30)];
      const before = normal(5 * 25, 3);
      using a = terms === 'dense tensors' ? device.from(parts[0]!, [5, 19]) : device.from(wide[0]!, [5, 30]);
      using b = terms === 'dense tensors' ? device.from(parts[1]!, [5, 19]) : device.from(wide[1]!, [5, 30]);
      using joined = device.from(before, [5, 25]);
      using left = a.columnRange(0, 19);
      using right = b.columnRange(b.cols - 19, b.cols);
      using out = joined.columnRange(5, 24);
      native.combine(device.native, out.native, [
        COEFFICIENTS[0]!,
        left.native,
        COEFFICIENTS[1]!,
        right.native,
      ]);
      const inside = sum(parts);
      const expected = Float64Array.from(before);
      for (let r = 0; r < 5; r++) expected.set(inside.subarray(r * 19, (r + 1) * 19), r * 25 + 5);
      expect(maxAbsDifference(await joined.read(), expected)).toBeLessThanOrEqual(bound(parts));
    });

    test('refuses what does not fit', () => {
      using x = device.empty('F32', [3, 4]);
      using other = device.empty('F32', [4, 3]);
      using half = device.empty('F16', [3, 4]);
      const call = (out: Tensor, ...terms: (number | Tensor)[]) => {
        const flat = terms.map((term) => (typeof term === 'number' ? term : term.native));
        return () => native.combine(device.native, out.native, flat);
      };
      expect(call(x)).toThrow(ERR_ARGUMENT);
      expect(call(x, 1, x, 1, other)).toThrow(ERR_ARGUMENT);
      expect(call(other, 1, x)).toThrow(ERR_ARGUMENT);
      expect(call(x, 1, half)).toThrow(ERR_ARGUMENT);
      expect(call(half, 1, x)).toThrow(ERR_ARGUMENT);
      expect(call(x, x, 1)).toThrow();
    });
  });
});
