/**
 * Blocks that files are written in: against the reference quantiser's own (golden/gguf/types: ggml_quantize_chunk), on
 * every instruction set of this CPU; halves are rounded to nearest even.
 */
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

  const bytesOf = async (data: Float32Array, width: number, type: string): Promise<Uint8Array> => {
    using x = device.from(data, [data.length / width, width]);
    using blocks = ops.quantize(x, type);
    return blocks.readBytes();
  };

  test.each([...SIMPLE, 'F16', 'BF16'])("%s gives ggml's bytes", async (type) => {
    const bytes = await bytesOf(golden.get('source_f32')!.data as Float32Array, 256, type);
    expect(Buffer.from(bytes).equals(golden.get(`${type}.bytes`)!.data as Uint8Array)).toBe(true);
  });

  test.each(['Q8_0', 'Q4_0'])('%s: zeros, one value, and ties', async (type) => {
    // ggml divides Q4_0's 0 by -8: its scale is then -0
    const zeros = await bytesOf(new Float32Array(32), 32, type);
    expect([...zeros.subarray(0, 2)]).toEqual([0, type === 'Q4_0' ? 0x80 : 0]);
    const values = Float32Array.from({ length: 32 }, (_, i) => (i === 3 ? -127 : i === 4 ? 0.5 : 0));
    const bytes = await bytesOf(values, 32, type);
    // Q8_0: d = 1, 0.5 rounds away from zero. Q4_0: d = 15.875, and codes are 8 around zero.
    if (type === 'Q8_0') expect([...bytes.subarray(0, 8)]).toEqual([0, 0x3c, 0, 0, 0, 0x81, 1, 0]);
    else expect([...bytes.subarray(0, 8)]).toEqual([0xf0, 0x4b, 0x88, 0x88, 0x88, 0x80, 0x88, 0x88]);
  });

  const codes = async (values: readonly number[], type: 'F16' | 'BF16'): Promise<number[]> => {
    const bytes = await bytesOf(Float32Array.from(values), values.length, type);
    return [...new Uint16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))];
  };

  test('every half, what lies halfway to the next, and just beside that', async () => {
    const valueOf = (bits: number): number => {
      const exponent = (bits >> 10) & 0x1f;
      const mantissa = bits & 0x3ff;
      return exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15);
    };
    const values: number[] = [];
    const expected: number[] = [];
    for (let bits = 0; bits < 0x7bff; bits++) {
      const [here, next] = [valueOf(bits), valueOf(bits + 1)];
      const middle = (here + next) / 2;
      const even = bits + (bits & 1);
      const below = new Float32Array([middle]);
      new Uint32Array(below.buffer)[0]! -= 1;
      values.push(here, below[0]!, middle, -middle);
      expected.push(bits, bits, even, even | 0x8000);
    }
    expect(await codes(values, 'F16')).toEqual(expected);
  });

  test('the edges of the range', async () => {
    expect(await codes([65504, 65519.996, 65520, 1e30, Infinity, -Infinity], 'F16')).toEqual([
      0x7bff, 0x7bff, 0x7c00, 0x7c00, 0x7c00, 0xfc00,
    ]);
    expect((await codes([NaN], 'F16'))[0]! & 0x7fff).toBeGreaterThan(0x7c00);
    expect(await codes([2 ** -25, 2 ** -25 * 1.001, 1e-30, -0], 'F16')).toEqual([0, 1, 0, 0x8000]);
    expect(await codes([1, 1.00390625, 1.01171875, 3.4e38, -0, Infinity], 'BF16')).toEqual([
      0x3f80, 0x3f80, 0x3f82, 0x7f80, 0x8000, 0x7f80,
    ]);
    expect((await codes([NaN], 'BF16'))[0]! & 0x7fff).toBeGreaterThan(0x7f80);
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
