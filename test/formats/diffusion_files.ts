/** Small Flux transformers and VAEs in every naming, shrunk from the name lists of the public files. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { publicTable, type StoredTensors, type TensorTable } from '../../bench/fuzz/diffusion_tensors.js';
import { openModel, piecesOf, type ModelFile } from '../../src/formats/index.js';
import type { TensorSource } from '../../src/formats/index.js';
import { writeSafetensors } from '../../src/formats/write.js';

export * from '../../bench/fuzz/diffusion_tensors.js';

/** Two double and three single blocks of three heads of 32. */
const kFluxSizes: Readonly<Record<number, number>> = {
  64: 16,
  128: 32,
  768: 48,
  3072: 96,
  4096: 40,
  6144: 192,
  9216: 288,
  12288: 384,
  15360: 480,
  18432: 576,
  21504: 672,
};

export const FLUX_CONFIG = {
  in_channels: 16,
  out_channels: 16,
  vec_in_dim: 48,
  context_in_dim: 40,
  hidden_size: 96,
  mlp_ratio: 4,
  num_heads: 3,
  depth: 2,
  depth_single_blocks: 3,
  axes_dim: [8, 12, 12],
  theta: 10_000,
  qkv_bias: true,
  guidance_embed: true,
};

export const VAE_CONFIG = {
  ch: 16,
  ch_mult: [1, 2, 4, 4],
  num_res_blocks: 2,
  z_channels: 2,
  in_channels: 3,
  out_ch: 3,
  num_groups: 8,
};

export const tinyFlux = (json: string): TensorTable =>
  Object.fromEntries(
    Object.entries(publicTable(json))
      .filter(([name]) => !/(^|\.)(transformer|double)_blocks\.([2-9]|1\d)\./.test(name))
      .filter(([name]) => !/^single_(transformer_)?blocks\.([3-9]|\d\d)\./.test(name))
      .map(([name, [dtype, shape]]) => [name, [dtype, shape.map((n) => kFluxSizes[n] ?? n)]]),
  );

export const tinyVae = (json: string): TensorTable =>
  Object.fromEntries(
    Object.entries(publicTable(json)).map(([name, [dtype, shape]]) => [
      name,
      [dtype, shape.map((n) => (n >= 16 ? n / 8 : n))],
    ]),
  );

export async function writeModel(
  dir: string,
  name: string,
  tensors: StoredTensors,
  config?: unknown,
): Promise<ModelFile> {
  const path = join(dir, name);
  await writeSafetensors(path, tensors, config === undefined ? {} : { config: JSON.stringify(config) });
  return openModel(path);
}

/** The stored bytes that a source stands for, piece by piece. */
export function bytesOf(source: TensorSource, read: (path: string) => Buffer = readFileSync): Buffer {
  return Buffer.concat(
    piecesOf(source).map(({ tensor, rows = [0, tensor.shape[0] ?? 1] }) => {
      const stride = tensor.bytes / (tensor.shape[0] ?? 1);
      return read(tensor.path).subarray(tensor.offset + rows[0] * stride, tensor.offset + rows[1] * stride);
    }),
  );
}
