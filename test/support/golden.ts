/** Where reference data lies: copied into test/golden, the rest beside the checkout in ../shared/golden. */
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openModel, type TensorInfo } from '../../src/formats/index.js';
import { readFileSync } from 'node:fs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const FOLDERS = [resolve(root, 'test/golden'), resolve(root, '../shared/golden')];

/** The path of a golden file or folder, or undefined if it is not on this machine. */
export function goldenPath(name: string): string | undefined {
  return FOLDERS.map((folder) => resolve(folder, name)).find((path) => existsSync(path));
}

export function golden(name: string): string {
  const path = goldenPath(name);
  if (!path) throw new Error(`golden file ${name} is missing: copy it into test/golden`);
  return path;
}

export interface GoldenTensor {
  readonly info: TensorInfo;
  readonly shape: readonly number[];
  /** F32 and I32 as numbers, everything else as bytes. */
  readonly data: Float32Array | Int32Array | Uint8Array;
}

/** All tensors of a safetensors file. */
export function readGolden(name: string): Map<string, GoldenTensor> {
  const path = golden(name);
  const bytes = readFileSync(path);
  return new Map(
    [...openModel(path).tensors].map(([key, info]) => {
      const buffer = bytes.buffer.slice(
        bytes.byteOffset + info.offset,
        bytes.byteOffset + info.offset + info.bytes,
      );
      const data =
        info.dtype === 'F32'
          ? new Float32Array(buffer)
          : info.dtype === 'I32'
            ? new Int32Array(buffer)
            : new Uint8Array(buffer);
      return [key, { info, shape: info.shape, data }];
    }),
  );
}
