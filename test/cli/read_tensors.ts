import { openModel } from '../../src/formats/index.js';
import { readNumbers } from '../../src/formats/read.js';

export interface ReadTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly values: Float64Array;
}

/** Every tensor of a safetensors file, and its metadata. */
export function readTensors(path: string): {
  tensors: Map<string, ReadTensor>;
  metadata: Map<string, unknown>;
} {
  const { tensors, metadata } = openModel(path);
  const read = [...tensors].map(
    ([name, info]) => [name, { dtype: info.dtype, shape: info.shape, values: readNumbers(info) }] as const,
  );
  return { tensors: new Map(read), metadata: new Map(metadata) };
}
