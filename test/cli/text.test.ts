import { describe, expect, test } from 'vitest';
import { bytesText, printable, secondsText, table, visibleWidth, wrap } from '../../src/cli/text.js';

describe('units', () => {
  test.each([
    [0, '0 bytes'],
    [999, '999 bytes'],
    [1000, '1 kB'],
    [999_500, '1 MB'],
    [246_120_960, '246 MB'],
    [9_524_621_312, '9.52 GB'],
    [44_541_587_809, '44.5 GB'],
  ])('%i bytes', (bytes, text) => expect(bytesText(bytes)).toBe(text));

  test.each([
    [0.0000123, '12 µs'],
    [0.0123, '12.3 ms'],
    [0.99949, '999 ms'],
    [0.9999, '1.00 s'],
    [12.345, '12.3 s'],
    [119.4, '119 s'],
    [125, '2 min 05 s'],
  ])('%f seconds', (seconds, text) => expect(secondsText(seconds)).toBe(text));
});

test('width counts neither colours nor accents, and CJK and emoji twice', () => {
  expect(visibleWidth('\x1b[1mab\x1b[22m')).toBe(2);
  expect(visibleWidth('e\u0301')).toBe(1);
  expect(visibleWidth('雀')).toBe(2);
  expect(visibleWidth('🐦')).toBe(2);
});

test('table aligns columns of coloured cells', () => {
  const rows = [
    ['\x1b[1ma\x1b[22m', '1'],
    ['bbb', '22'],
  ];
  expect(table(rows, { right: [1] })).toEqual(['\x1b[1ma\x1b[22m     1', 'bbb  22']);
});

test('wrap keeps words whole', () => {
  expect(wrap(['aa', 'bb', 'cccccccc'], 6, ' ')).toEqual([' aa bb', ' cccccccc']);
});

test('printable shows what a terminal would obey', () => {
  expect(printable('a\x1b[2J\u202eb\nc\x9b')).toBe('a\\u001b[2J\\u202eb↵c\\u009b');
});
