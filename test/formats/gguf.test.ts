import { describe, expect, test } from 'vitest';
import { DTYPES, memorySource, parseGguf } from '../../src/formats/index.js';
import type { ByteSource, ParsedFile } from '../../src/formats/index.js';
import { GGML_TYPES } from '../../src/formats/gguf_types.js';
import { ggufHeader, u64, wholeFile } from './model_bytes.js';
import type { GgufStyle, GgufValue, TensorTable } from './model_bytes.js';

const parse = (bytes: Buffer): ParsedFile => parseGguf(memorySource(bytes, 'x.gguf'));
const build = (
  tensors: TensorTable,
  metadata: Record<string, GgufValue> = {},
  style: GgufStyle = {},
): Buffer => wholeFile(ggufHeader(tensors, metadata, style));
const refused = (code: string, message: string): Error =>
  expect.objectContaining({ code, message: expect.stringContaining(message) as string }) as Error;

const tensors: TensorTable = { a: ['F32', [2, 3]], b: ['Q8_0', [3, 64]], c: ['F16', [5]] };

describe('what is read', () => {
  test.each([2, 3])('version %i: torch order, aligned data', (version) => {
    const { header } = ggufHeader(tensors, {}, { version });
    const { tensors: read } = parse(build(tensors, {}, { version }));
    expect(read.get('a')).toEqual({
      name: 'a',
      dtype: 'F32',
      shape: [2, 3],
      path: 'x.gguf',
      offset: header.length,
      bytes: 24,
    });
    expect(read.get('b')).toMatchObject({
      dtype: 'Q8_0',
      shape: [3, 64],
      offset: header.length + 32,
      bytes: 204,
    });
    expect(read.get('c')).toMatchObject({ shape: [5], offset: header.length + 32 + 224, bytes: 10 });
  });

  test('general.alignment', () => {
    const metadata: Record<string, GgufValue> = { 'general.alignment': ['U32', 256] };
    const { tensors: read } = parse(build(tensors, metadata, { alignment: 256 }));
    expect([...read.values()].map(({ offset }) => offset % 256)).toEqual([0, 0, 0]);
  });

  test('every metadata type, arrays of arrays, 64-bit numbers', () => {
    const metadata: Record<string, GgufValue> = {
      u8: ['U8', 255],
      i8: ['I8', -128],
      u16: ['U16', 65535],
      i16: ['I16', -1],
      u32: ['U32', 4294967295],
      i32: ['I32', -5],
      f32: ['F32', 0.5],
      f64: ['F64', 0.1],
      yes: ['BOOL', true],
      text: ['STRING', 'ü▁'],
      small: ['U64', 7],
      large: ['U64', 2n ** 63n],
      negative: ['I64', -9n],
      lowest: ['I64', -(2n ** 63n)],
      bytes: ['ARRAY', ['U8', [1, 2, 3]]],
      floats: ['ARRAY', ['F32', [0.5, -2]]],
      longs: ['ARRAY', ['I64', [-1n, 2n]]],
      flags: ['ARRAY', ['BOOL', [true, false]]],
      words: ['ARRAY', ['STRING', ['a', '', 'ß']]],
      none: ['ARRAY', ['STRING', []]],
      nested: [
        'ARRAY',
        [
          'ARRAY',
          [
            ['U16', [1, 2]],
            ['STRING', ['x']],
          ],
        ],
      ],
    };
    const { metadata: read } = parse(build({}, metadata));
    expect(Object.fromEntries(read)).toEqual({
      u8: 255,
      i8: -128,
      u16: 65535,
      i16: -1,
      u32: 4294967295,
      i32: -5,
      f32: 0.5,
      f64: 0.1,
      yes: true,
      text: 'ü▁',
      small: 7,
      large: 2n ** 63n,
      negative: -9,
      lowest: -(2n ** 63n),
      bytes: new Uint8Array([1, 2, 3]),
      floats: new Float32Array([0.5, -2]),
      longs: new BigInt64Array([-1n, 2n]),
      flags: [true, false],
      words: ['a', '', 'ß'],
      none: [],
      nested: [new Uint16Array([1, 2]), ['x']],
    });
  });

  test('every ggml type, with its block size', () => {
    for (const type of GGML_TYPES) {
      if (typeof type === 'object') continue;
      const [weights, bytes] = DTYPES[type];
      expect(parse(build({ t: [type, [3, 2 * weights]] })).tensors.get('t')).toMatchObject({
        dtype: type,
        bytes: 6 * bytes,
      });
    }
    expect(GGML_TYPES.length).toBe(43);
  });

  test('comfy.gguf.orig_shape gives a flattened tensor its shape back', () => {
    const table: TensorTable = { w: ['Q4_K', [45, 256]], v: ['F32', [4]] };
    const metadata: Record<string, GgufValue> = {
      'comfy.gguf.orig_shape.w': ['ARRAY', ['I32', [320, 4, 3, 3]]],
    };
    expect(parse(build(table, metadata)).tensors.get('w')).toMatchObject({
      shape: [320, 4, 3, 3],
      bytes: 45 * 144,
    });
    const wrong: Record<string, GgufValue> = { 'comfy.gguf.orig_shape.w': ['ARRAY', ['I32', [320, 4, 3]]] };
    expect(() => parse(build(table, wrong))).toThrow(refused('ERR_GGUF_HEADER', 'contradicts'));
  });

  test('a header longer than the window, and 256k strings, quickly', () => {
    const words = Array.from({ length: 262_144 }, (_, i) => `▁token number ${i}`);
    const bytes = build(tensors, { tokens: ['ARRAY', ['STRING', words]], after: ['U32', 1] });
    const started = performance.now();
    const { metadata, tensors: read } = parse(bytes);
    const elapsed = performance.now() - started;
    expect(metadata.get('tokens')).toEqual(words);
    expect(metadata.get('after')).toBe(1);
    expect(read.size).toBe(3);
    expect(elapsed, 'milliseconds').toBeLessThan(2000);
  });

  test('tensors past 4 GiB', () => {
    const { header, size } = ggufHeader({ a: ['F16', [50_000, 50_000]], b: ['F32', [1]] });
    const source: ByteSource = { ...memorySource(header), path: 'x', size };
    expect(parseGguf(source).tensors.get('b')!.offset).toBe(header.length + 5_000_000_000);
  });
});

describe('what is refused', () => {
  const header = 'ERR_GGUF_HEADER';
  const truncated = 'ERR_GGUF_TRUNCATED';
  const patch = (at: number, bytes: Buffer): Buffer => {
    const whole = build(tensors);
    bytes.copy(whole, at);
    return whole;
  };
  const word = (n: number): Buffer => u64(n).subarray(0, 4);
  /** metadata of one entry: key length 1, key, then `rest` */
  const metadataOf = (rest: Buffer): Buffer =>
    Buffer.concat([
      Buffer.from('GGUF'),
      word(3),
      u64(0),
      u64(1),
      u64(1),
      Buffer.from('k'),
      rest,
      Buffer.alloc(64),
    ]);
  const deep = Buffer.concat([
    word(9),
    ...Array.from({ length: 1000 }, () => Buffer.concat([word(9), u64(1)])),
  ]);

  test.each<[string, Buffer, string, string]>([
    ['another magic', patch(0, Buffer.from('GGML')), header, '"GGML"'],
    ['version 1', patch(4, word(1)), header, 'version 1'],
    ['version 4', patch(4, word(4)), header, 'version 4'],
    ['version 0', patch(4, word(0)), header, 'version 0'],
    ['big-endian', patch(4, Buffer.from([0, 0, 0, 3])), header, 'big-endian'],
    ['2^60 tensors', patch(8, u64(2n ** 60n)), truncated, 'tensors'],
    ['2^64 - 1 metadata entries', patch(16, u64(2n ** 64n - 1n)), truncated, 'entries'],
    ['a string of 2^63 bytes', metadataOf(Buffer.concat([word(8), u64(2n ** 63n)])), truncated, 'bytes'],
    [
      'an array of 2^61 numbers',
      metadataOf(Buffer.concat([word(9), word(4), u64(2n ** 61n)])),
      truncated,
      'values',
    ],
    [
      'an array of 2^40 strings',
      metadataOf(Buffer.concat([word(9), word(8), u64(2n ** 40n)])),
      truncated,
      'values',
    ],
    ['an unknown metadata type', metadataOf(word(13)), header, 'unknown type 13'],
    [
      'an array of an unknown type',
      metadataOf(Buffer.concat([word(9), word(99), u64(0)])),
      header,
      'unknown type 99',
    ],
    ['arrays 1000 deep', metadataOf(deep), header, 'nests arrays'],
    ['a boolean of 7', metadataOf(Buffer.concat([word(7), Buffer.from([7])])), header, 'boolean 7'],
    [
      'a string that is not UTF-8',
      metadataOf(Buffer.concat([word(8), u64(2), Buffer.from([0xc3, 0x28])])),
      header,
      'UTF-8',
    ],
    [
      'an alignment of 24',
      build(tensors, { 'general.alignment': ['U32', 24] }),
      header,
      'general.alignment is 24',
    ],
    [
      'an alignment of 0',
      build(tensors, { 'general.alignment': ['U32', 0] }),
      header,
      'general.alignment is 0',
    ],
    [
      'an alignment that is text',
      build(tensors, { 'general.alignment': ['STRING', '32'] }),
      header,
      'general.alignment',
    ],
    ['an unaligned offset', build(tensors, {}, { offsets: { b: 33 } }), header, 'no multiple of 32'],
    ['an overlap', build(tensors, {}, { offsets: { c: 32 } }), header, 'overlaps'],
    ['an offset past the end', build(tensors, {}, { offsets: { c: 320_000 } }), truncated, '"c"'],
    ['an offset past 2^53', build(tensors, {}, { offsets: { c: 2 ** 60 } }), header, '2^53'],
    [
      'rows of half a block',
      build({ a: ['F32', [4, 48]] }, {}, { types: { a: 8 } }),
      header,
      'no whole Q8_0 blocks',
    ],
    // the fill turns the outermost dimension from 0 into 2^32
    [
      'too many elements',
      build({ a: ['F32', [0, 2 ** 40, 2 ** 40]] }, {}).fill(1, 57, 58),
      header,
      'too large',
    ],
    ['an unknown type', build(tensors, {}, { types: { a: 43 } }), header, 'unknown type 43'],
    ...[4, 5, 31, 32, 33, 36, 37, 38].map((id): [string, Buffer, string, string] => [
      `removed type ${id}`,
      build(tensors, {}, { types: { a: id } }),
      header,
      `type ${id} (`,
    ]),
  ])('%s', (_, bytes, code, message) => {
    expect(() => parse(bytes)).toThrow(refused(code, message));
  });

  test('a tensor name or a key twice', () => {
    const twice = (bytes: Buffer, from: string, to: string): Buffer => {
      bytes.write(to, bytes.indexOf(from));
      return bytes;
    };
    expect(() => parse(twice(build({ aa: ['F32', [1]], ab: ['F32', [1]] }), 'ab', 'aa'))).toThrow(
      refused(header, '"aa" occurs twice'),
    );
    expect(() => parse(twice(build({}, { ka: ['U8', 1], kb: ['U8', 2] }), 'kb', 'ka'))).toThrow(
      refused(header, '"ka" occurs twice'),
    );
  });
});
