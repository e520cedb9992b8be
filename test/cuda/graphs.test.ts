/** Recordings as CUDA graphs: captured, launched, refused; their memory, their checks, and weights that move. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops, type Norm } from '../../src/runtime/ops.js';
import { Recording } from '../../src/runtime/recording.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { TARGETS } from '../support/devices.js';
import { normal } from '../support/reference.js';
import { WeightFile } from './weight_file.js';

const coded = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) as string });

const KIB = 1024;
const SIZE = 64;
const LAYERS = 6; // 96 KiB

describe.runIf(TARGETS.includes('cuda-sim'))('on a GPU', () => {
  let file: WeightFile;
  let device: Device;
  let ops: Ops;
  let x: Tensor;
  let weights: Tensor[];
  let norm: Norm;
  const use = () => device.native.describe();

  function open(vram: number): void {
    device = Device.open('cuda-sim', { vram });
    ops = new Ops(device, 'fp32');
    weights = file.adopt(device);
    x = device.from(normal(3 * SIZE, 7), [3, SIZE]);
    norm = {
      weight: device.from(normal(SIZE, 8), [SIZE]),
      bias: device.from(normal(SIZE, 9), [SIZE]),
    };
  }
  beforeEach(() => {
    process.env['KOTOBA_VARIANT'] = 'linear:simt_64x64';
    file = new WeightFile(LAYERS, SIZE);
  });
  afterEach(() => {
    delete process.env['KOTOBA_VARIANT'];
    device.close();
    file[Symbol.dispose]();
  });

  /** groupNorm, which takes scratch memory, then a product, for every weight. */
  function network(): Tensor {
    let last = ops.decode(x);
    for (const weight of weights) {
      using before = last;
      using normed = ops.groupNorm(before, norm, { batch: 1, groups: 8, eps: 1e-5 });
      last = ops.linear(normed, { weight });
    }
    return last;
  }
  const record = () => Recording.of(device, network);
  const values = async (tensor: Tensor) => [...(await tensor.read())];

  /** What the ops themselves make of what x holds. */
  async function eager(): Promise<number[]> {
    using out = network();
    return await values(out);
  }

  test('one capture, then launches, with the inputs of the moment', async () => {
    open(1024 * KIB);
    using recording = record();
    for (let i = 0; i < 5; i++) {
      x.write(normal(3 * SIZE, i));
      recording.replay();
      const replayed = await values(recording.outputs);
      expect(replayed).toEqual(await eager());
    }
    const { graphs, launched, commanded, refusal } = use();
    expect({ graphs, refusal, replays: launched + commanded }).toEqual({
      graphs: 1,
      refusal: '',
      replays: 5,
    });
    expect(launched).toBeGreaterThanOrEqual(3);
  });

  test('two recordings in turn with ops between them: nobody writes what is another one’s', async () => {
    open(1024 * KIB);
    using first = record();
    using second = record();
    const expected = await eager();
    for (let i = 0; i < 4; i++) {
      first.replay();
      expect(await eager()).toEqual(expected);
      second.replay();
      expect(await values(first.outputs)).toEqual(expected);
      expect(await values(second.outputs)).toEqual(expected);
    }
    expect(use()).toMatchObject({ graphs: 2, refusal: '' });
  });

  test('a recording that is disposed gives its memory back', async () => {
    open(1024 * KIB);
    await eager();
    await device.native.flush();
    const { used } = use();
    const recording = record();
    for (let i = 0; i < 3; i++) recording.replay();
    await device.native.flush();
    expect(use().used).toBeGreaterThan(used);
    recording[Symbol.dispose]();
    await device.native.flush();
    await device.native.flush(); // it is destroyed by the first wait after its end
    expect(use().used).toBe(used);
  });

  test('checks within a recording are made at every replay', async () => {
    open(1024 * KIB);
    using table = device.from(normal(4 * SIZE, 3), [4, SIZE]);
    using ids = device.from(new Int32Array([0, 1]), [2]);
    using recording = Recording.of(device, () => {
      ops.requireFinite(x, 'the input');
      return ops.embedding(table, ids);
    });
    const replay = () => device.run(async () => recording.replay());
    for (let i = 0; i < 3; i++) await replay();
    expect(use().graphs).toBe(1);
    for (let i = 0; i < 2; i++) {
      x.write(new Float32Array(3 * SIZE).fill(1).with(SIZE + 2, NaN));
      await expect(replay()).rejects.toThrow(coded('ERR_NON_FINITE', /the input: nan at row 1, column 2/));
      x.write(new Float32Array(3 * SIZE).fill(1));
      await replay();
      ids.write(new Int32Array([1, 4]));
      await expect(replay()).rejects.toThrow(coded('ERR_TOKEN_ID', /id 4 at position 1/));
      ids.write(new Int32Array([2, 3]));
    }
    await replay();
    expect(use().graphs).toBe(1);
  });

  test('weights that do not stay are no graph, and it says so', async () => {
    open(64 * KIB); // of 96
    using recording = record();
    for (let i = 0; i < 4; i++) {
      recording.replay();
      expect(await values(recording.outputs)).toEqual(await eager());
    }
    expect(use()).toMatchObject({ graphs: 0, launched: 0, commanded: 4 });
    expect(use().refusal).toMatch(/its weights do not all stay in the GPU's memory/);
  });

  test('a copy from the host within a recording is no graph, and runs all the same', async () => {
    open(1024 * KIB);
    using recording = Recording.of(device, () => {
      x.write(new Float32Array(3 * SIZE).fill(2));
      return ops.decode(x);
    });
    for (let i = 0; i < 4; i++) {
      x.write(normal(3 * SIZE, i));
      recording.replay();
      expect(await values(recording.outputs)).toEqual(new Array(3 * SIZE).fill(2));
    }
    expect(use()).toMatchObject({ graphs: 0, commanded: 4, refusal: 'it holds a copy from the host' });
  });

  test('a graph whose weights were pushed out is captured again', async () => {
    open(320 * KIB);
    using recording = record();
    const expected = await eager();
    for (let i = 0; i < 3; i++) recording.replay();
    expect(await values(recording.outputs)).toEqual(expected);
    expect(use().graphs).toBe(1);
    const large = device.empty('F32', [60 * KIB]); // takes the room of weights
    expect(use().resident).toBeLessThan(weights.length * file.bytes);
    for (let i = 0; i < 2; i++) {
      recording.replay();
      expect(await values(recording.outputs)).toEqual(expected);
    }
    expect(use().graphs).toBe(1);
    large.dispose();
    for (let i = 0; i < 4; i++) {
      recording.replay();
      expect(await values(recording.outputs)).toEqual(expected);
    }
    expect(use().graphs).toBe(2);
  });

  test('a table of distances is made before the capture', async () => {
    open(1024 * KIB);
    using table = device.from(normal(32 * 2, 3), [32, 2]);
    const bias = { table, bidirectional: true, maxDistance: 128 };
    const attend = () => ops.attention(x, x, x, { batch: 1, heads: 2, scale: 1, bias });
    using recording = Recording.of(device, attend);
    for (let i = 0; i < 3; i++) recording.replay();
    using expected = attend();
    expect(await values(recording.outputs)).toEqual(await values(expected));
    expect(use()).toMatchObject({ graphs: 1, launched: 2, commanded: 1 });
  });

  test('an op that fails in a recording is its own error at every replay', async () => {
    open(1024 * KIB);
    using recording = record();
    process.env['KOTOBA_VARIANT'] = 'linear:magic';
    for (let i = 0; i < 3; i++)
      await expect(device.run(async () => recording.replay())).rejects.toThrow(
        coded('ERR_ARGUMENT', /no variant magic/),
      );
    expect(use().graphs).toBe(0);
  });

  test('cancelled between replays', async () => {
    open(1024 * KIB);
    using recording = record();
    const expected = await eager();
    const controller = new AbortController();
    const job = device.run(async () => {
      for (let i = 0; i < 3000; i++) recording.replay();
    }, controller.signal);
    setTimeout(() => controller.abort(), 50);
    await expect(job).rejects.toThrow(coded('ERR_CANCELLED', /cancelled/));
    await device.run(async () => recording.replay());
    expect(await values(recording.outputs)).toEqual(expected);
  });

  test('a device that is closed before its recordings', async () => {
    open(1024 * KIB);
    const recording = record();
    for (let i = 0; i < 3; i++) recording.replay();
    device.close();
    recording[Symbol.dispose]();
  });
});
