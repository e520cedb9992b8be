/** A GPU that is lost while it works (KOTOBA_SIM=lost_after:N), as it stays until this process ends. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { TARGETS } from '../support/devices.js';
import { normal } from '../support/reference.js';
import { WeightFile } from './weight_file.js';

const LOST = expect.objectContaining({
  code: 'ERR_DEVICE_LOST',
  message: expect.stringMatching(
    /^cuda-sim: [^\n]* the GPU is lost to this program: start it again; [^\n]*$/,
  ) as string,
});

describe.runIf(TARGETS.includes('cuda-sim'))('a GPU that is lost', () => {
  let file: WeightFile;
  let device: Device;
  let bystander: Device;
  let ops: Ops;
  let x: Tensor;
  beforeAll(() => {
    process.env['KOTOBA_SIM'] = 'lost_after:40';
    process.env['KOTOBA_VARIANT'] = 'linear:simt_64x64';
    file = new WeightFile(10, 64);
    device = Device.open('cuda-sim', { vram: 120 << 10 });
    bystander = Device.open('cuda-sim:1');
    ops = new Ops(device, 'fp32');
    x = device.from(normal(3 * 64, 1), [3, 64]);
  });
  afterAll(() => {
    delete process.env['KOTOBA_SIM'];
    delete process.env['KOTOBA_VARIANT'];
    file[Symbol.dispose]();
  });

  test('ends the job that runs', async () => {
    const weights = file.adopt(device);
    const recorded = device.run(async () => {
      for (let i = 0; i < 6; i++) for (const weight of weights) ops.linear(x, { weight }).dispose();
    });
    await expect(recorded).rejects.toThrow(LOST);
  });

  test('fails every later job at once', async () => {
    for (let i = 0; i < 3; i++)
      await expect(device.run(async () => ops.decode(x).dispose())).rejects.toThrow(LOST);
    await expect(x.read()).rejects.toThrow(LOST);
    await expect(device.native.flush()).rejects.toThrow(LOST);
    expect(() => device.empty('F32', [64])).toThrow(LOST);
  });

  test('adopting weights and replaying are no way around it', async () => {
    const job = device.run(async () => {
      const [weight] = file.adopt(device);
      ops.linear(x, { weight: weight! }).dispose();
    });
    await expect(job).rejects.toThrow(LOST);
  });

  test('is closed without hanging, and does not open again', () => {
    device.close();
    bystander.close();
    expect(() => Device.open('cuda-sim')).toThrow(LOST);
  });
});
