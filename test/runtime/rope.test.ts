/** head_norm_rope: RMS norm of every head, rotation of its pairs, into the tokens of a longer sequence. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { isCpu, openTarget, TARGETS } from '../support/devices.js';
import { readGolden } from '../support/golden.js';
import { maxAbsDifference, normal, relativeL2 } from '../support/reference.js';

const EPS = 2 ** -24; // FP32 rounding
const ERR_ARGUMENT = expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error;
const golden = readGolden('diffusion/ops/ops.safetensors');
const values = (name: string) => golden.get(name)!.data as Float32Array;

interface Case {
  batch: number;
  heads: number;
  headDim: number;
  tokens: number;
  longer: number;
  offset: number;
  norm: boolean;
  rotate: boolean;
}

const CASES: Case[] = [
  { batch: 1, heads: 1, headDim: 2, tokens: 1, longer: 1, offset: 0, norm: true, rotate: true },
  { batch: 1, heads: 3, headDim: 16, tokens: 5, longer: 9, offset: 4, norm: true, rotate: true },
  { batch: 2, heads: 2, headDim: 18, tokens: 7, longer: 10, offset: 2, norm: true, rotate: true },
  { batch: 3, heads: 2, headDim: 64, tokens: 4, longer: 4, offset: 0, norm: false, rotate: true },
  { batch: 2, heads: 4, headDim: 33, tokens: 3, longer: 5, offset: 1, norm: true, rotate: false },
  { batch: 2, heads: 2, headDim: 5, tokens: 3, longer: 6, offset: 3, norm: false, rotate: false },
  { batch: 2, heads: 3, headDim: 128, tokens: 50, longer: 77, offset: 27, norm: true, rotate: true },
];

/** cosine and sine side by side, as rotation is stored */
const rotations = (tokens: number, headDim: number): Float32Array =>
  normal((tokens * headDim) / 2, 9).reduce(
    (out, angle, i) => {
      out.set([Math.cos(angle), Math.sin(angle)], 2 * i);
      return out;
    },
    new Float32Array(tokens * headDim),
  );

/** @returns what becomes of x [batch · tokens, heads · headDim] */
function reference(
  x: Float32Array,
  weight: Float32Array,
  rotation: Float32Array,
  c: Case,
  eps: number,
): Float64Array {
  const cols = c.heads * c.headDim;
  const out = Float64Array.from(x);
  for (let row = 0; row < c.batch * c.tokens; row++)
    for (let h = 0; h < c.heads; h++) {
      const head = out.subarray(row * cols + h * c.headDim, row * cols + (h + 1) * c.headDim);
      if (c.norm) {
        const mean = head.reduce((a, v) => a + v * v, 0) / c.headDim;
        head.forEach((v, i) => (head[i] = (v / Math.sqrt(mean + eps)) * weight[i]!));
      }
      const token = c.offset + (row % c.tokens);
      for (let i = 0; c.rotate && i < c.headDim; i += 2) {
        const [a, b] = [head[i]!, head[i + 1]!];
        const [cos, sin] = [rotation[token * c.headDim + i]!, rotation[token * c.headDim + i + 1]!];
        head[i] = cos * a - sin * b;
        head[i + 1] = sin * a + cos * b;
      }
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

  test.each(CASES)('%o', async (c) => {
    const { batch, heads, headDim, tokens, longer, offset } = c;
    const cols = heads * headDim;
    // x and out are columns of wider tensors, as q is of a fused qkv.
    const wide = normal(batch * tokens * 3 * cols, 1).map((v, i) => v * 10 ** ((i % 7) - 3));
    const before = normal(batch * longer * 2 * cols, 2);
    const [weight, rotation] = [normal(headDim, 3), rotations(longer, headDim)];
    using fused = device.from(wide, [batch * tokens, 3 * cols]);
    using x = fused.columnRange(cols, 2 * cols);
    using joined = device.from(before, [batch * longer, 2 * cols]);
    using out = joined.columnRange(cols, 2 * cols);
    using weightT = device.from(weight, [headDim]);
    using rotationT = device.from(rotation, [longer, headDim]);
    const parts = { weight: c.norm ? weightT : undefined, rotation: c.rotate ? rotationT : undefined };
    ops.headNormRope(out, x, parts, { batch, heads, offset, eps: 1e-6 });

    const rows = reference(await x.read(), weight, rotation, c, 1e-6);
    const expected = Float64Array.from(before);
    for (let row = 0; row < batch * tokens; row++) {
      const to = Math.floor(row / tokens) * longer + offset + (row % tokens);
      expected.set(rows.subarray(row * cols, (row + 1) * cols), (to * 2 + 1) * cols);
    }
    // A sum of squares, a root, a division, two products, then two products and a sum: at most 16 roundings.
    const largest = rows.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
    expect(maxAbsDifference(await joined.read(), expected)).toBeLessThanOrEqual(16 * EPS * largest);
    if (!c.norm && !c.rotate) expect(await joined.read()).toEqual(Float32Array.from(expected));
  });

  test('in place', async () => {
    const [weight, rotation] = [normal(32, 3), rotations(6, 32)];
    using weightT = device.from(weight, [32]);
    using rotationT = device.from(rotation, [6, 32]);
    using x = device.from(normal(6 * 96, 1), [6, 96]);
    using out = device.empty('F32', [6, 96]);
    const how = { batch: 1, heads: 3, offset: 0, eps: 1e-6 };
    ops.headNormRope(out, x, { weight: weightT, rotation: rotationT }, how);
    ops.headNormRope(x, x, { weight: weightT, rotation: rotationT }, how);
    expect(await x.read()).toEqual(await out.read());
  });

  test.each(['q', 'k'])('Flux, real axes: %s', async (name) => {
    const [, heads, tokens, headDim] = golden.get(`flux_rope128.${name}`)!.shape as [
      number,
      number,
      number,
      number,
    ];
    /** [heads, tokens, headDim] to [tokens, heads · headDim] */
    const byToken = (x: Float32Array) =>
      Float32Array.from({ length: x.length }, (_, i) => {
        const [token, h, d] = [Math.floor(i / headDim / heads), Math.floor(i / headDim) % heads, i % headDim];
        return x[(h * tokens + token) * headDim + d]!;
      });
    // pe holds [[cos, -sin], [sin, cos]] for each pair
    const pe = values('flux_rope128.pe');
    const rotation = Float32Array.from(
      { length: tokens * headDim },
      (_, i) => pe[4 * Math.floor(i / 2) + 2 * (i % 2)]!,
    );
    using rotationT = device.from(rotation, [tokens, headDim]);
    using x = device.from(byToken(values(`flux_rope128.${name}`)), [tokens, heads * headDim]);
    using out = device.empty('F32', [tokens, heads * headDim]);
    ops.headNormRope(out, x, { rotation: rotationT }, { batch: 1, heads, offset: 0, eps: 0 });
    expect(relativeL2(await out.read(), byToken(values(`flux_rope128.${name}_out`)))).toBeLessThan(2e-7);
  });

  test.each(['flux_rmsnorm_eps1e-6', 'sd3_rmsnorm_eps1e-6'])('%s, a head to every row', async (name) => {
    const [rows, cols] = golden.get('norm.in')!.shape as [number, number];
    using weight = device.from(values('norm.weight'), [cols]);
    using x = device.from(values('norm.in'), [1, rows * cols]);
    using out = device.empty('F32', [1, rows * cols]);
    ops.headNormRope(out, x, { weight }, { batch: 1, heads: rows, offset: 0, eps: 1e-6 });
    const [got, expected] = [await out.read(), values(`${name}.out`)];
    for (let r = 0; r < rows; r++) {
      const row = [r * cols, (r + 1) * cols] as const; // magnitudes differ by row: 1e-5 to 10
      expect(relativeL2(got.subarray(...row), expected.subarray(...row)), `row ${r}`).toBeLessThan(2e-6);
    }
  });

  const SHAPES = {
    out: [10, 24],
    x: [6, 24],
    weight: [8],
    rotation: [5, 8],
  };
  const HOW = { batch: 2, heads: 3, offset: 1, eps: 1e-6 };
  test.each<[string, Partial<typeof SHAPES>, Partial<typeof HOW>, RegExp]>([
    ['heads that do not divide the columns', {}, { heads: 5 }, /split into 5 heads/],
    ['batch that does not divide x', {}, { batch: 5 }, /x .*split into 5 sequences/],
    ['batch that does not divide out', { out: [9, 24] }, {}, /out .*split into 2 sequences/],
    ['tokens past the end of out', {}, { offset: 3 }, /fit into out/],
    ['out of other columns', { out: [10, 27] }, {}, /fit into out/],
    ['a weight of another length', { weight: [24] }, {}, /weight/],
    ['a rotation of the tokens of x', { rotation: [3, 8] }, {}, /rotation/],
    ['a rotation of half the head', { rotation: [5, 4] }, {}, /rotation/],
    ['a rotation of odd heads', { rotation: [5, 3] }, { heads: 8 }, /no pairs/],
    ['no heads', {}, { heads: 0 }, /heads/],
    ['a negative offset', {}, { offset: -1 }, /offset/],
  ])('refuses %s', (name, shapes, how, message) => {
    const tensors = Object.entries({ ...SHAPES, ...shapes }).map(
      ([key, shape]) => [key, device.empty('F32', shape)] as const,
    );
    const { out, x, ...parts } = Object.fromEntries(tensors) as Record<keyof typeof SHAPES, Tensor>;
    const given = name.includes('odd heads') ? { rotation: parts.rotation } : parts;
    const call = () => ops.headNormRope(out, x, given, { ...HOW, ...how });
    expect(call).toThrow(ERR_ARGUMENT);
    expect(call).toThrow(message);
    for (const [, tensor] of tensors) tensor.dispose();
  });

  // What GPUs make of 16 bits is in test/cuda/norms.test.ts.
  test.runIf(isCpu(target))('the CPU refuses 16 bits', () => {
    using x = device.empty('F32', [4, 8]);
    using half = device.empty('F16', [4, 8]);
    const how = { batch: 1, heads: 1, offset: 0, eps: 1e-6 };
    expect(() => ops.headNormRope(x, half, {}, how)).toThrow(ERR_ARGUMENT);
    expect(() => ops.headNormRope(half, x, {}, how)).toThrow(ERR_ARGUMENT);
  });

  test('refuses a rotation of anything but F32', () => {
    using x = device.empty('F32', [4, 8]);
    using half = device.empty('F16', [4, 8]);
    const how = { batch: 1, heads: 1, offset: 0, eps: 1e-6 };
    expect(() => ops.headNormRope(x, x, { rotation: half }, how)).toThrow(ERR_ARGUMENT);
  });
});
