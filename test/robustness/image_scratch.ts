/** A copy of the model that ships, whole before every test, to be damaged file by file. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { beforeEach } from 'vitest';
import { openModel, writeSafetensors } from '../../src/index.js';
import type { FluxFiles } from '../../src/pipeline/shipped_model.js';
import { shippedModel } from '../../src/pipeline/shipped_model.js';
import type { Scratch, Tensors } from './scratch.js';

const kFolder = dirname(shippedModel().denoiser);

export interface ModelCopy {
  /** with its files in the scratch folder */
  readonly model: FluxFiles;
  /** the copy of a file of the shipped model */
  at(name: string): string;
  /** the copy becomes whole again */
  restore(name: string): void;
}

export function useModelCopy(scratch: Scratch): ModelCopy {
  const at = (name: string): string => join(scratch.dir, 'model', name);
  beforeEach(() => cpSync(kFolder, join(scratch.dir, 'model'), { recursive: true }));
  const here = (path: string): string => at(relative(kFolder, path));
  return {
    get model() {
      const { denoiser, vae, encoders } = shippedModel();
      const { clip_l, t5 } = encoders;
      return {
        denoiser: here(denoiser),
        vae: here(vae),
        encoders: { clip_l: { path: here(clip_l.path) }, t5: { path: here(t5.path) } },
      };
    },
    at,
    restore: (name) => writeFileSync(at(name), readFileSync(join(kFolder, name))),
  };
}

const kPatterns: Readonly<Record<string, Readonly<Record<'nan' | 'inf', string>>>> = {
  F16: { nan: '007e', inf: '007c' },
  BF16: { nan: 'c07f', inf: '807f' },
  F32: { nan: '0000c07f', inf: '0000807f' },
};

/** Overwrites one weight, or all, of a tensor of plain floats in a file. */
export function plant(path: string, name: string, what: 'nan' | 'inf', which: 'first' | 'all'): void {
  const { offset, bytes, dtype } = openModel(path).tensors.get(name)!;
  const file = readFileSync(path);
  const pattern = Buffer.from(kPatterns[dtype]![what], 'hex');
  file.fill(pattern, offset, which === 'all' ? offset + bytes : offset + pattern.length);
  writeFileSync(path, file);
}

/** Writes a safetensors file again with other tensors or another config in its metadata. */
export async function rewriteModel(
  path: string,
  edit: { tensors?: (tensors: Tensors) => void; config?: Readonly<Record<string, unknown>> },
): Promise<void> {
  const bytes = readFileSync(path);
  const model = openModel(path);
  const tensors: Tensors = new Map(
    [...model.tensors].map(([name, { dtype, shape, offset, bytes: length }]) => {
      const data = new Uint8Array(bytes.subarray(offset, offset + length));
      return [name, { data, dtype, shape }];
    }),
  );
  edit.tensors?.(tensors);
  const own = JSON.parse(String(model.metadata.get('config'))) as object;
  await writeSafetensors(path, tensors, { config: JSON.stringify({ ...own, ...edit.config }) });
}
