/** What is written reads back, here and by @huggingface/gguf. */
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gguf as parseOracle } from '@huggingface/gguf';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openModel, writeGguf } from '../../src/formats/index.js';
import type { StreamedTensor, GgufValue } from '../../src/formats/index.js';
import { refused } from './encoder_files.js';

let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'kotoba-gguf-'))));
afterEach(() => rmSync(dir, { recursive: true }));

const bytes = (n: number, from: number): Uint8Array =>
  Uint8Array.from({ length: n }, (_, i) => (i + from) % 256);

describe('writeGguf', () => {
  const metadata = new Map<string, GgufValue>([
    ['general.architecture', ['STRING', 'test ○']],
    ['a.u8', ['U8', 255]],
    ['a.i8', ['I8', -128]],
    ['a.u16', ['U16', 65535]],
    ['a.i16', ['I16', -32768]],
    ['a.u32', ['U32', 4294967295]],
    ['a.i32', ['I32', -2147483648]],
    ['a.u64', ['U64', 2n ** 64n - 1n]],
    ['a.i64', ['I64', -5]],
    ['a.f32', ['F32', 0.5]],
    ['a.f64', ['F64', Math.PI]],
    ['a.bool', ['BOOL', true]],
    ['a.texts', ['ARRAY', 'STRING', ['', 'é', '▁x']]],
    ['a.bytes', ['ARRAY', 'U8', Uint8Array.of(1, 2, 255)]],
    ['a.numbers', ['ARRAY', 'I32', [-1, 2]]],
    ['a.floats', ['ARRAY', 'F32', [0.25, -8]]],
    ['a.flags', ['ARRAY', 'BOOL', [true, false]]],
    ['a.nested', ['ARRAY', 'ARRAY', [['ARRAY', 'U32', [1, 2]]]]],
  ]);
  const tensors: StreamedTensor[] = [
    { name: 'odd', dtype: 'F32', shape: [3], data: () => [bytes(5, 0), bytes(7, 5)] },
    { name: 'q', dtype: 'Q8_0', shape: [2, 3, 32], data: () => [bytes(204, 1)] },
    { name: 'b', dtype: 'BF16', shape: [1, 1, 2, 3], data: () => [bytes(12, 9)] },
  ];

  test.each([undefined, 64])('reads back with alignment %s', async (alignment) => {
    const path = join(dir, 'm.gguf');
    const stated: [string, GgufValue][] =
      alignment === undefined ? [] : [['general.alignment', ['U32', alignment]]];
    await writeGguf(path, new Map([...metadata, ...stated]), tensors);
    const model = openModel(path);
    const file = readFileSync(path);
    expect(Object.fromEntries(model.metadata)).toMatchObject({
      'general.architecture': 'test ○',
      'a.u8': 255,
      'a.i8': -128,
      'a.u16': 65535,
      'a.i16': -32768,
      'a.u32': 4294967295,
      'a.i32': -2147483648,
      'a.u64': 2n ** 64n - 1n,
      'a.i64': -5,
      'a.f32': 0.5,
      'a.f64': Math.PI,
      'a.bool': true,
      'a.texts': ['', 'é', '▁x'],
      'a.bytes': Uint8Array.of(1, 2, 255),
      'a.numbers': Int32Array.of(-1, 2),
      'a.floats': Float32Array.of(0.25, -8),
      'a.flags': [true, false],
    });
    expect([...model.tensors.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(
      tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    );
    const data = (name: string): Buffer => {
      const { offset, bytes: length } = model.tensors.get(name)!;
      expect(offset % (alignment ?? 32)).toBe(0);
      return file.subarray(offset, offset + length);
    };
    expect([...data('odd')]).toEqual([...bytes(12, 0)]);
    expect([...data('q')]).toEqual([...bytes(204, 1)]);
    expect([...data('b')]).toEqual([...bytes(12, 9)]);
    expect(file.length % (alignment ?? 32)).toBe(0);
    const oracle = await parseOracle(path, { allowLocalFile: true });
    expect(oracle.metadata).toMatchObject({
      version: 3,
      'a.i8': -128,
      'a.texts': ['', 'é', '▁x'],
      'a.bool': true,
    });
    expect(oracle.tensorInfos.map(({ name, shape }) => [name, shape.map(Number)])).toEqual(
      tensors.map(({ name, shape }) => [name, [...shape].reverse()]),
    );
  });

  test('a failure leaves the old file and nothing else', async () => {
    const path = join(dir, 'm.gguf');
    writeFileSync(path, 'old');
    const one = (tensor: Partial<StreamedTensor>): StreamedTensor[] => [{ ...tensors[0]!, ...tensor }];
    const cases: [StreamedTensor[], Map<string, GgufValue>, string][] = [
      [one({ data: () => [bytes(11, 0)] }), new Map(), 'odd: expected 12 bytes, got 11'],
      [one({ dtype: 'F8_E4M3' }), new Map(), 'no type F8_E4M3'],
      [one({ dtype: 'Q8_0', shape: [33] }), new Map(), 'cannot store rows of 33'],
      [one({ shape: [] }), new Map(), '1 to 4 dimensions'],
      [[tensors[0]!, tensors[0]!], new Map(), 'one name'],
      [one({}), new Map([['k', ['U8', 256]]]), 'k: 256 is no U8'],
      [one({}), new Map([['general.alignment', ['U32', 33]]]), 'power of two'],
    ];
    for (const [list, stated, message] of cases)
      await expect(writeGguf(path, stated, list)).rejects.toEqual(refused('ERR_ARGUMENT', message));
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(readdirSync(dir)).toEqual(['m.gguf']);
    await expect(writeGguf(join(dir, 'none', 'm.gguf'), metadata, tensors)).rejects.toEqual(
      refused('ERR_FILE_WRITE', 'm.gguf'),
    );
  });
});
