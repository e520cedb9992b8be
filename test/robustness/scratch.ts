/** A folder for damaged copies of golden files, and how they are expected to be refused. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { KotobaError, openModel, writeSafetensors } from '../../src/index.js';
import type { ArrayToWrite } from '../../src/formats/write.js';
import { golden } from '../support/golden.js';

export interface Scratch {
  readonly dir: string;
  put(name: string, bytes: Uint8Array | string): string;
}

/** A folder that lives as long as the tests of the calling file. */
export function useScratch(): Scratch {
  let dir = '';
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'kotoba-robust-'));
  });
  afterAll(() => rmSync(dir, { recursive: true }));
  return {
    get dir() {
      return dir;
    },
    put(name, bytes) {
      const path = join(dir, name);
      writeFileSync(path, bytes);
      return path;
    },
  };
}

/** Tensors of a safetensors file by name, to be changed. */
export type Tensors = Map<string, ArrayToWrite & { readonly data: Uint8Array; shape: readonly number[] }>;

/** A copy of a golden safetensors file with other tensors, offsets and all in order. */
export async function rewritten(
  scratch: Scratch,
  name: string,
  edit: (tensors: Tensors) => void,
  metadata: Record<string, string> = {},
): Promise<string> {
  const bytes = readFileSync(golden(name));
  const tensors: Tensors = new Map(
    [...openModel(golden(name)).tensors].map(([key, { dtype, shape, offset, bytes: length }]) => {
      const data = new Uint8Array(bytes.subarray(offset, offset + length));
      return [key, { data, dtype, shape }];
    }),
  );
  edit(tensors);
  const path = join(scratch.dir, 'rewritten.safetensors');
  await writeSafetensors(path, tensors, metadata);
  return path;
}

/** `ok`, or the code and message of a KotobaError; anything else is thrown on. */
export async function outcomeOf(
  action: () => unknown,
): Promise<{ readonly code: string; readonly message: string }> {
  try {
    await action();
    return { code: 'ok', message: '' };
  } catch (error) {
    if (!(error instanceof KotobaError)) throw error;
    return { code: error.code, message: error.message };
  }
}
