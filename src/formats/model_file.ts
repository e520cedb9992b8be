/** What opening a file gives: which tensors it holds and where exactly their bytes lie. No tensor data is read. */
import type { DType } from './dtype.js';

export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  /** torch order: outermost dimension first */
  readonly shape: readonly number[];
  /** the file that holds it (a shard, where there are several) */
  readonly path: string;
  /** absolute byte offset in that file */
  readonly offset: number;
  readonly bytes: number;
}

export type NumberArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/** safetensors: strings only. GGUF: numbers (bigint past 2^53), strings, and arrays, typed where numeric. */
export type MetadataValue =
  | string
  | number
  | bigint
  | boolean
  | NumberArray
  | readonly string[]
  | readonly boolean[]
  | readonly MetadataValue[];

export type Container = 'safetensors' | 'gguf';

/** One parsed header. */
export interface ParsedFile {
  readonly container: Container;
  readonly path: string;
  readonly size: number;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
}

/** One model: a file, all shards of a set, or all networks of a diffusers folder (names prefixed `vae/` and so on). */
export interface ModelFile {
  /** as the user gave it */
  readonly path: string;
  readonly container: Container;
  readonly files: readonly { readonly path: string; readonly size: number }[];
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  /** the folder that holds the weights, where a tokenizer or config.json may lie beside them */
  readonly weightsDir: string;
}
