import { expect, test } from 'vitest';
import { processMemory, resetPeakMemory } from '../../bench/memory.js';

const mebibyte = 1 << 20;

test('a touched buffer shows in the resident memory and stays in the peak', () => {
  const before = processMemory();
  expect(before.peak).toBeGreaterThanOrEqual(before.resident - mebibyte);
  let buffer: Buffer | undefined = Buffer.alloc(64 * mebibyte, 1);
  const during = processMemory();
  expect(during.anonymous - before.anonymous).toBeGreaterThan(60 * mebibyte);
  expect(during.peak).toBeGreaterThanOrEqual(during.resident - mebibyte);
  expect(buffer[0]).toBe(1);
  buffer = undefined;
  resetPeakMemory();
  const after = processMemory();
  expect(after.peak).toBeLessThan(after.resident + 32 * mebibyte);
});

test('a process that is not there is an error', () => {
  expect(() => processMemory(2 ** 30)).toThrow(/ENOENT/);
});
