/** Recordings: replays equal the ops themselves bit for bit, own their memory until they are disposed, fail as ops do. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Recording, unlessOutOfMemory } from '../../src/runtime/recording.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { KotobaError } from '../../src/errors.js';
import { TARGETS, isCpu, openTarget } from '../support/devices.js';
import { normal } from '../support/reference.js';

const ROWS = 5;
const WIDTH = 33;
/** The best instruction set of this CPU, and the GPUs. */
const targets = TARGETS.filter((target, i) => !isCpu(target) || !isCpu(TARGETS[i + 1] ?? 'cuda'));

describe.each(targets)('%s', (target) => {
  let device: Device;
  let ops: Ops;
  let weight: Tensor;
  beforeAll(() => {
    device = openTarget(target);
    ops = new Ops(device, 'fp32');
    weight = device.from(normal(WIDTH * WIDTH, 1), [WIDTH, WIDTH]);
  });
  afterAll(() => device.close());

  /** x + w·gelu(w·norm(x)): temporaries of several sizes, a residual updated in place. */
  function block(x: Tensor): Tensor {
    using normed = ops.layerNormModulated(x, x.rowRange(0, 1), x.rowRange(1, 2), 1e-6);
    using hidden = ops.linear(normed, { weight }, { activation: 'gelu_tanh' });
    const out = ops.combine([[1, x]]);
    ops.linearAdd(out, hidden, { weight });
    ops.requireFinite(out, 'block');
    return out;
  }

  test('every replay gives what the ops give for the inputs of the moment', async () => {
    using x = device.empty('F32', [ROWS, WIDTH]);
    using recording = Recording.of(device, () => block(x));
    for (let seed = 2; seed < 7; seed++) {
      x.write(normal(ROWS * WIDTH, seed));
      recording.replay();
      const replayed = recording.outputs.read();
      using expected = block(x);
      expect(await replayed, `replay ${seed}`).toEqual(await expected.read());
    }
  });

  test('ops between replays do not touch what it holds', async () => {
    using x = device.from(normal(ROWS * WIDTH, 8), [ROWS, WIDTH]);
    using recording = Recording.of(device, () => block(x));
    recording.replay();
    const first = await recording.outputs.read();
    for (let i = 0; i < 20; i++) {
      using other = device.from(new Float32Array(ROWS * WIDTH).fill(i), [ROWS, WIDTH]);
      block(other).dispose();
    }
    expect(await recording.outputs.read()).toEqual(first);
    recording.replay();
    expect(await recording.outputs.read()).toEqual(first);
  });

  test('a NaN is reported by the wait after the replay it came up in, and the next replay works', async () => {
    using x = device.from(normal(ROWS * WIDTH, 9), [ROWS, WIDTH]);
    using recording = Recording.of(device, () => block(x));
    for (let i = 0; i < 4; i++) {
      x.write(normal(ROWS * WIDTH, 9).fill(NaN, 40, 41));
      const job = device.run(async () => recording.replay());
      await expect(job, `replay ${i}`).rejects.toMatchObject({
        code: 'ERR_NON_FINITE',
        message: expect.stringMatching(/^block: -?nan/) as string,
      });
      x.write(normal(ROWS * WIDTH, 9));
      await device.run(async () => recording.replay());
    }
  });

  test('an error while recording leaves the device as it was', async () => {
    using x = device.from(normal(ROWS * WIDTH, 10), [ROWS, WIDTH]);
    using narrow = device.from(normal(ROWS * 2, 11), [ROWS, 2]);
    expect(() => Recording.of(device, () => ops.linear(narrow, { weight }))).toThrow(KotobaError);
    using once = block(x);
    expect(await once.read()).toHaveLength(ROWS * WIDTH);
  });

  test('disposed: its memory is given back, a replay that is queued still runs', async () => {
    using x = device.from(normal(ROWS * WIDTH, 12), [ROWS, WIDTH]);
    using expected = block(x);
    const recording = Recording.of(device, () => block(x));
    recording.replay();
    const read = recording.outputs.read();
    recording[Symbol.dispose]();
    expect(await read).toEqual(await expected.read());
    expect(() => recording.replay()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    recording[Symbol.dispose]();
  });
});

test('out of memory is no result, any other error is one', () => {
  const failing = (code: 'ERR_OUT_OF_MEMORY' | 'ERR_ARGUMENT') => () => {
    throw new KotobaError(code, 'on purpose');
  };
  expect(unlessOutOfMemory(failing('ERR_OUT_OF_MEMORY'))).toBeUndefined();
  expect(() => unlessOutOfMemory(failing('ERR_ARGUMENT'))).toThrow('on purpose');
  expect(unlessOutOfMemory(() => 7)).toBe(7);
});
