/** Ops of image models, called wrongly: an error with a code, never a crash; bench/fuzz does the same under a sanitizer. */
import { expect, test, vi } from 'vitest';
import { callRandomOp } from '../../bench/fuzz/random_ops.js';
import { seededRandom } from '../../bench/fuzz/mutate.js';
import { Device } from '../../src/index.js';
import { SUPPORTED } from '../support/devices.js';
import { outcomeOf } from './scratch.js';

vi.setConfig({ testTimeout: 240_000 }); // seconds on a quiet machine

const kCalls = 3000;

test.each(SUPPORTED)(`${kCalls} random calls on %s`, async (instructions) => {
  await using device = Device.open('cpu', { instructions, threads: 2 });
  const codes: Record<string, number> = {};
  for (let seed = 0; seed < kCalls; seed++) {
    const { code } = await outcomeOf(() => callRandomOp(device, seededRandom(seed))).catch(
      (cause: unknown) => {
        throw new Error(`seed ${seed}`, { cause });
      },
    );
    codes[code] = (codes[code] ?? 0) + 1;
  }
  expect(codes['ok'], JSON.stringify(codes)).toBeGreaterThan(kCalls / 5);
  expect(codes['ERR_ARGUMENT'], JSON.stringify(codes)).toBeGreaterThan(kCalls / 10);
});
