/** Large models that take no disk: shards of matrices whose values are holes in the file, all zero. */
import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/**
 * @param count of shards, each with matrices of 16 MiB under a T5's names
 * @param bytes of each shard
 * @returns the index
 */
export function writeSparseShards(dir: string, count: number, bytes: number): string {
  const map: Record<string, string> = {};
  for (let shard = 1; shard <= count; shard++) {
    const file = `model-${pad(shard)}-of-${pad(count)}.safetensors`;
    const names = Array.from({ length: bytes / MATRIX_BYTES }, (_, i) => `layer.${shard}.${i}.weight`);
    writeSparse(join(dir, file), names, [1024, MATRIX_BYTES / 4096]);
    for (const name of names) map[name] = file;
  }
  const index = join(dir, 'model.safetensors.index.json');
  writeFileSync(index, JSON.stringify({ metadata: { total_size: count * bytes }, weight_map: map }));
  return index;
}

const MATRIX_BYTES = 16 << 20;
const pad = (n: number): string => String(n).padStart(5, '0');

/** F32 matrices of zeros. */
export function writeSparse(path: string, names: readonly string[], shape: readonly [number, number]): void {
  const size = shape[0] * shape[1] * 4;
  const entries = names.map((name, i) => {
    return [name, { dtype: 'F32', shape, data_offsets: [i * size, (i + 1) * size] }] as const;
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const file = openSync(path, 'w');
  try {
    writeSync(file, Buffer.concat([length, header]));
    ftruncateSync(file, 8 + header.length + names.length * size);
  } finally {
    closeSync(file);
  }
}
