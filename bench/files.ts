/**
 * Model files of full size with seeded random weights, for benches that must not depend on a download.
 * Written once, streaming, into KOTOBA_BENCH_DIR (default: kotoba-bench in the system's temporary directory).
 *
 *   npx tsx bench/files.ts [--tiny] [NAME...]      makes them (all when none is named) and prints their paths
 */
import { closeSync, existsSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { argv, env, pid, stdout } from 'node:process';
import { pathToFileURL } from 'node:url';
import { ggufLayout, safetensorsLayout, type FileLayout, type PlacedTensor } from './file_headers.js';
import { clipTensors, t5GgufTensors, t5Metadata, t5SafetensorsTensors } from './model_layout.js';
import type { ClipDims, StoredType, T5Dims } from './model_layout.js';
import { blockSizes, hashName, makePool, Random } from './random_weights.js';

export type EncoderKind = 'clip_l' | 'clip_g' | 't5';
export type FileSize = 'full' | 'tiny';

interface BenchFile {
  readonly kind: EncoderKind;
  readonly extension: 'safetensors' | 'gguf';
  readonly layout: (size: FileSize) => FileLayout;
}

/** Part of every file's name: raise it when the contents change, and old files are not taken for new. */
export const contentsVersion: Record<FileSize, number> = { full: 1, tiny: 3 };
/** Chooses all random weights. */
export const contentsSeed = 1;

const clipL: Record<FileSize, ClipDims> = {
  full: { hidden: 768, intermediate: 3072, layers: 12 },
  tiny: { hidden: 128, intermediate: 512, layers: 2 },
};
const clipG: Record<FileSize, ClipDims> = {
  full: { hidden: 1280, intermediate: 5120, layers: 32, projection: 1280 },
  tiny: { hidden: 192, intermediate: 768, layers: 2, projection: 192 },
};
const t5: Record<FileSize, T5Dims> = {
  full: { dModel: 4096, dFf: 10240, heads: 64, layers: 24 },
  tiny: { dModel: 256, dFf: 512, heads: 4, layers: 2 },
};

function clipFile(kind: 'clip_l' | 'clip_g', type: 'F32' | 'F16'): BenchFile {
  const dims = kind === 'clip_l' ? clipL : clipG;
  const layout = (size: FileSize) => {
    // Of a width that no public CLIP has, heads and activation must be told.
    const hidden_act = kind === 'clip_l' ? 'quick_gelu' : 'gelu';
    const config = JSON.stringify({ num_attention_heads: dims[size].hidden / 64, hidden_act });
    const metadata = size === 'tiny' ? { config } : {};
    return safetensorsLayout(clipTensors(dims[size], type), contentsSeed, metadata);
  };
  return { kind, extension: 'safetensors', layout };
}

/** @param fileType  llama.cpp's number of the mix, for `general.file_type` */
function t5Gguf(matrix: StoredType, tokenTable: StoredType, fileType: number): BenchFile {
  const layout = (size: FileSize) =>
    ggufLayout(t5GgufTensors(t5[size], matrix, tokenTable), t5Metadata(t5[size], fileType), contentsSeed);
  return { kind: 't5', extension: 'gguf', layout };
}

/** llama.cpp stores the token table of a 4-bit T5 encoder as Q6_K: it doubles as the output matrix. */
export const benchFiles = {
  clip_l_f32: clipFile('clip_l', 'F32'),
  clip_l_f16: clipFile('clip_l', 'F16'),
  clip_g_f16: clipFile('clip_g', 'F16'),
  t5_q8_0: t5Gguf('Q8_0', 'Q8_0', 7),
  t5_q4_0: t5Gguf('Q4_0', 'Q6_K', 2),
  t5_q4_k: t5Gguf('Q4_K', 'Q6_K', 14),
  t5_f16: t5Gguf('F16', 'F16', 1),
  t5_f16_safetensors: {
    kind: 't5',
    extension: 'safetensors',
    layout: (size: FileSize) => safetensorsLayout(t5SafetensorsTensors(t5[size], 'F16'), contentsSeed),
  },
} satisfies Record<string, BenchFile>;

export type BenchFileName = keyof typeof benchFiles;

export const benchFileNames = Object.keys(benchFiles) as BenchFileName[];

export interface FileOptions {
  /** Default 'full'. */
  readonly size?: FileSize;
  /** Default KOTOBA_BENCH_DIR. */
  readonly directory?: string;
}

export interface MadeFile {
  readonly name: BenchFileName;
  readonly kind: EncoderKind;
  readonly path: string;
  readonly bytes: number;
  /** False when it was there already. */
  readonly written: boolean;
}

export function benchDirectory(): string {
  return env.KOTOBA_BENCH_DIR || join(tmpdir(), 'kotoba-bench');
}

/** Makes one file unless it is there. */
export function makeBenchFile(name: BenchFileName, options: FileOptions = {}): MadeFile {
  const { size = 'full', directory = benchDirectory() } = options;
  const { kind, extension, layout } = benchFiles[name];
  const placed = layout(size);
  const path = join(directory, `${name}-${size}-v${contentsVersion[size]}.${extension}`);
  return { name, kind, path, bytes: placed.totalBytes, written: writeOnce(path, placed) };
}

/** @returns false if the file was there. It appears under its name only when whole. */
export function writeOnce(path: string, layout: FileLayout): boolean {
  if (existsSync(path)) return false;
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.${pid}.part`;
  try {
    writeLayout(temporary, layout);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  return true;
}

/** Streams a file: the header, then every tensor's random values at its place, zeros between. */
export function writeLayout(path: string, { header, tensors, totalBytes }: FileLayout): void {
  const file = openSync(path, 'wx');
  try {
    const pools = new Map<string, Buffer>();
    let position = writeAll(file, header);
    for (const placed of tensors) {
      position += writeAll(file, Buffer.alloc(placed.offset - position));
      position += writeTensor(file, placed, pools);
    }
    writeAll(file, Buffer.alloc(totalBytes - position));
  } finally {
    closeSync(file);
  }
}

/** Writes runs of the tensor's pool, each from a random block on, until the tensor is full. */
function writeTensor(
  file: number,
  { tensor, bytes, seed }: PlacedTensor,
  pools: Map<string, Buffer>,
): number {
  const key = `${tensor.type} ${tensor.values.mean} ${tensor.values.std}`;
  let pool = pools.get(key);
  if (pool === undefined) {
    pool = makePool(tensor.type, tensor.values, new Random(hashName(key, contentsSeed)));
    pools.set(key, pool);
  }
  const random = new Random(seed);
  const blockBytes = blockSizes[tensor.type].bytes;
  const blocks = pool.length / blockBytes;
  let written = 0;
  while (written < bytes) {
    const start = random.below(blocks) * blockBytes;
    written += writeAll(file, pool.subarray(start, Math.min(pool.length, start + bytes - written)));
  }
  return written;
}

/** One `write` may take less than it was given. */
function writeAll(file: number, data: Buffer): number {
  let done = 0;
  while (done < data.length) done += writeSync(file, data, done);
  return data.length;
}

function main(args: readonly string[]): void {
  const names = args.filter((arg) => arg !== '--tiny');
  const unknown = names.find((name) => !benchFileNames.includes(name as BenchFileName));
  if (unknown !== undefined)
    throw new RangeError(`expected one of ${benchFileNames.join(', ')}; received ${unknown}`);
  const size = args.includes('--tiny') ? 'tiny' : 'full';
  for (const name of names.length > 0 ? (names as BenchFileName[]) : benchFileNames) {
    const start = performance.now();
    const made = makeBenchFile(name, { size });
    const seconds = (performance.now() - start) / 1000;
    const rate = `${seconds.toFixed(1)} s, ${(made.bytes / 1e6 / seconds).toFixed(0)} MB/s`;
    stdout.write(`${made.path}  ${made.bytes} bytes  ${made.written ? rate : 'present'}\n`);
  }
}

if (import.meta.url === pathToFileURL(argv[1] ?? '').href) main(argv.slice(2));
