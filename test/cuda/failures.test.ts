/** What can be missing or wrong with a GPU, played by the simulator (KOTOBA_SIM): one line each, with what to do. */
import { afterEach, describe, expect, test } from 'vitest';
import { KotobaError } from '../../src/errors.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { TARGETS } from '../support/devices.js';

function failure(open: () => Device): KotobaError {
  try {
    open().close();
  } catch (error) {
    return error as KotobaError;
  }
  throw new Error('the device opened');
}

describe.runIf(TARGETS.includes('cuda-sim'))('on a GPU', () => {
  afterEach(() => {
    delete process.env['KOTOBA_SIM'];
    delete process.env['KOTOBA_VRAM'];
  });

  test.each([
    ['no_driver', /no NVIDIA driver is installed.*install one of CUDA 13\.0 or newer, or use the device cpu/],
    ['old_driver', /driver is too old: it knows CUDA 12\.4, this build needs 13\.0.*update the driver/],
    ['no_gpu', /no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it: use the device cpu/],
    ['busy', /another program uses the GPU exclusively: end it, or use the device cpu/],
    ['old_card', /compute capability 7\.0; 8\.0 \(Ampere\) or newer is needed: use the device cpu/],
    ['no_kernels', /no kernels for this GPU: build it on this machine/],
  ])('%s', (name, message) => {
    process.env['KOTOBA_SIM'] = name;
    const error = failure(() => Device.open('cuda-sim'));
    expect(error.code).toBe('ERR_DEVICE');
    expect(error.message).toMatch(message);
    expect(error.message).toMatch(/^cuda-sim: [^\n]*$/);
    delete process.env['KOTOBA_SIM'];
    Device.open('cuda-sim').close(); // nothing stays
  });

  test('a card that is full says how full', async () => {
    process.env['KOTOBA_SIM'] = 'memory:4'; // MiB
    await using device = Device.open('cuda-sim', { vram: 64 << 20 });
    expect(device.native.describe().budget).toBe(4 << 20); // no more than there is
    using half = device.empty('F32', [1 << 19]);
    expect(half.shape).toEqual([1 << 19]);
    const full = failure(() => {
      device.empty('F32', [3 << 18]);
      return device;
    });
    expect(full.code).toBe('ERR_OUT_OF_MEMORY');
    expect(full.message).toMatch(
      /^cuda-sim: cannot allocate 3\.00 MiB: 2\.00 MiB in use of a budget of 4\.00 MiB, [^\n]* free on the card; use a smaller picture/,
    );
  });

  test('a card that others have filled', async () => {
    process.env['KOTOBA_SIM'] = 'memory:4';
    await using other = Device.open('cuda-sim');
    using most = other.empty('F32', [3 << 18]);
    await using device = Device.open('cuda-sim');
    expect(most.shape).toEqual([3 << 18]);
    const full = failure(() => {
      device.empty('F32', [1 << 19]);
      return device;
    });
    expect(full.message).toMatch(
      /cannot allocate 2\.00 MiB: .* of a budget of 3\.60 MiB, .* free on the card/,
    );
  });

  test('the budget: an option, else KOTOBA_VRAM in MiB, else nine tenths', async () => {
    const budget = async (vram?: number) => {
      await using device = Device.open('cuda-sim', { vram });
      return device.native.describe().budget;
    };
    process.env['KOTOBA_SIM'] = 'memory:100';
    expect(await budget()).toBe(90 << 20);
    process.env['KOTOBA_VRAM'] = '30';
    expect(await budget()).toBe(30 << 20);
    expect(await budget(5000)).toBe(5000);
    expect(failure(() => Device.open('cuda-sim', { vram: 0 })).code).toBe('ERR_ARGUMENT');
    expect(failure(() => Device.open('cuda-sim', { vram: 1.5 })).code).toBe('ERR_ARGUMENT');
    for (const wrong of ['many', '-1', '0', '5GB']) {
      process.env['KOTOBA_VRAM'] = wrong;
      const error = failure(() => Device.open('cuda-sim'));
      expect([error.code, error.message]).toEqual([
        'ERR_ARGUMENT',
        `KOTOBA_VRAM: expected a number of MiB, got "${wrong}"`,
      ]);
    }
  });

  test('what is used, and what was used at most', async () => {
    await using device = Device.open('cuda-sim', { vram: 1 << 20 });
    const ops = new Ops(device, 'fp32');
    const before = device.native.describe().used;
    using x = device.from(new Float32Array(1024), [32, 32]);
    using y = ops.decode(x);
    await device.native.flush();
    expect(device.native.describe().used - before).toBe(2 * 4096);
    y.dispose();
    await device.native.flush();
    const { used, peak } = device.native.describe();
    expect(used - before).toBe(4096);
    expect(peak).toBeGreaterThanOrEqual(before + 2 * 4096);
  });
});
