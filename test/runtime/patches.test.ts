/** Ops that only move values: patchify, unpatchify, copy_tokens. Every result is exact. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../bindings/native.js';
import { Device } from '../../src/runtime/device.js';
import { Ops, type PatchOptions } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { openModelDevice } from '../support/devices.js';
import { readGolden } from '../support/golden.js';
import { normal } from '../support/reference.js';

const ERR_ARGUMENT = expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error;
const golden = readGolden('diffusion/ops/ops.safetensors');

/** I64 indices, small enough to be exact floats. */
function indices(name: string): Float32Array {
  const { data } = golden.get(name)!;
  return Float32Array.from(new BigInt64Array(data.buffer, data.byteOffset, data.length / 8), Number);
}

/** For every value of the tokens, its place in the image. */
function places({ batch, channels, height, width, patch, order }: PatchOptions): number[] {
  const [across, features] = [width / patch, channels * patch * patch];
  const out: number[] = [];
  for (let b = 0; b < batch; b++)
    for (let c = 0; c < channels; c++)
      for (let row = 0; row < height; row++)
        for (let col = 0; col < width; col++) {
          const [ph, pw] = [row % patch, col % patch];
          const token = (b * (height / patch) + Math.floor(row / patch)) * across + Math.floor(col / patch);
          const feature =
            order === 'ph,pw,c' ? (ph * patch + pw) * channels + c : (c * patch + ph) * patch + pw;
          out[token * features + feature] = ((b * channels + c) * height + row) * width + col;
        }
  return out;
}

let device: Device;
let ops: Ops;
beforeAll(() => {
  device = openModelDevice();
  ops = new Ops(device, 'fp32');
});
afterAll(() => device.close());

describe('patchify and unpatchify', () => {
  const SIZES: PatchOptions[] = [
    { batch: 1, channels: 1, height: 1, width: 1, patch: 1 },
    { batch: 2, channels: 3, height: 5, width: 7, patch: 1 },
    { batch: 1, channels: 3, height: 70, width: 90, patch: 1 }, // more than one chunk
    { batch: 1, channels: 16, height: 6, width: 10, patch: 2 },
    { batch: 3, channels: 2, height: 4, width: 34, patch: 2 },
    { batch: 2, channels: 5, height: 9, width: 6, patch: 3 },
    { batch: 1, channels: 2, height: 8, width: 4, patch: 4 },
    { batch: 2, channels: 40, height: 6, width: 57, patch: 3 }, // more than one block of tokens to a row
  ];
  const cases = SIZES.flatMap((size) =>
    (['c,ph,pw', 'ph,pw,c'] as const).map((order) => ({ ...size, order })),
  );

  test.each(cases)('%o', async (options) => {
    const { batch, channels, height, width, patch } = options;
    const image = normal(batch * channels * height * width, 1);
    using x = device.from(image, [batch, channels, height, width]);
    using tokens = ops.patchify(x, options);
    using back = ops.unpatchify(tokens, options);
    expect(tokens.shape).toEqual([(batch * height * width) / patch ** 2, channels * patch * patch]);
    expect(await tokens.read()).toEqual(Float32Array.from(places(options), (at) => image[at]!));
    expect(await back.read()).toEqual(image);
  });

  test('tokens as columns of a wider tensor', async () => {
    const options = { batch: 1, channels: 3, height: 4, width: 6, patch: 2 };
    using x = device.from(normal(72, 1), [1, 3, 4, 6]);
    using wide = device.empty('F32', [6, 20]);
    using tokens = wide.columnRange(5, 17);
    const how = { ...options, channelsFirst: true };
    native.patchify(device.native, tokens.native, x.native, how);
    using dense = ops.patchify(x, options);
    expect(await tokens.read()).toEqual(await dense.read());
    using back = ops.unpatchify(tokens, options);
    expect(await back.read()).toEqual(await x.read());
  });

  test('Flux packs, SD3 unpacks', async () => {
    const size = { batch: 1, channels: 16, height: 4, width: 6, patch: 2 };
    using latents = device.from(indices('flux_pack.index_in_chw'), [1, 16, 4, 6]);
    using packed = ops.patchify(latents, size);
    expect(await packed.read()).toEqual(indices('flux_pack.tokens'));
    using tokens = device.from(indices('sd3_unpatchify.tokens'), [6, 64]);
    using unpacked = ops.unpatchify(tokens, { ...size, order: 'ph,pw,c' });
    expect(await unpacked.read()).toEqual(indices('sd3_unpatchify.out_chw'));
  });

  const IMAGE = { batch: 1, channels: 3, height: 4, width: 6, patch: 2, channelsFirst: true };
  const HUGE = 2 ** 31;
  test.each<[string, number[], number[], Partial<typeof IMAGE>, RegExp]>([
    ['a height that is no multiple of the patch', [72], [6, 12], { patch: 3 }, /no multiple of the patch, 3/],
    ['a width that is no multiple of the patch', [72], [6, 12], { patch: 4 }, /no multiple of the patch, 4/],
    ['another image', [1, 3, 4, 5], [6, 12], {}, /the image must be/],
    ['other tokens', [72], [5, 12], {}, /tokens/],
    ['other features', [72], [6, 11], {}, /tokens/],
    [
      'sizes whose product is 2^64',
      [0],
      [0, 2],
      { batch: HUGE, channels: 2, height: HUGE, width: 2, patch: 1 },
      /image/,
    ],
    ['no patch', [72], [6, 12], { patch: 0 }, /patch/],
    ['no channels', [72], [6, 12], { channels: 0 }, /channels/],
  ])('refuse %s', (_, imageShape, tokensShape, sizes, message) => {
    using image = device.empty('F32', imageShape);
    using tokens = device.empty('F32', tokensShape);
    const how = { ...IMAGE, ...sizes };
    const calls = [
      () => native.patchify(device.native, tokens.native, image.native, how),
      () => native.unpatchify(device.native, image.native, tokens.native, how),
    ];
    for (const call of calls) {
      expect(call).toThrow(ERR_ARGUMENT);
      expect(call).toThrow(message);
    }
  });

  test('refuse a strided image, and anything but F32', () => {
    using wide = device.empty('F32', [12, 9]);
    using strided = wide.columnRange(1, 7);
    using tokens = device.empty('F32', [6, 12]);
    using half = device.empty('F16', [6, 12]);
    const patchify = (out: Tensor, x: Tensor) => () =>
      native.patchify(device.native, out.native, x.native, IMAGE);
    expect(patchify(tokens, strided)).toThrow(/dense/);
    expect(patchify(tokens, strided)).toThrow(ERR_ARGUMENT);
    expect(patchify(tokens, half)).toThrow(ERR_ARGUMENT);
    expect(patchify(half, tokens)).toThrow(ERR_ARGUMENT);
  });
});

describe('copy_tokens', () => {
  test.each([
    { batch: 1, cols: 1, from: 1, to: 1, tokens: 1, xOffset: 0, outOffset: 0 },
    { batch: 1, cols: 7, from: 5, to: 9, tokens: 0, xOffset: 5, outOffset: 9 },
    { batch: 3, cols: 7, from: 5, to: 9, tokens: 3, xOffset: 2, outOffset: 6 },
    { batch: 2, cols: 33, from: 60, to: 50, tokens: 41, xOffset: 19, outOffset: 1 },
  ])('%o', async ({ batch, cols, from, to, ...how }) => {
    // x and out are columns of wider tensors.
    const [source, before] = [normal(batch * from * 2 * cols, 1), normal(batch * to * 3 * cols, 2)];
    using wide = device.from(source, [batch * from, 2 * cols]);
    using x = wide.columnRange(cols, 2 * cols);
    using joined = device.from(before, [batch * to, 3 * cols]);
    using out = joined.columnRange(cols, 2 * cols);
    ops.copyTokens(out, x, { batch, ...how });
    const expected = before.slice();
    for (let b = 0; b < batch; b++)
      for (let t = 0; t < how.tokens; t++) {
        const at = (b * from + how.xOffset + t) * 2 * cols + cols;
        expected.set(source.subarray(at, at + cols), (b * to + how.outOffset + t) * 3 * cols + cols);
      }
    expect(await joined.read()).toEqual(expected);
  });

  const HOW = { batch: 2, tokens: 2, outOffset: 3, xOffset: 1 };
  test.each<[string, [number, number], [number, number], Partial<typeof HOW>, RegExp]>([
    ['tokens past the end of x', [10, 4], [6, 4], { xOffset: 2 }, /do not fit/],
    ['tokens past the end of out', [10, 4], [6, 4], { outOffset: 4 }, /do not fit/],
    ['other columns', [10, 5], [6, 4], {}, /do not fit/],
    ['a batch that does not divide x', [10, 4], [7, 4], {}, /x .*split into 2 sequences/],
    ['a batch that does not divide out', [9, 4], [6, 4], {}, /out .*split into 2 sequences/],
    ['a negative offset', [10, 4], [6, 4], { xOffset: -1 }, /xOffset/],
    ['a negative count', [10, 4], [6, 4], { tokens: -1 }, /tokens/],
  ])('refuses %s', (_, outShape, xShape, how, message) => {
    using out = device.empty('F32', outShape);
    using x = device.empty('F32', xShape);
    const call = () => ops.copyTokens(out, x, { ...HOW, ...how });
    expect(call).toThrow(ERR_ARGUMENT);
    expect(call).toThrow(message);
  });

  test('refuses to change the dtype, and 16 bits on the CPU', () => {
    using x = device.empty('F32', [10, 4]);
    using half = device.empty('F16', [10, 4]);
    expect(() => ops.copyTokens(x, half, HOW)).toThrow(ERR_ARGUMENT);
    expect(() => ops.copyTokens(half, x, HOW)).toThrow(ERR_ARGUMENT);
    if (device.info.name !== 'cpu') return; // GPUs move them: test/cuda/norms.test.ts
    using other = device.empty('F16', [10, 4]);
    expect(() => ops.copyTokens(other, half, HOW)).toThrow(ERR_ARGUMENT);
  });
});
