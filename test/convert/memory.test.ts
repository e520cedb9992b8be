/** Files of any size pass through in little memory: what a process ever had does not grow with them. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { writeSparseShards } from './sparse_model.js';

const TSX = resolve(import.meta.dirname, '../../node_modules/tsx/dist/esm/index.mjs');
const MIB = 1 << 20;

let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'kotoba-memory-'))));
afterEach(() => rmSync(dir, { recursive: true }));

/** @returns the most resident memory of the process, bytes */
async function peakOf(shardBytes: number, output: string, ...type: string[]): Promise<number> {
  const folder = join(dir, String(shardBytes));
  mkdirSync(folder, { recursive: true });
  const index = writeSparseShards(folder, 3, shardBytes);
  const script = join(import.meta.dirname, 'convert_process.ts');
  const args = ['--import', TSX, script, index, join(dir, output), ...type];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  rmSync(join(dir, output));
  return Number(stdout);
}

// Zeros cost no disk where they are read, but are written: 192 MB and 50 MB here.
test.each([
  ['copied', 'copy.safetensors', []],
  ['quantised', 'q4.gguf', ['Q4_0']],
] as const)('three shards, %s', async (_, output, type) => {
  const [small, large] = [await peakOf(16 * MIB, output, ...type), await peakOf(128 * MIB, output, ...type)];
  expect(large - small, 'bytes more for eight times the file').toBeLessThan(96 * MIB);
  expect(large).toBeLessThan(512 * MIB);
});
