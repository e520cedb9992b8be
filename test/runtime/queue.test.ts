/** The ordered queue: batches, failures, cancel, capture and replay, lifecycle. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Tensor } from '../../src/runtime/tensor.js';
import { normal } from '../support/reference.js';

const coded = (code: string) => expect.objectContaining({ name: 'KotobaError', code });

describe('one device', () => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = Device.open();
    ops = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());

  test('ops run in the order of their calls, over many batches', async () => {
    using x = device.from(new Float32Array([1, 0, 0, 1]), [2, 2]);
    using shift = device.from(new Float32Array([0, 1, 1, 0]), [2, 2]); // swaps the columns
    let current = ops.linear(x, { weight: shift });
    for (let i = 0; i < 1000; i++) {
      const next = ops.linear(current, { weight: shift });
      current.dispose();
      current = next;
    }
    expect([...(await current.read())]).toEqual([0, 1, 1, 0]); // 1,001 swaps
    current.dispose();
    await device.native.flush();
  });

  test('reads of a tensor that is updated in place see the moment of their call', async () => {
    using x = device.from(new Float32Array([1]), [1, 1]);
    using one = device.from(new Float32Array([1]), [1, 1]);
    const reads = [];
    for (let i = 0; i < 50; i++) {
      reads.push(x.read());
      ops.linearAdd(x, one, { weight: one });
    }
    expect((await Promise.all(reads)).map((v) => v[0])).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
  });

  test('the first failure poisons the queue until flush reports it', async () => {
    using table = device.from(normal(8, 1), [4, 2]);
    using bad = device.from(new Int32Array([0, 4]), [2]);
    using good = device.from(new Int32Array([3]), [1]);
    using failing = ops.embedding(table, bad);
    using skipped = ops.embedding(table, good);
    await expect(skipped.read()).rejects.toThrow(coded('ERR_TOKEN_ID'));
    await expect(failing.read()).rejects.toThrow(/id 4 at position 1 is outside the table of 4 rows/);
    await expect(device.native.flush()).rejects.toThrow(coded('ERR_TOKEN_ID'));
    await device.native.flush();
    using fine = ops.embedding(table, good);
    expect(await fine.read()).toHaveLength(2);
  });

  test('requireFinite names place and value', async () => {
    using x = device.from(new Float32Array([1, 2, 3, NaN, 5, 6]), [3, 2]);
    const job = device.run(async () => ops.requireFinite(x, 'T5 layer 7'));
    await expect(job).rejects.toThrow(coded('ERR_NON_FINITE'));
    await expect(device.run(async () => ops.requireFinite(x, 'T5 layer 7'))).rejects.toThrow(
      /T5 layer 7: nan at row 1, column 1/,
    );
  });

  test('shape mistakes throw where they are made', () => {
    using x = device.from(normal(6, 1), [2, 3]);
    using w = device.from(normal(8, 2), [2, 4]);
    expect(() => ops.linear(x, { weight: w })).toThrow(/F32 \[2, 3\] does not fit w F32 \[2, 4\]/);
    expect(() => device.empty('Q4_0', [2, 33])).toThrow(/whole 32-weight blocks/);
    expect(() => device.empty('F32', [2 ** 40, 2 ** 40])).toThrow(coded('ERR_ARGUMENT'));
    expect(() => device.empty('F32', [-1])).toThrow(coded('ERR_ARGUMENT'));
    expect(() => device.empty('F32', [2 ** 42])).toThrow(coded('ERR_OUT_OF_MEMORY'));
  });

  test('dispose twice is fine, use after dispose is an error', () => {
    const x = device.from(normal(4, 1), [2, 2]);
    const view = x.rowRange(0, 1);
    x.dispose();
    x.dispose();
    expect(() => ops.decode(x)).toThrow(coded('ERR_DISPOSED'));
    using copy = ops.decode(view); // a view keeps the memory
    expect(copy.shape).toEqual([1, 2]);
    view.dispose();
  });

  test('a job that is aborted reports ERR_CANCELLED and leaves the device usable', async () => {
    const controller = new AbortController();
    using x = device.from(normal(512 * 512, 1), [512, 512]);
    const started = performance.now();
    const job = device.run(async () => {
      for (let i = 0; i < 2000; i++) ops.linear(x, { weight: x }).dispose();
    }, controller.signal);
    setTimeout(() => controller.abort(), 20);
    await expect(job).rejects.toThrow(coded('ERR_CANCELLED'));
    expect(await device.run(async () => 'next')).toBe('next');
    expect(performance.now() - started).toBeLessThan(5000); // 2,000 products take far longer
    await expect(device.run(async () => 1, AbortSignal.abort())).rejects.toThrow(coded('ERR_CANCELLED'));
  });

  test('cancelling an idle device does not hit the next job', async () => {
    await device.native.flush();
    device.native.cancel();
    using x = device.from(normal(4, 1), [2, 2]);
    expect(await x.read()).toHaveLength(4);
  });

  test('an abort at the very end of a job never reaches the next one', async () => {
    using x = device.from(normal(64 * 64, 1), [64, 64]);
    using reference = ops.linear(x, { weight: x });
    const expected = await reference.read();
    for (let i = 0; i < 300; i++) {
      const controller = new AbortController();
      const first = device.run(async () => {
        for (let j = 0; j < 5; j++) ops.linear(x, { weight: x }).dispose();
      }, controller.signal);
      const spin = performance.now() + (i % 30) * 0.01; // meets every moment of the job
      while (performance.now() < spin);
      await Promise.resolve();
      controller.abort();
      const second = device.run(async () => {
        using y = ops.linear(x, { weight: x });
        return await y.read();
      });
      await first.catch((error: unknown) => expect(error).toMatchObject({ code: 'ERR_CANCELLED' }));
      expect(await second).toEqual(expected);
    }
  });

  test('a recording replays with the inputs of the moment', async () => {
    using x = device.from(new Float32Array([1, 2]), [1, 2]);
    using w = device.from(new Float32Array([2, 0, 0, 3]), [2, 2]);
    device.native.beginCapture();
    using once = ops.linear(x, { weight: w });
    using twice = ops.linear(once, { weight: w });
    expect(() => device.native.flush()).toThrow(/while capturing/);
    const recording = device.native.endCapture();
    for (const values of [
      [1, 2],
      [5, 7],
    ]) {
      device.native.upload(x.native, new Float32Array(values));
      device.native.replay(recording);
      using other = device.from(normal(2, 9), [1, 2]); // must not take the recording's memory
      expect(other.shape).toEqual([1, 2]);
      expect([...(await twice.read())]).toEqual([values[0]! * 4, values[1]! * 9]);
    }
  });

  test('the pool reuses what a layer frees', async () => {
    using x = device.from(normal(256 * 1024, 1), [256, 1024]);
    using w = device.from(normal(1024 * 1024, 1), [1024, 1024]);
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 200; i++) ops.linear(x, { weight: w }).dispose(); // 200 MiB if nothing were reused
    await device.native.flush();
    expect(process.memoryUsage().rss - before).toBeLessThan(60 << 20);
  });
});

test('closing with work queued rejects what was awaited and later use', async () => {
  const device = Device.open();
  const ops = new Ops(device, 'fp32');
  const x = device.from(normal(256 * 256, 1), [256, 256]);
  let last: Tensor = x;
  for (let i = 0; i < 500; i++) last = ops.linear(x, { weight: x });
  const read = last.read();
  device.close();
  device.close();
  await expect(read).rejects.toThrow(coded('ERR_DISPOSED'));
  expect(() => ops.decode(x)).toThrow(coded('ERR_DISPOSED'));
  x.dispose();
});

test('an unknown device is an error that says what there is', () => {
  expect(() => Device.open('tpu' as 'cpu')).toThrow(/available: cpu/);
  expect(() => Device.open('cpu', { threads: 0 })).toThrow(coded('ERR_ARGUMENT'));
});
