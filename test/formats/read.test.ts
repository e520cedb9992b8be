/** Values of every plain type, at the ends of its range. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openModel } from '../../src/formats/index.js';
import { readNumbers } from '../../src/formats/read.js';
import { golden, readGolden } from '../support/golden.js';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'kotoba-read-'));
});
afterAll(() => rmSync(dir, { recursive: true }));

function read(dtype: string, data: NodeJS.TypedArray): number[] {
  const header = JSON.stringify({
    a: { dtype, shape: [data.length], data_offsets: [0, data.byteLength] },
  });
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const path = join(dir, `${dtype}.safetensors`);
  writeFileSync(path, Buffer.concat([length, Buffer.from(header), Buffer.from(data.buffer)]));
  return [...readNumbers(openModel(path).tensors.get('a')!)];
}

test.each<[string, NodeJS.TypedArray, number[]]>([
  ['I64', BigInt64Array.of(-1n, 2n ** 53n, -(2n ** 53n)), [-1, 2 ** 53, -(2 ** 53)]],
  ['U64', BigUint64Array.of(0n, 2n ** 53n), [0, 2 ** 53]],
  ['I32', Int32Array.of(-(2 ** 31), 2 ** 31 - 1), [-(2 ** 31), 2 ** 31 - 1]],
  ['U32', Uint32Array.of(2 ** 32 - 1), [2 ** 32 - 1]],
  ['I16', Int16Array.of(-32768), [-32768]],
  ['U16', Uint16Array.of(65535), [65535]],
  ['I8', Int8Array.of(-128), [-128]],
  ['U8', Uint8Array.of(255), [255]],
  ['BOOL', Uint8Array.of(0, 1), [0, 1]],
  ['F64', Float64Array.of(Math.PI), [Math.PI]],
  ['F32', Float32Array.of(0.5, -Infinity), [0.5, -Infinity]],
  ['BF16', Uint16Array.of(0x3f80, 0xff80, 0x4049), [1, -Infinity, 3.140625]],
  [
    'F16',
    Uint16Array.of(0x3c00, 0x7bff, 0x0001, 0x8400, 0xfc00),
    [1, 65504, 2 ** -24, -(2 ** -14), -Infinity],
  ],
])('%s', (dtype, data, expected) => expect(read(dtype, data)).toEqual(expected));

test('NaN stays NaN in F16 and BF16', () => {
  expect(read('F16', Uint16Array.of(0x7e00))).toEqual([NaN]);
  expect(read('BF16', Uint16Array.of(0x7fc0))).toEqual([NaN]);
});

test('FP8 and quantised types are refused', () => {
  expect(() => read('F8_E4M3', Uint8Array.of(0))).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
});

test('a golden file, as the other reader has it', () => {
  const name = 'encoders/clip_l_tiny/expected.safetensors';
  for (const [key, { info, data }] of readGolden(name))
    expect([...readNumbers(info)], key).toEqual([...data]);
  expect(openModel(golden(name)).tensors.size).toBeGreaterThan(0);
});
