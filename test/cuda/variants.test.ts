/** CI forces every kernel in turn (.ci/variants.sh): its list is that of the kernels that there are. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { Device } from '../../src/runtime/device.js';
import { Ops, type OpPrecision } from '../../src/runtime/ops.js';
import { TARGETS } from '../support/devices.js';
import { normal } from '../support/reference.js';

const script = readFileSync(join(import.meta.dirname, '../../.ci/variants.sh'), 'utf8');
const listed = (op: string): string[] =>
  [...new Set([...script.matchAll(new RegExp(`\\b${op}:(\\w+)`, 'g'))].map(([, name]) => name!))].sort();

/** What reaches the op's table, and in which precision. */
const CALLS: Readonly<Record<string, readonly [OpPrecision, string, (ops: Ops) => void]>> = {
  linear: ['fp32', '', linear],
  dense: ['bf16', 'linear:dense,', linear],
  split: ['fp32', 'linear:split,', linear],
  attention: ['fp32', '', attention],
  conv2d: ['fp32', '', convolution],
};

function linear(ops: Ops): void {
  using x = ops.device.from(normal(64 * 64, 1), [64, 64]);
  ops.linear(x, { weight: x }).dispose();
}
function attention(ops: Ops): void {
  using x = ops.device.from(normal(64, 1), [4, 16]);
  ops.attention(x, x, x, { batch: 1, heads: 1, scale: 1 }).dispose();
}
function convolution(ops: Ops): void {
  using x = ops.device.from(normal(16 * 4, 1), [16, 4]);
  using weight = ops.device.from(normal(4 * 36, 2), [4, 36]);
  ops.conv2d(x, { weight, kernel: 3 }, { batch: 1, height: 4, width: 4 }).dispose();
}

describe.runIf(TARGETS.includes('cuda-sim'))('cuda-sim', () => {
  afterEach(() => delete process.env['KOTOBA_VARIANT']);

  test.each(Object.entries(CALLS))('%s', async (op, [precision, route, call]) => {
    await using device = Device.open('cuda-sim');
    process.env['KOTOBA_VARIANT'] = `${route}${op}:none_such`;
    const failure: unknown = await device
      .run(async () => call(new Ops(device, precision)))
      .catch((error: unknown) => error);
    const [, names] = /has no variant none_such; it has (.*)$/.exec((failure as Error).message) ?? [];
    expect(names?.split(', ').sort()).toEqual(listed(op));
  });
});
