import { expect, describe, test } from 'vitest';
import { memorySource, parseSafetensors } from '../../src/formats/index.js';
import type { ByteSource, ParsedFile } from '../../src/formats/index.js';
import { safetensorsFile, withLength } from './model_bytes.js';

const parse = (bytes: Buffer): ParsedFile => parseSafetensors(memorySource(bytes, 'x.safetensors'));
const f32 = (shape: number[], begin: number, end: number): object => ({
  dtype: 'F32',
  shape,
  data_offsets: [begin, end],
});
const refused = (code: string, message: string): unknown =>
  expect.objectContaining({ code, message: expect.stringContaining(message) as string });

describe('what is read', () => {
  test('offsets are absolute, entries come in any order, the header may hold spaces and trailing blanks', () => {
    const json =
      '{ "b" : {"dtype":"F16", "shape":[ 3 ], "data_offsets":[8,14]} ,\n "a":{"shape":[2],"data_offsets":[0,8],"dtype":"F32"}}  ';
    const { tensors } = parse(safetensorsFile(json, 14));
    const start = 8 + json.length;
    expect(tensors.get('a')).toEqual({
      name: 'a',
      dtype: 'F32',
      shape: [2],
      path: 'x.safetensors',
      offset: start,
      bytes: 8,
    });
    expect(tensors.get('b')).toMatchObject({ dtype: 'F16', shape: [3], offset: start + 8, bytes: 6 });
  });

  test('0-d, empty and oddly named tensors', () => {
    const json = `{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[4,4]},
      "__proto__":{"dtype":"U8","shape":[1,2],"data_offsets":[4,6]},"constructor":{"dtype":"BOOL","shape":[1],"data_offsets":[6,7]},
      "7":{"dtype":"F64","shape":[1],"data_offsets":[7,15]},"":{"dtype":"F8_E5M2","shape":[3,0,2],"data_offsets":[15,15]},"\\u00fc\\"":{"dtype":"BF16","shape":[1],"data_offsets":[15,17]}}`;
    const { tensors } = parse(safetensorsFile(json, 17));
    expect([...tensors.keys()].sort()).toEqual(['', '7', '__proto__', 'constructor', 'e', 's', 'ü"']);
    expect(tensors.get('s')).toMatchObject({ shape: [], bytes: 4 });
    expect(tensors.get('e')).toMatchObject({ shape: [0], bytes: 0 });
    expect(tensors.get('__proto__')).toMatchObject({ dtype: 'U8', bytes: 2 });
  });

  test('metadata, null metadata, no tensors', () => {
    const { metadata } = parse(safetensorsFile({ __metadata__: { format: 'pt', a: '' } }, 0));
    expect([...metadata]).toEqual([
      ['format', 'pt'],
      ['a', ''],
    ]);
    expect(parse(safetensorsFile({ __metadata__: null }, 0)).tensors.size).toBe(0);
    expect(parse(safetensorsFile('{}', 0)).tensors.size).toBe(0);
  });

  test('every dtype of the format', () => {
    const sizes = {
      F64: 8,
      F32: 4,
      F16: 2,
      BF16: 2,
      F8_E4M3: 1,
      F8_E5M2: 1,
      I64: 8,
      I32: 4,
      I16: 2,
      I8: 1,
      U64: 8,
      U32: 4,
      U16: 2,
      U8: 1,
      BOOL: 1,
    };
    for (const [dtype, bytes] of Object.entries(sizes))
      expect(
        parse(
          safetensorsFile({ t: { dtype, shape: [5], data_offsets: [0, 5 * bytes] } }, 5 * bytes),
        ).tensors.get('t'),
      ).toMatchObject({ dtype, bytes: 5 * bytes });
  });

  test('a tensor past 4 GiB', () => {
    const big = 5_000_000_000;
    const json = JSON.stringify({
      a: { dtype: 'U8', shape: [big], data_offsets: [0, big] },
      b: f32([1], big, big + 4),
    });
    const header = withLength(json);
    const source: ByteSource = { ...memorySource(header), path: 'x', size: header.length + big + 4 };
    expect(parseSafetensors(source).tensors.get('b')).toMatchObject({
      offset: header.length + big,
      bytes: 4,
    });
  });

  test('3000 tensors take milliseconds', () => {
    const table = Object.fromEntries(
      Array.from({ length: 3000 }, (_, i) => [
        `model.diffusion_model.blocks.${i}.weight`,
        f32([1], 4 * i, 4 * i + 4),
      ]),
    );
    const bytes = safetensorsFile(table, 12_000);
    const started = performance.now();
    expect(parse(bytes).tensors.size).toBe(3000);
    expect(performance.now() - started).toBeLessThan(500);
  });
});

describe('what is refused', () => {
  const header = 'ERR_SAFETENSORS_HEADER';
  const truncated = 'ERR_SAFETENSORS_TRUNCATED';

  test.each<[string, Buffer, string, string]>([
    ['too short', Buffer.alloc(7), truncated, '7 bytes are too few'],
    [
      'header past the end',
      Buffer.concat([withLength('{}').subarray(0, 8), Buffer.from('{')]),
      truncated,
      'the header ends at byte 10',
    ],
    [
      'header over the limit',
      Buffer.concat([Buffer.from([0, 0, 0, 0, 0, 0, 0, 1]), Buffer.alloc(8)]),
      header,
      'more than the format allows',
    ],
    ['not UTF-8', withLength(Buffer.from('7b22ff223a317d', 'hex')), header, 'UTF-8'],
    ['not JSON', withLength('{"a":'), header, 'not valid JSON'],
    ['text after the JSON', withLength('{} x'), header, 'text after the end'],
    ['a list', withLength('[]'), header, 'not a JSON object'],
    ['nested 1000 deep', withLength(`{"a":${'['.repeat(1000)}`), header, 'nested'],
    [
      'a name twice',
      safetensorsFile(`{"a":${JSON.stringify(f32([1], 0, 4))},"a":${JSON.stringify(f32([1], 0, 4))}}`, 4),
      header,
      '"a" occurs twice',
    ],
    [
      'a key twice',
      safetensorsFile('{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4),
      header,
      '"dtype" occurs twice',
    ],
    [
      'a lone surrogate',
      safetensorsFile('{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4),
      header,
      'not valid Unicode',
    ],
    [
      'a control character',
      safetensorsFile('{"a\nb":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4),
      header,
      'control character',
    ],
    ['a tensor that is a number', safetensorsFile({ a: 5 }, 0), header, '"a"'],
    ['metadata that is no string', safetensorsFile({ __metadata__: { a: 1 } }, 0), header, '__metadata__.a'],
    [
      'an unknown dtype',
      safetensorsFile({ a: { dtype: 'F4', shape: [2], data_offsets: [0, 1] } }, 1),
      header,
      '"F4"',
    ],
    [
      'a GGUF dtype',
      safetensorsFile({ a: { dtype: 'Q8_0', shape: [32], data_offsets: [0, 34] } }, 34),
      header,
      '"Q8_0"',
    ],
    [
      'dtype "constructor"',
      safetensorsFile({ a: { dtype: 'constructor', shape: [], data_offsets: [0, 4] } }, 4),
      header,
      'dtype',
    ],
    ['a negative size', safetensorsFile({ a: f32([-1], 0, 4) }, 4), header, 'no valid shape'],
    ['a fractional size', safetensorsFile({ a: f32([1.5], 0, 6) }, 6), header, 'no valid shape'],
    [
      'a size past 2^53',
      safetensorsFile('{"a":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,4]}}', 4),
      header,
      'no valid shape',
    ],
    [
      'a product that overflows',
      safetensorsFile({ a: f32([2 ** 32, 2 ** 32, 2 ** 32], 0, 4) }, 4),
      header,
      'too many bytes',
    ],
    [
      'a product that wraps to the right size in 64 bits',
      safetensorsFile({ a: { dtype: 'U8', shape: [2 ** 32, 2 ** 32], data_offsets: [0, 0] } }, 0),
      header,
      'too many bytes',
    ],
    [
      'offsets that are no pair',
      safetensorsFile({ a: { dtype: 'F32', shape: [1], data_offsets: [0, 4, 8] } }, 8),
      header,
      'data_offsets',
    ],
    ['offsets backwards', safetensorsFile({ a: f32([1], 4, 0) }, 4), header, 'data_offsets'],
    [
      'a wrong byte size',
      safetensorsFile({ a: f32([2], 0, 4) }, 4),
      header,
      'takes 8 bytes but data_offsets give 4',
    ],
    ['an overlap', safetensorsFile({ a: f32([2], 0, 8), b: f32([1], 4, 8) }, 8), header, '"b" overlaps'],
    ['a hole', safetensorsFile({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12), header, '"b" leaves a hole'],
    ['a hole at the start', safetensorsFile({ a: f32([1], 4, 8) }, 8), header, '"a" leaves a hole'],
    [
      'bytes after the last tensor',
      safetensorsFile({ a: f32([1], 0, 4) }, 5),
      header,
      '1 bytes follow the last tensor',
    ],
    ['data that is cut', safetensorsFile({ a: f32([2], 0, 8) }, 7), truncated, 'the download is incomplete'],
  ])('%s', (_, bytes, code, message) => {
    expect(() => parse(bytes)).toThrow(refused(code, message) as Error);
  });
});
