/** Blocks that files are written in: against the reference quantiser's own, on every instruction set of this CPU. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { openTarget, SUPPORTED } from '../support/devices.js';
import { readGolden } from '../support/golden.js';
import { normal, relativeL2 } from '../support/reference.js';

const golden = readGolden('gguf/types/gaussian.safetensors');
const values = (type: string) => golden.get(`${type}.values`)!;
/** What the reference quantised, but for the rounding of F16. */
const source = values('F16');

const SIMPLE = ['Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1'];
const FITTED = ['Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K', 'IQ4_NL', 'IQ4_XS'];

describe.each(SUPPORTED)('%s', (target) => {
  let device: Device;
  let ops: Ops;
  beforeAll(() => {
    device = openTarget(target);
    ops = new Ops(device, 'fp32');
  });
  afterAll(() => device.close());

  async function roundTrip(data: Float32Array, type: string): Promise<Float32Array> {
    using x = device.from(data, [data.length / 256, 256]);
    using blocks = ops.quantize(x, type);
    using back = ops.decode(blocks);
    return back.read();
  }

  test.each([...SIMPLE, ...FITTED])('%s is no worse than the reference', async (type) => {
    const original = source.data as Float32Array;
    const ours = relativeL2(await roundTrip(original, type), original);
    const reference = relativeL2(values(type).data as Float32Array, original);
    expect(ours).toBeLessThan(reference * (SIMPLE.includes(type) ? 1.002 : 1));
  });

  test.each([...SIMPLE, ...FITTED, 'F16', 'BF16'])('%s of awkward values', async (type) => {
    const zeros = await roundTrip(new Float32Array(256), type);
    expect(zeros.every((v) => v === 0)).toBe(true);
    const tiny = normal(256, 1).map((v) => v * 1e-30);
    expect((await roundTrip(tiny, type)).every((v) => Math.abs(v) < 1e-28)).toBe(true);
    const spike = normal(512, 2);
    spike[7] = 3000;
    spike[300] = -3000;
    const got = await roundTrip(spike, type);
    expect(got.every(Number.isFinite)).toBe(true);
    expect(relativeL2(got, spike)).toBeLessThan(0.2);
    const one = new Float32Array(256).fill(-0.75);
    expect(relativeL2(await roundTrip(one, type), one)).toBeLessThan(0.02);
  });

  test('a block comes out the same wherever it stands', async () => {
    const data = normal(256 * 40, 3);
    using x = device.from(data, [40, 256]);
    using all = ops.quantize(x, 'Q4_K');
    using last = device.from(data.slice(256 * 39), [1, 256]);
    using alone = ops.quantize(last, 'Q4_K');
    using row = all.rowRange(39, 40);
    expect(await row.readBytes()).toEqual(await alone.readBytes());
  });

  test('types that are only read are refused', async () => {
    const job = device.run(async () => {
      using x = device.from(normal(256, 1), [1, 256]);
      ops.quantize(x, 'IQ2_XS').dispose();
    });
    await expect(job).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });
});
