/** What the tests of identify() share: golden encoders, changed copies of them, errors by code and words. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { openModel, selectPart } from '../../src/formats/index.js';
import type { IdentifyOptions, ModelFile, Part } from '../../src/formats/index.js';
import { golden } from '../support/golden.js';
import { ggufHeader, safetensorsHeader, writeSparse } from './model_bytes.js';
import type { GgufValue, TensorTable } from './model_bytes.js';

/** Matches an error with this code whose message holds all of these, in this order. */
export function refused(code: string, ...messages: string[]): Error {
  const pattern = messages.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*');
  return expect.objectContaining({
    code,
    message: expect.stringMatching(new RegExp(pattern, 's')) as string,
  }) as Error;
}

export const openGolden = (name: string): ModelFile => openModel(golden(`encoders/${name}`));
export const select = (name: string, options?: IdentifyOptions): Part =>
  selectPart(openGolden(name), options);

/** A folder for one test's files. */
export class Scratch implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'kotoba-formats-'));

  safetensors(tensors: TensorTable, metadata?: unknown): ModelFile {
    const path = join(this.dir, 'm.safetensors');
    writeSparse(path, safetensorsHeader(tensors, { metadata }));
    return openModel(path);
  }

  gguf(tensors: TensorTable, metadata: Record<string, GgufValue> = {}): ModelFile {
    const path = join(this.dir, 'm.gguf');
    writeSparse(path, ggufHeader(tensors, metadata));
    return openModel(path);
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true });
  }
}

/** The tensor table of a golden file, to be changed by a test. */
export function tableOf(name: string): Record<string, readonly [string, readonly number[]]> {
  return Object.fromEntries(
    [...openGolden(name).tensors].map(([key, { dtype, shape }]) => [key, [dtype, shape] as const]),
  );
}
