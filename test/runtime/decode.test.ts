/** All GGUF types and FP8 decode to the reference's bits, on every instruction set. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../bindings/native.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { openTarget, TARGETS } from '../support/devices.js';
import { golden, readGolden } from '../support/golden.js';
import { matmul, maxAbsDifference, normal } from '../support/reference.js';

const SETS = ['gaussian', 'random_bytes'] as const;
const data = Object.fromEntries(SETS.map((set) => [set, readGolden(`gguf/types/${set}.safetensors`)]));
const types = (set: (typeof SETS)[number]) =>
  [...data[set]!.keys()].filter((key) => key.endsWith('.bytes')).map((key) => key.replace('.bytes', ''));

describe.each(TARGETS)('%s', (target) => {
  let device: Device;
  beforeAll(() => (device = openTarget(target)));
  afterAll(() => device.close());

  describe.each(SETS)('%s', (set) => {
    test('has all 29 types', () => expect(types('gaussian').length).toBe(29));

    test.each(types(set))('%s decodes bit for bit', async (type) => {
      const bytes = data[set]!.get(`${type}.bytes`)!;
      const values = data[set]!.get(`${type}.values`)!;
      const file = new native.File(golden(`gguf/types/${set}.safetensors`));
      using weight = device.weight(file, bytes.info.offset, type, values.shape);
      file.dispose(); // the map lives on with the tensor
      using out = new Ops(device, 'fp32').decode(weight);
      const got = await out.read();
      expect(new Uint32Array(got.buffer)).toEqual(new Uint32Array((values.data as Float32Array).buffer));
    });
  });

  test.each(['F8_E4M3', 'F8_E5M2'])('%s: every byte', async (type) => {
    const tables = JSON.parse(readFileSync(golden('gguf/types/fp8_tables.json'), 'utf8')) as Record<
      string,
      unknown
    >;
    const table = tables[type] as (number | string | null)[];
    const expected = table.map((v) => (v === null ? NaN : Number(String(v).replace(/inf$/i, 'Infinity'))));
    using bytes = device.empty(type, [256]);
    device.native.upload(
      bytes.native,
      Uint8Array.from({ length: 256 }, (_, i) => i),
    );
    using out = new Ops(device, 'fp32').decode(bytes);
    expect([...(await out.read())].map((v) => v || (v === 0 ? 0 : NaN))).toEqual(expected); // the table has no -0
  });

  const MATRICES = types('gaussian').filter((type) => type !== 'F16' && type !== 'BF16');
  test.each([...MATRICES, 'F16', 'BF16'])(
    'linear on %s equals linear on its decoded values',
    async (type) => {
      const bytes = data['gaussian']!.get(`${type}.bytes`)!;
      const values = data['gaussian']!.get(`${type}.values`)!;
      const [n, k] = values.shape as [number, number];
      const file = new native.File(golden('gguf/types/gaussian.safetensors'));
      using weight = device.weight(file, bytes.info.offset, type, [n, k]);
      file.dispose();
      for (const m of [1, 5, 33]) {
        const x = normal(m * k, m);
        using xt = device.from(x, [m, k]);
        using exact = new Ops(device, 'fp32').linear(xt, { weight });
        const expected = matmul(x, values.data, m, n, k);
        const largest = expected.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
        expect(maxAbsDifference(await exact.read(), expected)).toBeLessThan(
          4 * 2 ** -24 * Math.sqrt(k) * largest,
        );
        using fast = new Ops(device, 'int8').linear(xt, { weight });
        const got = await fast.read();
        const error = Math.sqrt(expected.reduce((a, v, i) => a + (v - got[i]!) ** 2, 0));
        const norm = Math.sqrt(expected.reduce((a, v) => a + v * v, 0));
        expect(error / norm).toBeLessThan(0.012);
      }
    },
  );
});
