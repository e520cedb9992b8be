/** Where commands write to: found wrong before the work, never lost, never endless. */
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  makeFolder,
  requireNew,
  requireNoInput,
  requireWritableFile,
  requireWritableFolder,
} from '../../src/cli/output_path.js';
import { picturePaths, slug } from '../../src/cli/picture_names.js';
import { temporaryFolder } from './run.js';

const dir = temporaryFolder();
const code = (name: string) => expect.objectContaining({ code: name }) as Error;

describe('folders', () => {
  test('are made with those above; a place that takes none is an error, soon', async () => {
    const folder = dir.join('a', 'b', 'c');
    requireWritableFolder('-o', folder);
    await makeFolder('-o', folder);
    await makeFolder('-o', folder);
    expect(existsSync(folder)).toBe(true);
    await expect(makeFolder('-o', '/proc/nope/x')).rejects.toThrow(code('ERR_FILE_WRITE'));
  });

  test('are no files, and files no folders', () => {
    const file = dir.join('file');
    writeFileSync(file, '');
    expect(() => requireWritableFolder('-o', file)).toThrow(code('ERR_FILE_WRITE'));
    expect(() => requireWritableFolder('-o', join(file, 'x'))).toThrow(code('ERR_FILE_WRITE'));
    expect(() => requireWritableFile('-o', join(file, 'x.png'))).toThrow(code('ERR_FILE_WRITE'));
    expect(() => requireWritableFile('-o', dir.path)).toThrow(code('ERR_FILE_WRITE'));
    expect(() => requireWritableFile('-o', dir.join('nope', 'x.png'))).toThrow(code('ERR_FILE_WRITE'));
  });
});

test('an input is known by the file, not by its name; what is there is new no more', () => {
  const [input, link] = [dir.join('input'), dir.join('link.png')];
  writeFileSync(input, '');
  symlinkSync(input, link);
  expect(() => requireNoInput('-o', link, [input])).toThrow(code('ERR_FILE_EXISTS'));
  expect(() => requireNoInput('-o', dir.join('other.png'), [input])).not.toThrow();
  expect(() => requireNew('-o', input)).toThrow(code('ERR_FILE_EXISTS'));
});

describe('names of pictures', () => {
  const pictures = [1n, 2n].map((seed) => ({ prompt: 'a red circle', seed }));
  const names = (output: string | undefined, of = pictures) => picturePaths(output, of, 'refuse');

  test('one, several, with placeholders, in folders', () => {
    expect(names(dir.join('x.png'), pictures.slice(0, 1))).toEqual([dir.join('x.png')]);
    expect(names(dir.join('x.png'))).toEqual([dir.join('x-1.png'), dir.join('x-2.png')]);
    expect(names(dir.join('{seed}.PNG'))).toEqual([dir.join('1.PNG'), dir.join('2.PNG')]);
    expect(names(dir.join('new/'))).toEqual(
      [1, 2].map((seed) => dir.join('new', `a-red-circle-${seed}.png`)),
    );
    mkdirSync(dir.join('there'));
    expect(names(dir.join('there'))[0]).toBe(dir.join('there', 'a-red-circle-1.png'));
    const many = Array.from({ length: 10 }, (_, i) => ({ prompt: '', seed: BigInt(i) }));
    expect(names(dir.join('x.png'), many).map((path) => path.slice(-8))).toEqual(
      many.map((_, i) => `x-${String(i + 1).padStart(2, '0')}.png`.slice(-8)),
    );
  });

  test('a prompt’s own braces and dollars are text', () => {
    const [path] = names(dir.join('{prompt}.png'), [{ prompt: '{seed} $& $1', seed: 7n }]);
    expect(path).toBe(dir.join('seed-1.png'));
  });

  test.each([
    ['a Red circle, please!', 'a-red-circle-please'],
    ['', 'picture'],
    ['../../etc/passwd', 'etc-passwd'],
    ['赤い 円', '赤い-円'],
    ['\u0000\u001b[2J', '2j'],
  ])('slug of %j', (prompt, expected) => expect(slug(prompt)).toBe(expected));

  test('a long prompt fits a file name', () => {
    expect(Buffer.byteLength(slug('言葉 '.repeat(100)))).toBeLessThanOrEqual(100);
    expect(Buffer.byteLength(slug('x'.repeat(1000)))).toBeLessThanOrEqual(100);
  });
});
