/** The plain reference itself: what it rounds is what F16 and BF16 can hold, and it rounds every matmul's inputs. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { normal } from '../support/reference.js';
import { RoundedOps, type SixteenBits } from '../support/rounded_ops.js';
import { roundToBf16, roundToF16 } from '../support/rounding.js';

const ROUND: Readonly<Record<SixteenBits, (value: number) => number>> = {
  fp16: roundToF16,
  bf16: roundToBf16,
};
const [ROWS, INNER, OUT] = [3, 40, 17];

let device: Device;
beforeAll(() => {
  device = Device.open('cpu', { threads: 1 });
});
afterAll(() => device.close());

test.each<SixteenBits>(['fp16', 'bf16'])(
  '%s: results of inner ops are the nearest numbers',
  async (precision) => {
    using ops = new RoundedOps(device, precision);
    // FP16's normal range: 2^-14 up to 65504.
    const values = normal(4096, 1).map(
      (value, i) => Math.sign(value) * (1e-4 + Math.abs(value) * 10 ** ((i % 7) - 3)),
    );
    using x = device.from(values, [64, 64]);
    using rounded = ops.inner.activate(x, 'none');
    expect(await rounded.read()).toEqual(values.map(ROUND[precision]));
  },
);

test.each<SixteenBits>(['fp16', 'bf16'])(
  '%s: a matmul sees rounded inputs and adds exactly',
  async (precision) => {
    using ops = new RoundedOps(device, precision);
    const [xs, ws] = [normal(ROWS * INNER, 2), normal(OUT * INNER, 3)];
    using x = device.from(xs, [ROWS, INNER]);
    using weight = device.from(ws, [OUT, INNER]);
    using out = ops.linear(x, { weight });
    const round = ROUND[precision];
    const got = await out.read();
    for (let r = 0; r < ROWS; r++)
      for (let c = 0; c < OUT; c++) {
        let sum = 0;
        for (let i = 0; i < INNER; i++) sum += round(xs[r * INNER + i]!) * round(ws[c * INNER + i]!);
        expect(Math.abs(got[r * OUT + c]! - sum)).toBeLessThan(1e-5);
      }
  },
);
