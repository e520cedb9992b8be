import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test, vi } from 'vitest';
import { processMemory, resetPeakMemory } from '../../bench/memory.js';

const mebibyte = 1 << 20;

test('a touched buffer shows in the resident memory and stays in the peak until that is reset', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const before = processMemory();
  touch(128 * mebibyte, () => {
    const during = processMemory();
    expect(during.anonymous - before.anonymous).toBeGreaterThan(120 * mebibyte);
    expect(during.resident - before.resident).toBeGreaterThan(120 * mebibyte);
  });
  await vi.waitFor(() => {
    collect();
    const freed = processMemory();
    expect(freed.peak - freed.resident).toBeGreaterThan(64 * mebibyte);
  });
  resetPeakMemory();
  const after = processMemory();
  expect(after.peak - after.resident).toBeLessThan(32 * mebibyte);
});

function touch(bytes: number, whileHeld: () => void): void {
  const buffer = Buffer.alloc(bytes, 1);
  whileHeld();
  expect(buffer.at(-1)).toBe(1);
}

test('a process that is not there is an error', () => {
  expect(() => processMemory(2 ** 30)).toThrow(/ENOENT/);
});
