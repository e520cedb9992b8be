/** Weights that stay on the GPU, and those that do not fit: streamed, pushed out, fetched again; with the same bits. */
import { truncateSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { TARGETS } from '../support/devices.js';
import { TextEncoder } from '../../src/pipeline/text_encoder.js';
import { golden } from '../support/golden.js';
import { normal } from '../support/reference.js';
import { WeightFile } from './weight_file.js';

const coded = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) as string });

const SIZE = 64;
const LAYERS = 10;
const ALL = LAYERS * 4 * SIZE * SIZE; // bytes: 160 KiB
const KIB = 1024;

describe.runIf(TARGETS.includes('cuda-sim'))('on a GPU', () => {
  let file: WeightFile;
  let device: Device;
  let ops: Ops;
  let weights: Tensor[];
  const use = () => device.native.describe();

  function open(vram: number): void {
    device = Device.open('cuda-sim', { vram });
    ops = new Ops(device, 'fp32');
    weights = file.adopt(device);
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

  /** x · w₁ᵀ · w₂ᵀ · …; each product is on the device until the next one is made. */
  async function pass(through: readonly Tensor[] = weights, on = ops): Promise<number[]> {
    let x = on.device.from(normal(3 * SIZE, 7), [3, SIZE]);
    for (const weight of through) {
      const next = on.linear(x, { weight });
      x.dispose();
      x = next;
    }
    const values = [...(await x.read())];
    x.dispose();
    return values;
  }

  async function unlimited(): Promise<number[]> {
    await using other = Device.open('cuda-sim');
    const all = file.adopt(other);
    return await pass(all, new Ops(other, 'fp32'));
  }

  test('what fits is copied once and stays', async () => {
    open(400 * KIB);
    const first = await pass();
    const { fetched, resident, refusal } = use();
    expect([resident, refusal]).toEqual([ALL, '']);
    expect(await pass()).toEqual(first);
    expect(use()).toMatchObject({ fetched, resident: ALL });
  });

  test.each([160, 100, 64, 40])(
    '%i KiB for 160 KiB of weights: the same bits, within the budget',
    async (kib) => {
      open(kib * KIB);
      const expected = await unlimited();
      for (let round = 0; round < 4; round++) expect(await pass()).toEqual(expected);
      const { peak, budget, fetched } = use();
      expect(budget).toBe(kib * KIB);
      expect(peak).toBeLessThanOrEqual(budget);
      expect(fetched).toBeGreaterThan(ALL - kib * KIB);
    },
  );

  test('in every round, no more is fetched than does not fit', async () => {
    open(128 * KIB);
    for (let round = 0; round < 2; round++) await pass();
    const { fetched, resident } = use();
    expect(resident).toBeGreaterThanOrEqual(3 * file.bytes);
    for (let round = 0; round < 3; round++) await pass();
    // Three rounds, and what was fetched ahead for a fourth.
    expect(use().fetched - fetched).toBeLessThanOrEqual(3 * (ALL - resident) + 3 * file.bytes);
  });

  test('rows, columns and reshaped views of a streamed weight', async () => {
    open(64 * KIB);
    const x = device.from(normal(3 * SIZE, 7), [3, SIZE]);
    const expected = await unlimited();
    expect(await pass()).toEqual(expected);
    using all = ops.linear(x, { weight: weights[9]! });
    using rows = weights[9]!.rowRange(16, 48);
    using some = ops.linear(x, { weight: rows });
    using columns = weights[9]!.columnRange(8, 40);
    using flat = weights[9]!.reshape(SIZE * SIZE);
    const [whole, stored] = [await all.read(), await weights[9]!.read()];
    const inside = whole.filter((_, i) => i % SIZE >= 16 && i % SIZE < 48);
    expect(await some.read()).toEqual(inside);
    expect(await columns.read()).toEqual(stored.filter((_, i) => i % SIZE >= 8 && i % SIZE < 40));
    expect(await flat.read()).toEqual(stored);
  });

  test('tensors push weights out, which come back afterwards', async () => {
    open(256 * KIB);
    const expected = await pass();
    await pass();
    expect(use().resident).toBe(ALL);
    const large = device.empty('F32', [48 * KIB]); // 192 KiB of 256
    expect(use().resident).toBeLessThanOrEqual(64 * KIB);
    expect(await pass()).toEqual(expected);
    large.dispose();
    await device.native.flush();
    expect(await pass()).toEqual(expected);
    expect(await pass()).toEqual(expected);
    expect(use()).toMatchObject({ resident: ALL, budget: 256 * KIB });
  });

  test('a network that is not used makes room for the one that is', async () => {
    open(200 * KIB);
    await pass();
    expect(use().resident).toBe(ALL);
    using second = new WeightFile(LAYERS, SIZE, 2);
    const others = second.adopt(device);
    const expected = await pass(others);
    for (let round = 0; round < 2; round++) expect(await pass(others)).toEqual(expected);
    const { fetched, resident } = use();
    expect(resident).toBe(ALL);
    expect(await pass(others)).toEqual(expected);
    expect(use().fetched).toBe(fetched); // all of it stays now
    others.forEach((weight) => weight.dispose());
  });

  test('weights that are disposed leave their memory', async () => {
    open(400 * KIB);
    await pass();
    await device.native.flush();
    const { used } = use();
    weights.forEach((weight) => weight.dispose());
    await device.native.flush();
    expect(used - use().used).toBe(ALL);
    expect(use().resident).toBe(0);
  });

  test('disposed while they are being streamed', async () => {
    open(64 * KIB);
    for (let round = 0; round < 5; round++) {
      const again = file.adopt(device);
      const x = device.from(normal(3 * SIZE, 7), [3, SIZE]);
      for (const weight of again) ops.linear(x, { weight }).dispose();
      again.forEach((weight) => weight.dispose());
      x.dispose();
    }
    await device.native.flush();
    expect(await pass()).toEqual(await unlimited());
  });

  test('a single weight that does not fit is an error that says so', async () => {
    open(12 * KIB); // of 16
    await expect(device.run(() => pass())).rejects.toThrow(
      coded(
        'ERR_OUT_OF_MEMORY',
        /cannot allocate a weight of 16384 bytes: .* in use of a budget of 12288 bytes/,
      ),
    );
    using x = device.from(new Float32Array([1, 2]), [1, 2]);
    expect([...(await x.read())]).toEqual([1, 2]);
  });

  test('weights of several sizes, of which one fits at a time', async () => {
    using larger = new WeightFile(2, 80, 5); // 25 KiB each
    const on = async (vram: number) => {
      await using small = Device.open('cuda-sim', { vram });
      const [some, others] = [file.adopt(small), larger.adopt(small)];
      const results = [];
      for (const weight of [some[0]!, others[0]!, some[1]!, others[1]!, some[0]!]) {
        using x = small.from(normal(weight.cols, 7), [1, weight.cols]);
        using out = new Ops(small, 'fp32').linear(x, { weight });
        results.push([...(await out.read())]);
      }
      return results;
    };
    open(64 * KIB);
    expect(await on(29 * KIB)).toEqual(await on(1024 * KIB));
  });

  test('rows of a table that does not fit come from its file', async () => {
    using large = new WeightFile(1, 256); // 256 KiB
    open(64 * KIB);
    const [table] = large.adopt(device);
    const values = normal(256 * 256, 1).map((v) => v / 16);
    using ids = device.from(new Int32Array([200, 3, 255, 3]), [4]);
    using found = ops.embedding(table!, ids);
    const row = (i: number) => [...values.subarray(256 * i, 256 * (i + 1))];
    expect([...(await found.read())]).toEqual([200, 3, 255, 3].flatMap(row));
    expect(use().fetched).toBe(0);
    using wrong = device.from(new Int32Array([7, 256]), [2]);
    await expect(device.run(async () => ops.embedding(table!, wrong).dispose())).rejects.toThrow(
      coded('ERR_TOKEN_ID', /id 256 at position 1 is outside the table of 256 rows/),
    );
  });

  test('a file that was cut short reads as zeros, and is known to be', async () => {
    open(64 * KIB);
    await pass();
    truncateSync(file.path, 0);
    await pass();
    expect(file.mapped.intact()).toBe(false);
  });

  test('a whole encoder in less memory than its weights', async () => {
    const tokens = { ids: Int32Array.of(5, 6, 7, 8, 1), batch: 1 };
    const encode = async (vram: number) => {
      await using small = Device.open('cuda-sim', { vram });
      await using encoder = await TextEncoder.load(golden('encoders/t5_tiny_gguf/model.f16.gguf'), {
        device: small,
      });
      const first = await encoder.encodeTokens(tokens);
      const again = await encoder.encodeTokens(tokens);
      expect(again.lastHiddenState).toEqual(first.lastHiddenState);
      return { hidden: first.lastHiddenState, ...small.native.describe() };
    };
    open(400 * KIB);
    const [streamed, resident] = [await encode(192 * KIB), await encode(64 << 20)];
    expect(streamed.hidden).toEqual(resident.hidden);
    expect(streamed.peak).toBeLessThanOrEqual(192 * KIB);
    expect(resident.resident).toBeGreaterThan(192 * KIB);
  });

  test('two devices of one process have weights of their own', async () => {
    open(64 * KIB);
    await using second = Device.open('cuda-sim:1', { vram: 100 * KIB });
    const others = file.adopt(second);
    const both = await Promise.all([pass(), pass(others, new Ops(second, 'fp32'))]);
    expect(both[0]).toEqual(both[1]);
  });
});
