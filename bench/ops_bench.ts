/** What every case is prepared with, and what a prepared case is. */
import { readFileSync } from 'node:fs';
import type { DType } from '../src/formats/dtype.js';
import type { Device } from '../src/runtime/device.js';
import type { Tensor } from '../src/runtime/tensor.js';
import { native } from '../bindings/native.js';
import type { BlasPeers } from './blas_peer/peers.js';
import type { Side } from './ops_time.js';
import type { RandomWeights } from './ops_weights.js';

export interface Workbench {
  readonly device: Device;
  readonly threads: number;
  /** Decodes weights for the references, with the plainest instructions. */
  readonly plain: Device;
  readonly random: RandomWeights;
  readonly peers: BlasPeers;
  /** Of the largest cache, bytes. */
  readonly cache: number;
}

export interface PreparedCase {
  /** Ours first. */
  readonly sides: readonly Side[];
  /** Of one repetition; absent where an op is no arithmetic. */
  readonly flops?: number;
  /** Read and written by one repetition of ours, at least. */
  readonly bytes: number;
  /** Runs each side once and compares it with the double reference. */
  check(): Promise<Check[]>;
  dispose(): void;
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

/** An output full of NaN, so that an element which no kernel writes is seen. */
export function poisoned(device: Device, shape: readonly number[]): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  return device.from(new Float32Array(count).fill(NaN), shape);
}

/** Decodes with the plain instructions. */
export async function decodeStored(
  { plain }: Workbench,
  stored: Uint8Array<ArrayBuffer>,
  type: DType,
  [rows, cols]: readonly [number, number],
): Promise<Float32Array> {
  if (type === 'F32') return new Float32Array(stored.buffer);
  using source = plain.empty(type, [rows, cols]);
  using out = plain.empty('F32', [rows, cols]);
  plain.native.upload(source.native, stored);
  native.decode(plain.native, out.native, source.native);
  return out.read();
}

/** Our side: enqueues all repetitions and waits once. */
export function ourSide(device: Device, enqueue: (repetition: number) => void): Side {
  return {
    name: 'kotoba',
    async run(first, reps) {
      for (let i = first; i < first + reps; i++) enqueue(i);
      await device.native.flush();
    },
  };
}

/**
 * The op's bandwidth limit: memcpy of as many bytes in all (read and written), on as many threads. Like the op it
 * reads past the cache and writes to one place.
 */
export function memcpySides(bench: Workbench, bytes: number): Side[] {
  const { peers, threads } = bench;
  const { addon } = peers;
  if (addon === undefined) return [];
  const half = Math.ceil(bytes / 2);
  const places = copiesPastCache(bench, half);
  const from = new Uint8Array(peers.operand('x', half * places), 0, half * places).fill(1);
  const to = new Uint8Array(peers.operand('out', half), 0, half).fill(0);
  return [{ name: 'memcpy', run: (first, reps) => addon.copy(to, from, half, first, reps, threads) }];
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
