/** Other forms of weights (split, expanded): made once, kept while there is room, the first to go, never stale. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Recording } from '../../src/runtime/recording.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { TARGETS } from '../support/devices.js';
import { normal } from '../support/reference.js';
import { WeightFile } from './weight_file.js';

const KIB = 1024;
const SIZE = 64;
const LAYERS = 4;
const ALL = LAYERS * 4 * SIZE * SIZE; // bytes: 64 KiB; their split forms take as much again

describe.runIf(TARGETS.includes('cuda-sim'))('on a GPU', () => {
  let file: WeightFile;
  let device: Device;
  let ops: Ops;
  let weights: Tensor[];
  let x: Tensor;
  const use = () => device.native.describe();

  async function open(vram: number): Promise<void> {
    device = Device.open('cuda-sim', { vram });
    ops = new Ops(device, 'fp32');
    weights = file.adopt(device);
    x = device.from(normal(20 * SIZE, 7), [20, SIZE]);
    await device.native.flush();
  }
  beforeEach(() => {
    process.env['KOTOBA_VARIANT'] = 'linear:split';
    file = new WeightFile(LAYERS, SIZE);
  });
  afterEach(() => {
    delete process.env['KOTOBA_VARIANT'];
    device.close();
    file[Symbol.dispose]();
  });

  async function pass(): Promise<number[][]> {
    const results = [];
    for (const weight of weights) {
      using out = ops.linear(x, { weight });
      results.push([...(await out.read())]);
    }
    await device.native.flush();
    return results;
  }

  test('made once and kept; they go with their weight', async () => {
    await open(1024 * KIB);
    const before = use().used - use().resident;
    const first = await pass();
    const { used, resident } = use();
    expect(resident).toBe(ALL);
    expect(used - resident - before).toBeGreaterThanOrEqual(ALL);
    expect(await pass()).toEqual(first);
    expect(use().used).toBe(used);
    weights.forEach((weight) => weight.dispose());
    await device.native.flush();
    expect(use().used).toBeLessThanOrEqual(before + KIB);
  });

  test('the first to go when tensors need room, and made again', async () => {
    await open(320 * KIB);
    const expected = await pass();
    const { used } = use();
    const large = device.empty('F32', [50 * KIB]); // 200 KiB: the forms' room, not the weights'
    expect(use()).toMatchObject({ resident: ALL });
    expect(use().used).toBeLessThan(used + 200 * KIB);
    expect(await pass()).toEqual(expected);
    large.dispose();
    expect(await pass()).toEqual(expected);
    expect(use().used).toBe(used);
  });

  test('weights that do not stay have none', async () => {
    await open(1024 * KIB);
    const expected = await pass();
    device.close();
    await open(96 * KIB);
    for (let round = 0; round < 3; round++) expect(await pass()).toEqual(expected);
    expect(use().peak).toBeLessThanOrEqual(96 * KIB);
  });

  test('a recording has them made before it becomes a graph', async () => {
    await open(1024 * KIB);
    using recording = Recording.of(device, () => ops.linear(x, { weight: weights[0]! }));
    for (let i = 0; i < 3; i++) recording.replay();
    const replayed = [...(await recording.outputs.read())];
    expect(use()).toMatchObject({ graphs: 1, refusal: '' });
    const { used } = use();
    expect(replayed).toEqual((await pass())[0]);
    // The first weight's form was there; three more are made.
    expect(use().used - used).toBeGreaterThanOrEqual((ALL * 3) / 4);
    expect(use().used - used).toBeLessThan(ALL);
    const large = device.empty('F32', [(1024 * KIB - use().used) / 4 + 16 * KIB]); // takes a form's room
    recording.replay();
    expect([...(await recording.outputs.read())]).toEqual(replayed);
    large.dispose();
  });
});
