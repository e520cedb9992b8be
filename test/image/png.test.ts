/** PNG: round trips, every kind that others write, damage, size limits, and no half-written file. */
import { mkdtempSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';
import { decode, encode } from 'fast-png';
import { afterAll, afterEach, expect, test, vi } from 'vitest';
import { decodeOther, pictureFormat, type Sharp } from '../../src/image/other_formats.js';
import { decodePng, encodePng, readPicture, readPngTexts, writePng } from '../../src/image/png.js';
import type { Picture } from '../../src/image/picture.js';

vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  return { ...real, open: vi.fn(real.open) };
});

const folder = mkdtempSync(join(tmpdir(), 'kotoba-png-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => vi.mocked(open).mockClear());

const coded = (code: string, message: RegExp = /./) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) as string }) as Error;

/** Every byte value, and sizes that are no round numbers. */
function sample(width = 37, height = 11): Picture {
  const rgb = Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * i * 7 + (i >> 3)) & 255);
  return { width, height, rgb };
}

function chunk(type: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const [head, tail] = [Buffer.alloc(4), Buffer.alloc(4)];
  head.writeUInt32BE(data.length);
  tail.writeUInt32BE(crc32(body));
  return Buffer.concat([head, body, tail]);
}

/** A PNG put together by hand. @param header [width, height, depth, colour type, interlace] */
function png(header: [number, number, number, number, number], rows: number[], ...before: Buffer[]): Buffer {
  const [width, height, depth, colourType, interlace] = header;
  const ihdr = Buffer.alloc(13);
  ihdr.writeUInt32BE(width, 0);
  ihdr.writeUInt32BE(height, 4);
  ihdr.set([depth, colourType, 0, 0, interlace], 8);
  const idat = chunk('IDAT', deflateSync(Uint8Array.from(rows)));
  const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
  return Buffer.concat([signature, chunk('IHDR', ihdr), ...before, idat, chunk('IEND', new Uint8Array(0))]);
}

test.each([
  [37, 11],
  [1, 1],
  [1, 9],
  [64, 64],
])('%i × %i comes back as it was, for us and for fast-png', async (width, height) => {
  const picture = sample(width, height);
  const bytes = await encodePng(picture, new Map([['parameters', 'a: b']]));
  expect(decodePng(bytes)).toEqual({ ...picture, texts: new Map([['parameters', 'a: b']]) });
  const oracle = decode(bytes, { checkCrc: true });
  expect([oracle.width, oracle.height, oracle.channels, oracle.depth]).toEqual([width, height, 3, 8]);
  expect([...oracle.data]).toEqual([...picture.rgb]);
  expect(oracle.text).toEqual({ parameters: 'a: b' });
});

test('texts of any script, before the pixels; the same picture gives the same bytes', async () => {
  const texts = new Map([
    ['parameters', '言葉、a cat\nSteps: 4'],
    ['kotoba', '{"prompt":"Grüße ß ÿ"}'],
    ['Comment', 'smart “quotes” and 🐦'],
  ]);
  const bytes = await encodePng(sample(), texts);
  expect(decodePng(bytes).texts).toEqual(texts);
  const at = (type: string) => Buffer.from(bytes).indexOf(type, 0, 'latin1');
  expect(at('iTXt')).toBeLessThan(at('IDAT'));
  expect(at('tEXt'), 'Latin-1 text needs no iTXt').toBeGreaterThan(0);
  expect(await encodePng(sample(), texts)).toEqual(bytes);
});

test('compressed texts of others are read', () => {
  const z = chunk(
    'zTXt',
    Buffer.concat([Buffer.from('Note\0\0', 'latin1'), deflateSync(Buffer.from('é', 'latin1'))]),
  );
  const i = chunk(
    'iTXt',
    Buffer.concat([Buffer.from('Own\0\x01\0ja\0言\0'), deflateSync(Buffer.from('言葉'))]),
  );
  const { texts } = decodePng(png([1, 1, 8, 2, 0], [0, 1, 2, 3], z, i));
  expect(Object.fromEntries(texts)).toEqual({ Note: 'é', Own: '言葉' });
});

/** two pixels in a row, of each kind; expected on white */
const KINDS: readonly [string, Buffer, number[]][] = [
  ['grey 8', png([2, 1, 8, 0, 0], [0, 0, 200]), [0, 0, 0, 200, 200, 200]],
  ['grey 1', png([2, 1, 1, 0, 0], [0, 0b01000000]), [0, 0, 0, 255, 255, 255]],
  ['grey 2', png([2, 1, 2, 0, 0], [0, 0b01100000]), [85, 85, 85, 170, 170, 170]],
  ['grey 4', png([2, 1, 4, 0, 0], [0, 0x1f]), [17, 17, 17, 255, 255, 255]],
  ['grey 16', png([2, 1, 16, 0, 0], [0, 0, 0, 0x80, 0x80]), [0, 0, 0, 128, 128, 128]],
  ['RGB 16', png([1, 1, 16, 2, 0], [0, 255, 255, 0, 0, 0x7f, 0xff]), [255, 0, 127]],
  ['grey with alpha', png([2, 1, 8, 4, 0], [0, 0, 255, 0, 0]), [0, 0, 0, 255, 255, 255]],
  ['RGBA', png([2, 1, 8, 6, 0], [0, 255, 0, 0, 255, 0, 0, 0, 51]), [255, 0, 0, 204, 204, 204]],
  ['RGBA 16', png([1, 1, 16, 6, 0], [0, 0, 0, 0, 0, 0, 0, 0x80, 0x00]), [127, 127, 127]],
  [
    'palette 4 with alpha',
    png([3, 1, 4, 3, 0], [0, 0x01, 0x20], chunk('PLTE', Uint8Array.of(9, 8, 7, 200, 100, 50, 0, 0, 0)), chunk('tRNS', Uint8Array.of(255, 0))),
    [9, 8, 7, 255, 255, 255, 0, 0, 0],
  ],
  ['one grey transparent', png([2, 1, 8, 0, 0], [0, 5, 6], chunk('tRNS', Uint8Array.of(0, 5))), [255, 255, 255, 6, 6, 6]],
  ['one RGB transparent', png([1, 1, 8, 2, 0], [0, 5, 6, 7], chunk('tRNS', Uint8Array.of(0, 5, 0, 6, 0, 7))), [255, 255, 255]],
]; // prettier-ignore

test.each(KINDS)('%s', (_, bytes, expected) => {
  expect([...decodePng(bytes).rgb]).toEqual(expected);
});

test('transparency on black, and an interlaced picture', async () => {
  const half = png([1, 1, 8, 6, 0], [0, 200, 100, 0, 128]);
  expect([...decodePng(half, 'x', { background: 'black' }).rgb]).toEqual([100, 50, 0]);
  const { width, height, rgb } = sample(13, 9);
  const interlaced = encode({ width, height, channels: 3, data: rgb }, { interlace: 'Adam7' });
  expect([...decodePng(interlaced).rgb]).toEqual([...rgb]);
  expect(() => decodePng(png([2, 1, 1, 0, 1], [0, 0, 0, 0]))).toThrow(
    coded('ERR_IMAGE_FORMAT', /without interlacing/),
  );
});

test('every truncation and every flipped byte is refused with a code, or harmless', async () => {
  const bytes = await encodePng(sample(9, 5), new Map([['parameters', 'x']]));
  for (let n = 0; n < bytes.length; n++)
    expect(() => decodePng(bytes.subarray(0, n), `${n} bytes`)).toThrow(coded('ERR_IMAGE_FORMAT'));
  for (let n = 0; n < bytes.length; n++) {
    const broken = Uint8Array.from(bytes, (byte, i) => (i === n ? byte ^ 0x41 : byte));
    try {
      expect(decodePng(broken).rgb).toEqual(sample(9, 5).rgb); // in a text
    } catch (error) {
      expect(error).toEqual(coded('ERR_IMAGE_FORMAT'));
    }
  }
});

test('a small file cannot become a large picture', () => {
  const size = coded('ERR_IMAGE_SIZE', /got 100000 × 100000/);
  expect(() => decodePng(png([100000, 100000, 8, 2, 0], [0]))).toThrow(size);
  expect(() => decodePng(png([0, 5, 8, 2, 0], [0]))).toThrow(coded('ERR_IMAGE_SIZE'));
  const tooMuch = png([1, 1, 8, 2, 0], new Array<number>(1e6).fill(0));
  expect(() => decodePng(tooMuch)).toThrow(coded('ERR_IMAGE_FORMAT', /more than its 4 bytes/));
  expect(() => decodePng(png([2, 2, 8, 2, 0], [0, 1, 2, 3]))).toThrow(
    coded('ERR_IMAGE_FORMAT', /4 of 14 bytes/),
  );
  const bomb = chunk('zTXt', Buffer.concat([Buffer.from('a\0\0'), deflateSync(Buffer.alloc(2 ** 25))]));
  expect(decodePng(png([1, 1, 8, 2, 0], [0, 1, 2, 3], bomb)).texts.size).toBe(0);
});

test('wrong kinds and pictures that do not fit their size', async () => {
  expect(() => decodePng(png([1, 1, 3, 2, 0], [0, 0]))).toThrow(
    coded('ERR_IMAGE_FORMAT', /colour type 2 with 3 bits/),
  );
  expect(() => decodePng(png([1, 1, 8, 3, 0], [0, 0]))).toThrow(coded('ERR_IMAGE_FORMAT', /palette/));
  expect(() => decodePng(png([1, 1, 8, 2, 0], [7, 0, 0, 0]))).toThrow(coded('ERR_IMAGE_FORMAT'));
  await expect(encodePng({ width: 2, height: 2, rgb: new Uint8Array(11) })).rejects.toThrow(
    coded('ERR_ARGUMENT', /12 bytes/),
  );
});

test('other pictures are named; with sharp they are read', async () => {
  const jpeg = Buffer.from('ffd8ffe000104a4649460001', 'hex');
  const path = join(folder, 'a.jpg');
  writeFileSync(path, jpeg);
  const withoutSharp = () => Promise.resolve(undefined);
  await expect(decodeOther(jpeg, 'a.jpg', [0, 0, 0], withoutSharp)).rejects.toThrow(
    coded('ERR_IMAGE_FORMAT', /a\.jpg: a JPEG picture: .*PNG.*npm install sharp/),
  );
  await expect(readPicture(path)).rejects.toThrow(coded('ERR_IMAGE_FORMAT', /JPEG/));
  const info = { width: 1, height: 1, channels: 3 };
  const image = { toBuffer: () => Promise.resolve({ data: Buffer.of(1, 2, 3), info }) };
  const steps = ['rotate', 'toColourspace', 'flatten', 'removeAlpha', 'raw'];
  const sharp = (() =>
    Object.assign(image, Object.fromEntries(steps.map((name) => [name, () => image])))) as unknown as Sharp;
  const picture = await decodeOther(jpeg, 'a.jpg', [0, 0, 0], () => Promise.resolve(sharp));
  expect(picture).toEqual({ width: 1, height: 1, rgb: Uint8Array.of(1, 2, 3) });
  expect(pictureFormat(Buffer.from('RIFF\0\0\0\0WEBP'))).toBe('WebP');
  expect(pictureFormat(Buffer.from('\0\0\0\x20ftypavif'))).toBe('AVIF');
  await expect(decodeOther(Buffer.from('hello'), 'x', [0, 0, 0])).rejects.toThrow(
    coded('ERR_IMAGE_FORMAT', /not a picture.*68 65/),
  );
});

test('files: round trip, texts alone, and what is missing', async () => {
  const path = join(folder, 'picture.png');
  await writePng(path, sample(), new Map([['parameters', 'p']]));
  expect(await readPicture(path)).toEqual(decodePng(readFileSync(path)));
  expect(await readPngTexts(path)).toEqual(new Map([['parameters', 'p']]));
  await expect(readPicture(join(folder, 'no.png'))).rejects.toThrow(coded('ERR_FILE_NOT_FOUND'));
  await expect(readPicture(folder)).rejects.toThrow(coded('ERR_FILE_READ'));
  writeFileSync(join(folder, 'empty.png'), '');
  await expect(readPicture(join(folder, 'empty.png'))).rejects.toThrow(coded('ERR_IMAGE_FORMAT', /empty/));
  await expect(readPngTexts(join(folder, 'empty.png'))).rejects.toThrow(coded('ERR_IMAGE_FORMAT'));
});

test('a folder that is not there, or is a file: a plain reason', async () => {
  const inFile = join(folder, 'picture.png', 'x.png');
  await expect(writePng(join(folder, 'no', 'x.png'), sample())).rejects.toThrow(
    coded('ERR_FILE_WRITE', /does not exist/),
  );
  await expect(writePng(inFile, sample())).rejects.toThrow(coded('ERR_FILE_WRITE', /is a file/));
});

test('a full disk leaves the old file and nothing else', async () => {
  const place = join(folder, 'full');
  mkdirSync(place);
  const path = join(place, 'x.png');
  await writePng(path, sample(3, 3));
  const before = readFileSync(path);
  const { open: realOpen } = await vi.importActual<typeof import('node:fs/promises')>('node:fs/promises');
  vi.mocked(open).mockImplementationOnce(async (...args) => {
    const file = await realOpen(...args);
    let writes = 0;
    const real = file.writeFile.bind(file);
    file.writeFile = (...data) =>
      ++writes < 3 ? real(...data) : Promise.reject(Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' }));
    return file;
  });
  await expect(writePng(path, sample(), new Map([['a', 'b']]))).rejects.toThrow(
    coded('ERR_FILE_WRITE', /disk is full/),
  );
  expect(readFileSync(path)).toEqual(before);
  expect(readdirSync(place)).toEqual(['x.png']);
});
