/** Convolutions and group norms on every instruction set this CPU runs, against double references and golden data. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../bindings/native.js';
import { Device } from '../../src/runtime/device.js';
import { Ops, type Conv, type ConvOptions } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { convolve, type ConvCase } from '../support/convolution.js';
import { openTarget, TARGETS } from '../support/devices.js';
import { readGolden } from '../support/golden.js';
import { activations, maxAbsDifference, normal, relativeL2 } from '../support/reference.js';

const EPS = 2 ** -24; // FP32 rounding
const largest = (values: ArrayLike<number>) =>
  Array.from(values).reduce((a, v) => Math.max(a, Math.abs(v)), 0);
/** FP32 error of a dot product of N(0,1) values: c · eps · sqrt(k) · |x|max, c = 4. */
const dotBound = (k: number, values: ArrayLike<number>) =>
  4 * EPS * Math.sqrt(k) * Math.max(1, largest(values));

/** [batch, channels, pixels] to [batch, pixels, channels]; with the two counts exchanged, back again. */
function pixelRows(x: ArrayLike<number>, batch: number, channels: number, pixels: number): Float32Array {
  return Float32Array.from({ length: batch * channels * pixels }, (_, i) => {
    const [b, p, c] = [Math.floor(i / (channels * pixels)), Math.floor(i / channels) % pixels, i % channels];
    return x[(b * channels + c) * pixels + p]!;
  });
}

/** Random finite weights of a stored dtype, and their values. */
async function storedWeight(ops: Ops, dtype: string, shape: readonly [number, number]) {
  const count = shape[0] * shape[1];
  const noise = new Uint32Array(normal(count + 64, 11).buffer).map((bits) => bits >>> 3);
  const weight = ops.device.empty(dtype, shape);
  if (dtype === 'Q8_0') {
    const bytes = Uint8Array.from({ length: (count / 32) * 34 }, (_, i) => noise[i % count]! & 0xff);
    for (let block = 0; block < bytes.length; block += 34) bytes.set([0x1f, 0x24], block); // 0.016
    ops.device.native.upload(weight.native, bytes);
  } else {
    // Sign and mantissa at random, exponents from 2^-2 to 2^1: one of F16's bits or of BF16's.
    const [keep, exponent, unit] = dtype === 'F16' ? [0x83ff, 13, 10] : [0x807f, 125, 7];
    const halves = Uint16Array.from(
      noise.subarray(0, count),
      (v) => (v & keep) | ((exponent + ((v >>> 16) % 4)) << unit),
    );
    ops.device.native.upload(weight.native, halves);
  }
  using values = ops.decode(weight);
  return { weight, values: await values.read() };
}

describe.each(TARGETS)('%s', (target) => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = openTarget(target);
    ops = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());

  const CASES: readonly ConvCase[] = [
    { height: 1, width: 1, c: 1, n: 1, kernel: 1 },
    { height: 1, width: 1, c: 3, n: 3, kernel: 3 },
    { height: 5, width: 3, c: 33, n: 50, kernel: 1 },
    { height: 7, width: 9, c: 5, n: 3, kernel: 3 },
    { height: 17, width: 19, c: 33, n: 50, kernel: 3 },
    { height: 9, width: 31, c: 16, n: 3, kernel: 3, batch: 2 },
    { height: 40, width: 13, c: 3, n: 50, kernel: 3 },
    { height: 6, width: 5, c: 200, n: 7, kernel: 3 }, // more columns than are packed at a time
    { height: 35, width: 61, c: 60, n: 7, kernel: 3 }, // many pixels for few outputs: threads pack for themselves
    { height: 8, width: 7, c: 5, n: 50, kernel: 3, stride: 2, padding: [0, 1] },
    { height: 9, width: 8, c: 33, n: 3, kernel: 3, stride: 2, padding: [1, 1], batch: 2 },
    { height: 7, width: 6, c: 3, n: 1, kernel: 1, stride: 2 },
    { height: 5, width: 7, c: 4, n: 5, kernel: 1, padding: [1, 2] },
    { height: 3, width: 4, c: 3, n: 4, kernel: 3, padding: [0, 0] },
    { height: 6, width: 7, c: 20, n: 5, kernel: 5, padding: [2, 2] },
    { height: 1, width: 1, c: 1, n: 1, kernel: 3, upscale: 2 },
    { height: 5, width: 9, c: 33, n: 50, kernel: 3, upscale: 2, batch: 2 },
    { height: 4, width: 6, c: 5, n: 3, kernel: 3, upscale: 2, stride: 2, padding: [0, 1] },
    { height: 3, width: 5, c: 16, n: 4, kernel: 1, upscale: 2 },
  ];

  /** x, w, and their convolution in doubles. */
  function example(how: ConvCase) {
    const { batch = 1, height, width, c, n, kernel } = how;
    const pixels = batch * height * width;
    const x = normal(pixels * c, 1);
    const w = normal(n * kernel * kernel * c, 2);
    const options: ConvOptions = { ...how, batch };
    const expected = convolve(x, w, how);
    return {
      xt: device.from(x, [pixels, c]),
      conv: { weight: device.from(w, [n, kernel * kernel * c]), kernel } satisfies Conv,
      options,
      expected,
      bound: dotBound(kernel * kernel * c, expected),
    };
  }

  test.each(CASES)('conv2d %o', async (how) => {
    const { xt, conv, options, expected, bound } = example(how);
    using out = ops.conv2d(xt, conv, options);
    expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(bound);
    for (const tensor of [xt, conv.weight]) tensor.dispose();
  });

  test.each(CASES)('conv2d on weights in the order of files %o', async (how) => {
    const { c, n, kernel } = how;
    const { xt, conv, options, expected, bound } = example(how);
    const stored = pixelRows(normal(n * kernel * kernel * c, 2), n, kernel * kernel, c);
    using weight = device.from(stored, [n, c, kernel, kernel]);
    const run = () => ops.conv2d(xt, { weight, kernel }, options);
    if (device.isGpu) expect(run).toThrow(/conv2d: w \S+.* does not fit/);
    else {
      using out = run();
      expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(bound);
    }
    for (const tensor of [xt, conv.weight]) tensor.dispose();
  });

  test.each([[[50, 9, 33]], [[50, 3, 33, 3]], [[50, 33, 1, 9]], [[50, 33, 9, 1]], [[50, 33, 3]]])(
    'conv2d refuses weights of the shape %j',
    (shape) => {
      using x = device.from(normal(12 * 33, 1), [12, 33]);
      using weight = device.from(
        normal(
          shape.reduce((a, b) => a * b),
          2,
        ),
        shape,
      );
      expect(() => ops.conv2d(x, { weight, kernel: 3 }, { batch: 1, height: 3, width: 4 })).toThrow(
        'does not fit 33 channels and a kernel of 3',
      );
    },
  );

  test('conv2d: bias and a tensor added, and the same in int8, which convolutions run in FP32', async () => {
    const { xt, conv, options, expected, bound } = example({ height: 6, width: 11, c: 12, n: 33, kernel: 3 });
    const bias = normal(33, 3);
    const residual = normal(expected.length, 4);
    using bt = device.from(bias, [33]);
    using add = device.from(residual, [expected.length / 33, 33]);
    const sum = expected.map((v, i) => v + bias[i % 33]! + residual[i]!);
    using out = ops.conv2d(xt, { ...conv, bias: bt }, { ...options, add });
    const got = await out.read();
    expect(maxAbsDifference(got, sum)).toBeLessThan(2 * bound);
    using same = new Ops(device, 'int8').conv2d(xt, { ...conv, bias: bt }, { ...options, add });
    expect(await same.read()).toEqual(got);
    for (const tensor of [xt, conv.weight]) tensor.dispose();
  });

  test.each(['F16', 'BF16', 'Q8_0'])('conv2d on %s weights equals the one on their values', async (dtype) => {
    const how = { height: 5, width: 6, c: 32, n: 5, kernel: 3 };
    const { weight, values } = await storedWeight(ops, dtype, [how.n, 9 * how.c]);
    const x = normal(30 * how.c, 1);
    using xt = device.from(x, [30, how.c]);
    using out = ops.conv2d(xt, { weight, kernel: 3 }, { batch: 1, height: 5, width: 6 });
    const expected = convolve(x, values, how);
    expect(largest(values)).toBeGreaterThan(1);
    const bound = dotBound(9 * how.c, expected) * largest(values);
    expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(bound);
    if (dtype !== 'Q8_0' && !device.isGpu) {
      using stored = weight.reshape(how.n, how.c, 3, 3);
      using same = ops.conv2d(xt, { weight: stored, kernel: 3 }, { batch: 1, height: 5, width: 6 });
      const turned = convolve(x, pixelRows(values, how.n, how.c, 9), how);
      expect(maxAbsDifference(await same.read(), turned)).toBeLessThan(bound);
    }
    weight.dispose();
  });

  test('conv2d on columns of a wider tensor', async () => {
    const how = { height: 5, width: 8, c: 6, n: 9, kernel: 3 };
    const wide = normal(40 * 20, 1);
    const w = normal(9 * 54, 2);
    using xt = device.from(wide, [40, 20]);
    using columns = xt.columnRange(7, 13);
    using weight = device.from(w, [9, 54]);
    using out = ops.conv2d(columns, { weight, kernel: 3 }, { batch: 1, height: 5, width: 8 });
    const expected = convolve(await columns.read(), w, how);
    expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(dotBound(54, expected));
  });

  test.each(['F32', 'F16', 'BF16', 'Q8_0'])('conv_weight turns %s', async (dtype) => {
    const [n, c, taps] = [3, 32, 9];
    const { weight, values } =
      dtype === 'F32'
        ? { weight: device.from(normal(n * c * taps, 1), [n, c * taps]), values: normal(n * c * taps, 1) }
        : await storedWeight(ops, dtype, [n, c * taps]);
    const expected = pixelRows(values, n, c, taps);
    using out = device.empty('F32', [n, taps * c]);
    ops.convWeight(out, weight, taps);
    expect(await out.read()).toEqual(expected);
    if (dtype !== 'Q8_0') {
      using same = device.empty(dtype, [n, taps * c]);
      ops.convWeight(same, weight, taps);
      using decoded = ops.decode(same);
      expect(await decoded.read()).toEqual(expected);
    }
    weight.dispose();
  });

  const NORMS = [
    { batch: 1, pixels: 1, channels: 1, groups: 1, mean: 0 },
    { batch: 2, pixels: 15, channels: 33, groups: 1, mean: 0 },
    { batch: 1, pixels: 7, channels: 24, groups: 8, mean: 1000 },
    { batch: 2, pixels: 130, channels: 96, groups: 32, mean: -30 },
    { batch: 1, pixels: 2051, channels: 64, groups: 32, mean: 1000 }, // several tasks
    { batch: 1, pixels: 1537, channels: 3, groups: 1, mean: 5 },
    { batch: 1, pixels: 3, channels: 20000, groups: 8, mean: 1 }, // a pixel is more than a piece
  ];

  test.each(NORMS)('group_norm %o', async ({ batch, pixels, channels, groups, mean }) => {
    const rows = batch * pixels;
    const x = normal(rows * channels, 1).map((v) => v * 2 + mean);
    const [weight, bias] = [normal(channels, 2), normal(channels, 3)];
    const eps = 1e-6;
    using xt = device.from(x, [rows, channels]);
    using wt = device.from(weight, [channels]);
    using bt = device.from(bias, [channels]);
    const expected = groupNormed(x, weight, bias, { batch, groups, eps });
    const how = { batch, groups, eps };
    using out = ops.groupNorm(xt, { weight: wt, bias: bt }, how);
    // However large the mean: nothing is lost but the rounding of a deviation, its scale and its sum with the bias.
    const bound = 8 * EPS * Math.max(1, largest(expected));
    expect(maxAbsDifference(await out.read(), expected)).toBeLessThan(bound);
    using silu = ops.groupNorm(xt, { weight: wt, bias: bt }, { ...how, activation: 'silu' });
    expect(maxAbsDifference(await silu.read(), expected.map(activations.silu))).toBeLessThan(2 * bound);
    native.groupNorm(device.native, xt.native, xt.native, wt.native, bt.native, how); // in place
    expect(await xt.read()).toEqual(await out.read());
  });

  test('golden: downsampling of VAEs and of UNets, upsampling, group norms', async () => {
    const data = readGolden('diffusion/ops/ops.safetensors');
    const floats = (name: string) => data.get(name)!.data as Float32Array;
    using x = device.from(pixelRows(floats('conv.in'), 1, 4, 48), [48, 4]);
    using stored = device.from(floats('conv.weight'), [4, 36]);
    using weight = device.empty('F32', [4, 36]);
    ops.convWeight(weight, stored, 9);
    using bias = device.from(floats('conv.bias'), [4]);
    const conv = { weight, bias, kernel: 3 };
    const size = { batch: 1, height: 6, width: 8 };
    const check = async (out: Tensor, name: string, channels: number, batch = 1) => {
      const got = await out.read();
      const expected = pixelRows(floats(name), batch, channels, got.length / channels / batch);
      expect(relativeL2(got, expected), name).toBeLessThan(1e-6); // the golden data's own FP32 floor
      out.dispose();
    };
    await check(ops.conv2d(x, conv, { ...size, stride: 2, padding: [0, 1] }), 'conv.vae_downsample.out', 4);
    await check(ops.conv2d(x, conv, { ...size, stride: 2 }), 'conv.unet_downsample.out', 4);
    await check(ops.conv2d(x, conv, { ...size, upscale: 2 }), 'conv.upsample_nearest_conv.out', 4);

    using pixels = device.from(pixelRows(floats('groupnorm.in'), 2, 64, 15), [30, 64]);
    using normWeight = device.from(floats('groupnorm.weight'), [64]);
    using normBias = device.from(floats('groupnorm.bias'), [64]);
    const norm = { weight: normWeight, bias: normBias };
    const groups = { batch: 2, groups: 32 };
    const unet = ops.groupNorm(pixels, norm, { ...groups, eps: 1e-5 });
    await check(unet, 'groupnorm32_unet_eps1e-5.out', 64, 2);
    const vae = ops.groupNorm(pixels, norm, { ...groups, eps: 1e-6 });
    await check(vae, 'groupnorm32_vae_and_spatialtransformer_eps1e-6.out', 64, 2);
  });

  test('the same bits for any number of threads, and on repeat', async () => {
    const [height, width, c, n] = [37, 41, 40, 70];
    const x = normal(height * width * c, 1);
    const w = normal(n * 9 * c, 2);
    const bits: string[] = [];
    for (const threads of [1, 2, 3, 2]) {
      await using other = openTarget(target, { threads });
      const otherOps = new Ops(other, 'fp32');
      const xt = other.from(x, [height * width, c]);
      const conv = { weight: other.from(w, [n, 9 * c]), kernel: 3 };
      const norm = { weight: other.from(normal(c, 3), [c]), bias: other.from(normal(c, 4), [c]) };
      const y = otherOps.conv2d(xt, conv, { batch: 1, height, width });
      const z = otherOps.groupNorm(xt, norm, { batch: 1, groups: 8, eps: 1e-6 });
      const values = await Promise.all([y.read(), z.read()]);
      bits.push(values.map((v) => Buffer.from(v.buffer).toString('base64')).join());
    }
    expect(new Set(bits).size).toBe(1);
  });
});

/** x [batch · pixels, channels], arXiv:1803.08494 */
function groupNormed(
  x: Float32Array,
  weight: Float32Array,
  bias: Float32Array,
  how: { batch: number; groups: number; eps: number },
): Float64Array {
  const channels = weight.length;
  const width = channels / how.groups;
  const groupOf = (i: number) =>
    Math.floor(i / (x.length / how.batch)) * how.groups + Math.floor((i % channels) / width);
  const count = x.length / how.batch / how.groups;
  const mean = new Float64Array(how.batch * how.groups);
  const variance = new Float64Array(how.batch * how.groups);
  x.forEach((v, i) => (mean[groupOf(i)]! += v / count));
  x.forEach((v, i) => (variance[groupOf(i)]! += (v - mean[groupOf(i)]!) ** 2 / count));
  return Float64Array.from(x, (v, i) => {
    const g = groupOf(i);
    return ((v - mean[g]!) / Math.sqrt(variance[g]! + how.eps)) * weight[i % channels]! + bias[i % channels]!;
  });
}
