/** The int8 product, number by number: activations quantised per 32 columns, weights with the codes of their file. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../bindings/native.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { SUPPORTED } from '../support/devices.js';
import { golden, readGolden } from '../support/golden.js';
import { matmul, normal, relativeL2 } from '../support/reference.js';

const FILE = 'gguf/types/gaussian.safetensors';
const data = readGolden(FILE);
/** Types whose stored codes are multiplied as they are; all others are quantised once more. */
const OWN_CODES = ['Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', 'Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K'];
const OWN_TABLES = ['IQ4_NL', 'IQ4_XS', 'MXFP4', 'NVFP4'];
/** FP32 sums of exact integer products: 8 · eps, for at most k / 32 = 32 additions and four roundings each. */
const BOUND = 8 * 2 ** -24;

function roundHalfEven(v: number): number {
  const down = Math.floor(v);
  if (v - down !== 0.5) return Math.round(v);
  return down % 2 === 0 ? down : down + 1;
}

/** x [rows, k] as int8 codes times their scale, in FP32 where the definition says so. */
function quantised(x: Float32Array, k: number): Float64Array {
  const out = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += k)
    for (let c = 0; c < k; c += 32) {
      const block = x.subarray(row + c, row + Math.min(k, c + 32));
      const maximum = block.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
      const inverse = Math.fround(127 / maximum);
      const scale = Math.fround(maximum * Math.fround(1 / 127));
      block.forEach((v, i) => {
        out[row + c + i] = maximum ? roundHalfEven(Math.fround(v * inverse)) * scale : 0;
      });
    }
  return out;
}

describe.each(SUPPORTED)('%s', (instructions) => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = Device.open('cpu', { instructions, threads: 2 });
    ops = new Ops(device, 'int8');
  });
  afterAll(() => device.close());

  const stored = (type: string) => {
    const { data: values, shape } = data.get(`${type}.values`)!;
    const file = new native.File(golden(FILE));
    const weight = device.weight(file, data.get(`${type}.bytes`)!.info.offset, type, shape);
    file.dispose();
    return { weight, values, n: shape[0]!, k: shape[1]! };
  };

  test.each([...OWN_CODES, ...OWN_TABLES])('%s is not quantised again', async (type) => {
    const { weight, values, n, k } = stored(type);
    for (const m of [1, 7, 65]) {
      const x = normal(m * k, m).map((v, i) => v * (i % 97 === 0 ? 400 : 1)); // outliers, as T5 has them
      using xt = device.from(x, [m, k]);
      using out = ops.linear(xt, { weight });
      const expected = matmul(quantised(x, k), values, m, n, k);
      expect(relativeL2(await out.read(), expected), `${m} rows`).toBeLessThan(BOUND);
    }
    weight.dispose();
  });

  test.each([
    [1, 1, 1],
    [1, 31, 33],
    [63, 33, 31],
    [64, 8, 64],
    [65, 65, 1024],
    [257, 40, 1056],
    [2, 129, 1025],
  ])('F32 weights, %i × %i × %i', async (m, n, k) => {
    const x = normal(m * k, 1);
    const w = normal(n * k, 2);
    using xt = device.from(x, [m, k]);
    using weight = device.from(w, [n, k]);
    using out = ops.linear(xt, { weight });
    const expected = matmul(quantised(x, k), quantised(w, k), m, n, k);
    expect(relativeL2(await out.read(), expected)).toBeLessThan(BOUND);
  });

  /** Blocks of all ones, whose F16 scales (at these offsets) are 1: the largest codes there are. */
  const LARGEST = [
    { type: 'Q4_0', weights: 32, bytes: 18, scales: [0] },
    { type: 'Q4_1', weights: 32, bytes: 20, scales: [0, 2] },
    { type: 'Q5_0', weights: 32, bytes: 22, scales: [0] },
    { type: 'Q5_1', weights: 32, bytes: 24, scales: [0, 2] },
    { type: 'Q8_0', weights: 32, bytes: 34, scales: [0], fill: 0x7f },
    { type: 'Q8_0', weights: 32, bytes: 34, scales: [0], fill: 0x80 },
    { type: 'IQ4_NL', weights: 32, bytes: 18, scales: [0] },
    { type: 'Q2_K', weights: 256, bytes: 84, scales: [80, 82] },
    { type: 'Q3_K', weights: 256, bytes: 110, scales: [108] },
    { type: 'Q4_K', weights: 256, bytes: 144, scales: [0, 2] },
    { type: 'Q5_K', weights: 256, bytes: 176, scales: [0, 2] },
    { type: 'Q6_K', weights: 256, bytes: 210, scales: [208] },
  ];

  test.each(LARGEST)('the largest codes do not overflow: $type $fill', async (block) => {
    const [m, n, k] = [3, 35, 512];
    const bytes = new Uint8Array(((n * k) / block.weights) * block.bytes).fill(block.fill ?? 0xff);
    for (let b = 0; b < bytes.length; b += block.bytes)
      for (const at of block.scales) bytes.set([0x00, 0x3c], b + at);
    using weight = device.empty(block.type, [n, k]);
    device.native.upload(weight.native, bytes);
    using decoded = ops.decode(weight);
    const x = Float32Array.from(
      { length: m * k },
      (_, i) => [1, -1, i % 32 < 16 ? 1 : -1][Math.floor(i / k)]!,
    );
    using xt = device.from(x, [m, k]);
    using out = ops.linear(xt, { weight });
    const got = await out.read();
    const expected = matmul(quantised(x, k), await decoded.read(), m, n, k);
    const rows = [0, 1].map((r) => [got, expected].map((v) => v.slice(r * n, (r + 1) * n)));
    for (const [a, b] of rows) expect(relativeL2(a!, b!)).toBeLessThan(BOUND);
    // The third row sums to zero, so that only the size of its terms bounds its error.
    const terms = Math.abs(expected[0]!);
    for (let i = 2 * n; i < 3 * n; i++) expect(Math.abs(got[i]! - expected[i]!)).toBeLessThan(BOUND * terms);
  });

  test.each(['Q8_0', 'Q4_K', 'Q6_K', 'Q2_K'])('%s: a row has the same bits in any batch', async (type) => {
    const { weight, n, k } = stored(type);
    const m = 300;
    const x = normal(m * k, 5);
    using xt = device.from(x, [m, k]);
    using all = ops.linear(xt, { weight });
    const expected = await all.read();
    for (const [first, rows] of [
      [0, 1],
      [63, 66],
      [250, 50],
    ] as const) {
      using part = device.from(x.slice(first * k, (first + rows) * k), [rows, k]);
      using out = ops.linear(part, { weight });
      expect(await out.read()).toEqual(expected.slice(first * n, (first + rows) * n));
    }
    weight.dispose();
  });

  test.each(['Q8_0', 'Q4_K', 'Q6_K', 'Q2_K'])('%s: NaN and infinity reach their row only', async (type) => {
    const { weight, n, k } = stored(type);
    const m = 5;
    for (const bad of [NaN, Infinity, -Infinity])
      for (const column of [0, 17, k - 1]) {
        const x = normal(m * k, 5);
        x[2 * k + column] = bad;
        using xt = device.from(x, [m, k]);
        using out = ops.linear(xt, { weight });
        const finite = Array.from(await out.read(), Number.isFinite);
        expect(finite).toEqual(finite.map((_, i) => Math.floor(i / n) !== 2));
      }
    weight.dispose();
  });

  test.each([1e-30, 1e30])('activations around %s keep their precision', async (size) => {
    const [m, n, k] = [3, 9, 96];
    const x = normal(m * k, 5).map((v) => v * size);
    const w = normal(n * k, 6);
    using xt = device.from(x, [m, k]);
    using weight = device.from(w, [n, k]);
    using out = ops.linear(xt, { weight });
    const expected = matmul(quantised(x, k), quantised(w, k), m, n, k);
    expect(relativeL2(await out.read(), expected)).toBeLessThan(BOUND);
  });
});
