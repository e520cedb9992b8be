/** What every case is prepared with, and what a prepared case is. */
import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { DTYPES, type DType } from '../src/formats/dtype.js';
import type { Device } from '../src/runtime/device.js';
import type { OpPrecision } from '../src/runtime/ops.js';
import type { Tensor } from '../src/runtime/tensor.js';
import { native, type NativeRecording } from '../bindings/native.js';
import type { BlasPeers } from './blas_peer/peers.js';
import { makeFastFolder } from './fast_folder.js';
import type { Side } from './ops_time.js';
import type { TorchOps } from './torch_ops.js';
import type { RandomWeights } from './ops_weights.js';

export interface Workbench {
  readonly device: Device;
  /** The CPU's; 0 on a GPU. */
  readonly threads: number;
  /** Decodes weights for the references, with the plainest instructions. */
  readonly plain: Device;
  readonly random: RandomWeights;
  readonly peers: BlasPeers;
  /** The peer on a GPU. */
  readonly torch?: TorchOps | undefined;
  /** Of the largest cache, bytes. */
  readonly cache: number;
  /** Whether repetitions are recorded once and replayed, so that a GPU never waits for the next launch. */
  readonly records: boolean;
}

export interface PreparedCase {
  /** Ours first. */
  readonly sides: readonly Side[];
  /** Of one repetition; absent where an op is no arithmetic. */
  readonly flops?: number;
  /** Read and written by one repetition of ours, at least. */
  readonly bytes: number;
  /** Sides that this machine or version does not have, with the reason. */
  readonly missing?: readonly MissingSide[];
  /** Runs each side once and compares it with the double reference. */
  check(): Promise<Check[]>;
  dispose(): void;
}

export interface MissingSide {
  readonly side: string;
  readonly why: string;
}

export interface Check {
  readonly side: string;
  /** Relative to the size of the result; NaN where anything is NaN. */
  readonly error: number;
  readonly bound: number;
}

export const isWrong = ({ error, bound }: Check): boolean => !(error <= bound);

/** Only cases smaller than any in the table get fewer copies than would fill the cache. */
const mostCopies = 512;

/** Copies of an input that together are twice the cache, so that each is read from memory. */
export function copiesPastCache(bench: Workbench, bytes: number): number {
  return Math.min(mostCopies, Math.ceil((2 * bench.cache) / bytes));
}

/** Copies of one tensor side by side in memory. */
export interface Copies {
  readonly views: readonly Tensor[];
  dispose(): void;
}

/** @param stored  the bytes of one tensor [rows, cols] */
export function uploadCopies(
  device: Device,
  stored: NodeJS.TypedArray,
  { type, rows, cols, copies }: { type: DType; rows: number; cols: number; copies: number },
): Copies {
  const all = device.empty(type, [copies * rows, cols]);
  const views = Array.from({ length: copies }, (_, i) => all.rowRange(i * rows, (i + 1) * rows));
  for (const view of views) device.native.upload(view.native, stored);
  const dispose = () => {
    for (const view of views) view.dispose();
    all.dispose();
  };
  return { views, dispose };
}

/**
 * Copies of a weight. On a GPU they are adopted from a file, as a network's are: only those are kept in other forms
 * (expanded, split) between calls, which is a part of how fast a product is.
 */
export function weightCopies(
  bench: Workbench,
  stored: Uint8Array,
  shape: { type: DType; rows: number; cols: number; copies: number },
): Copies {
  const { device, threads } = bench;
  if (threads > 0) return uploadCopies(device, stored, shape);
  const { type, rows, cols, copies } = shape;
  const folder = makeFastFolder();
  const path = join(folder, 'weights');
  const stride = Math.ceil(stored.byteLength / 64) * 64;
  const out = openSync(path, 'w');
  for (let i = 0; i < copies; i++) writeSync(out, stored, 0, stored.byteLength, i * stride);
  closeSync(out);
  const file = new native.File(path);
  rmSync(folder, { recursive: true }); // the map stays until the last weight is gone
  const views = Array.from({ length: copies }, (_, i) => device.weight(file, i * stride, type, [rows, cols]));
  const dispose = () => {
    for (const view of views) view.dispose();
    file.dispose();
  };
  return { views, dispose };
}

/** What activations are stored in that only matmuls and attention read. */
export function activationType(precision: OpPrecision | undefined): 'F32' | 'F16' | 'BF16' {
  return precision === 'fp16' ? 'F16' : precision === 'bf16' ? 'BF16' : 'F32';
}

/** Random activations as the device stores them, and what they stand for. */
export interface Activations {
  readonly stored: NodeJS.TypedArray;
  readonly values: Float32Array;
}

export async function randomActivations(
  bench: Workbench,
  type: 'F32' | 'F16' | 'BF16',
  [rows, cols]: readonly [number, number],
): Promise<Activations> {
  const stored = bench.random.stored(type, rows * cols);
  return { stored, values: await decodeStored(bench, stored, type, [rows, cols]) };
}

const nanBits = { F16: 0x7e00, BF16: 0x7fc0 };

/** An output full of NaN, so that an element which no kernel writes is seen. */
export function poisoned(
  device: Device,
  shape: readonly number[],
  type: 'F32' | 'F16' | 'BF16' = 'F32',
): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  if (type === 'F32') return device.from(new Float32Array(count).fill(NaN), shape);
  const out = device.empty(type, shape);
  device.native.upload(out.native, new Uint16Array(count).fill(nanBits[type]));
  return out;
}

/** An output's values, decoded if it is stored in 16 bits. */
export async function readValues(device: Device, tensor: Tensor): Promise<Float32Array> {
  if (tensor.dtype === 'F32') return await tensor.read();
  using decoded = device.empty('F32', tensor.shape);
  native.decode(device.native, decoded.native, tensor.native);
  return await decoded.read();
}

/** Decodes with the plain instructions. */
export async function decodeStored(
  { plain }: Pick<Workbench, 'plain'>,
  stored: Uint8Array<ArrayBuffer>,
  type: DType,
  [rows, cols]: readonly [number, number],
): Promise<Float32Array> {
  if (type === 'F32') return new Float32Array(stored.buffer, stored.byteOffset, rows * cols);
  using source = plain.empty(type, [rows, cols]);
  using out = plain.empty('F32', [rows, cols]);
  plain.native.upload(source.native, stored);
  native.decode(plain.native, out.native, source.native);
  return out.read();
}

/** Some rows of a stored tensor, one after another. */
export function storedRows(
  stored: Uint8Array<ArrayBuffer>,
  { type, cols, rows }: { type: DType; cols: number; rows: readonly number[] },
): Uint8Array<ArrayBuffer> {
  const [weights, blockBytes] = DTYPES[type];
  const bytes = (cols / weights) * blockBytes;
  const out = new Uint8Array(rows.length * bytes);
  for (const [i, row] of rows.entries()) out.set(stored.subarray(row * bytes, (row + 1) * bytes), i * bytes);
  return out;
}

/**
 * Our side: enqueues all repetitions and waits once. Where the bench records, a pass over all copies of the inputs is
 * recorded at the first run, after one that is not: what a kernel keeps of its weights is made then.
 * @param copies  of the inputs; `enqueue` takes the repetition's number
 */
export function ourSide(bench: Workbench, copies: number, enqueue: (repetition: number) => void): Side {
  const { device, records } = bench;
  const launch = (first: number, reps: number) => {
    for (let i = first; i < first + reps; i++) enqueue(i);
  };
  const run = async (first: number, reps: number) => {
    launch(first, reps);
    await device.native.flush();
  };
  if (!records) return { name: 'kotoba', run };
  let recording: NativeRecording | undefined;
  return {
    name: 'kotoba',
    unit: copies,
    async run(first, reps) {
      if (reps < copies) return await run(first, reps);
      if (!recording) {
        await run(0, copies);
        device.native.beginCapture();
        launch(0, copies);
        recording = device.native.endCapture();
      }
      for (let i = 0; i < reps / copies; i++) device.native.replay(recording);
      await device.native.flush();
    },
  };
}

/** A recording holds device memory until it is collected, which its small JavaScript object does not hurry. */
export function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

/** Bytes of this machine's largest cache. */
export function largestCache(): number {
  let largest = 1 << 25;
  try {
    for (let index = 0, size = 0; ; index++) {
      const text = readFileSync(`/sys/devices/system/cpu/cpu0/cache/index${index}/size`, 'latin1');
      size = Math.max(size, parseInt(text, 10) * (text.includes('M') ? 1 << 20 : 1 << 10));
      largest = size;
    }
  } catch {
    return largest; // after the last level, or where Linux does not say
  }
}
