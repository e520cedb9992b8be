/** What is special about the CUDA device: names, errors, memory, deferred checks. Runs on its simulation. */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { TARGETS } from '../support/devices.js';
import { normal } from '../support/reference.js';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const builds = dirname(process.env['KOTOBA_ADDON'] ?? join(root, 'build/Release/kotoba.node'));
const coded = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) as string });

describe('names', () => {
  test.runIf(!existsSync(join(builds, 'kotoba_cuda.so')))(
    'without its library, cuda says how to build it',
    () => {
      expect(() => Device.open('cuda')).toThrow(coded('ERR_DEVICE', /KOTOBA_CUDA=ON.*use the device cpu/));
    },
  );
  test.runIf(!existsSync(join(builds, 'kotoba_cuda_sim.so')))('without its library, so does cuda-sim', () => {
    expect(() => Device.open('cuda-sim')).toThrow(coded('ERR_DEVICE', /KOTOBA_CUDA_SIM=ON/));
  });
  test('a number that is none', () => {
    expect(() => Device.open('cuda:x' as 'cuda:1')).toThrow(coded('ERR_DEVICE', /cuda:1, got "cuda:x"/));
    expect(() => Device.open('cuda:-1')).toThrow(coded('ERR_DEVICE', /cuda:1, got "cuda:-1"/));
  });
});

describe.runIf(TARGETS.includes('cuda-sim'))('cuda-sim', () => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = Device.open('cuda-sim');
    ops = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());
  afterEach(() => {
    delete process.env['KOTOBA_VARIANT'];
    delete process.env['KOTOBA_VRAM'];
  });

  test('several GPUs by number', async () => {
    await using second = Device.open('cuda-sim:1');
    expect([device.info.name, second.info.name]).toEqual(['cuda-sim', 'cuda-sim:1']);
    expect(() => Device.open('cuda-sim:7')).toThrow(coded('ERR_DEVICE', /no GPU 7; this machine has 2/));
    using x = second.from(new Float32Array([1, 2]), [1, 2]);
    expect(await x.read()).toEqual(new Float32Array([1, 2]));
  });

  test('ops run in the order of their calls, over many batches', async () => {
    using x = device.from(new Float32Array([1, 0, 0, 1]), [2, 2]);
    using swap = device.from(new Float32Array([0, 1, 1, 0]), [2, 2]);
    let current = ops.linear(x, { weight: swap });
    for (let i = 0; i < 300; i++) {
      const next = ops.linear(current, { weight: swap });
      current.dispose();
      current = next;
    }
    expect([...(await current.read())]).toEqual([0, 1, 1, 0]); // 301 swaps
    current.dispose();
  });

  test('a check that fails is reported by the next wait, the first one of several', async () => {
    using x = device.from(new Float32Array([1, 2, 3, NaN, 5, Infinity]), [3, 2]);
    using fine = device.from(new Float32Array([1, 2]), [1, 2]);
    using table = device.from(normal(8, 1), [4, 2]);
    using ids = device.from(new Int32Array([3, 9, 4]), [3]);
    const job = device.run(async () => {
      ops.requireFinite(fine, 'layer 1');
      ops.requireFinite(x, 'layer 2');
      ops.embedding(table, ids).dispose();
    });
    await expect(job).rejects.toThrow(coded('ERR_NON_FINITE', /layer 2: nan at row 1, column 1/));
    const next = device.run(async () => ops.embedding(table, ids).dispose());
    await expect(next).rejects.toThrow(
      coded('ERR_TOKEN_ID', /id 9 at position 1 is outside the table of 4 rows/),
    );
    await device.run(async () => ops.requireFinite(fine, 'layer 3'));
  });

  test('a recording replays with the inputs of the moment', async () => {
    using x = device.from(new Float32Array([1, 2]), [1, 2]);
    using w = device.from(new Float32Array([2, 0, 0, 3]), [2, 2]);
    device.native.beginCapture();
    using once = ops.linear(x, { weight: w });
    using twice = ops.linear(once, { weight: w });
    const recording = device.native.endCapture();
    for (const values of [[1, 2] as const, [5, 7] as const]) {
      device.native.upload(x.native, new Float32Array(values));
      device.native.replay(recording);
      expect([...(await twice.read())]).toEqual([values[0] * 4, values[1] * 9]);
    }
  });

  test('large tensors pass through the staging buffers in pieces, strided ones too', async () => {
    const [rows, cols] = [1100, 2500]; // 11 MB: more than one buffer
    const values = normal(rows * cols, 1);
    using x = device.from(values, [rows, cols]);
    const same = (a: Float32Array, b: Float32Array) => a.length === b.length && a.every((v, i) => v === b[i]);
    expect(same(await x.read(), values)).toBe(true);
    using middle = x.columnRange(100, 2300);
    const inside = values.filter((_, i) => i % cols >= 100 && i % cols < 2300);
    expect(same(await middle.read(), inside)).toBe(true);
  });

  test('memory beyond the budget is an error that tells the sizes', async () => {
    process.env['KOTOBA_VRAM'] = '1'; // MiB
    await using small = Device.open('cuda-sim');
    using half = small.empty('F32', [1 << 17]);
    expect(half.shape).toEqual([1 << 17]);
    expect(() => small.empty('F32', [1 << 18])).toThrow(
      coded('ERR_OUT_OF_MEMORY', /cannot allocate 1\.00 MiB: .* in use of a budget of 1\.00 MiB/),
    );
    process.env['KOTOBA_VRAM'] = 'lots';
    expect(() => Device.open('cuda-sim')).toThrow(
      coded('ERR_ARGUMENT', /KOTOBA_VRAM: expected a number of MiB/),
    );
  });
});
