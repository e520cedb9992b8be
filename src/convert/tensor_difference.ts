/** How far two files of one network are apart, tensor by tensor, and which tensors stand out. */
import type { DType, Part, TensorSource } from '../formats/index.js';
import type { Device } from '../runtime/device.js';
import { TensorStream } from '../runtime/tensor_stream.js';

export interface Apartness {
  /** ‖a − b‖ / ‖a‖; 0 for equal ones, also where both are zero */
  readonly relativeL2: number;
  /** of the angle between the two */
  readonly cosine: number;
  /** dB; Infinity for equal ones */
  readonly snr: number;
  /** the factor that brings b closest to a */
  readonly factor: number;
  /** the largest magnitudes */
  readonly largest: readonly [a: number, b: number];
  /** NaNs and infinities */
  readonly nonFinite: readonly [a: number, b: number];
}

/** Sums over pairs of numbers, from which everything else follows. Pairs with a non-finite number are only counted. */
export class PairSums {
  #aa = 0;
  #bb = 0;
  #ab = 0;
  #dd = 0;
  #largest: [number, number] = [0, 0];
  #nonFinite: [number, number] = [0, 0];

  add(a: Float32Array, b: Float32Array): void {
    // Squares of floats do not overflow a double: a sum is finite exactly where all its numbers are.
    const sums = sumPairs(a, b);
    if (Number.isFinite(sums.aa + sums.bb)) return this.#include(sums);
    const isFinite = a.map((x, i) => Number(Number.isFinite(x) && Number.isFinite(b[i]!)));
    this.#nonFinite[0] += count(a, (x) => !Number.isFinite(x));
    this.#nonFinite[1] += count(b, (x) => !Number.isFinite(x));
    const finite = (values: Float32Array): Float32Array => values.filter((_, i) => isFinite[i] === 1);
    this.#include(sumPairs(finite(a), finite(b)));
  }

  #include({ aa, bb, ab, dd, mostA, mostB }: ReturnType<typeof sumPairs>): void {
    this.#aa += aa;
    this.#bb += bb;
    this.#ab += ab;
    this.#dd += dd;
    this.#largest = [Math.max(this.#largest[0], mostA), Math.max(this.#largest[1], mostB)];
  }

  result(): Apartness {
    const [aa, bb, ab, dd] = [this.#aa, this.#bb, this.#ab, this.#dd];
    const isEqual = dd === 0;
    return {
      relativeL2: isEqual ? 0 : Math.sqrt(dd / aa),
      cosine: isEqual ? 1 : ab / Math.sqrt(aa * bb),
      snr: isEqual ? Infinity : 10 * Math.log10(aa / dd),
      factor: isEqual ? 1 : ab / bb,
      largest: this.#largest,
      nonFinite: this.#nonFinite,
    };
  }
}

/** One plain loop over numbers: a diff of T5-XXL runs it five thousand million times. */
function sumPairs(a: Float32Array, b: Float32Array) {
  let aa = 0;
  let bb = 0;
  let ab = 0;
  let dd = 0;
  let mostA = 0;
  let mostB = 0;
  for (let i = 0; i < a.length; i++) {
    const x = a[i]!;
    const y = b[i]!;
    aa += x * x;
    bb += y * y;
    ab += x * y;
    dd += (x - y) * (x - y);
    mostA = Math.max(mostA, Math.abs(x));
    mostB = Math.max(mostB, Math.abs(y));
  }
  return { aa, bb, ab, dd, mostA, mostB };
}

const count = (values: Float32Array, test: (value: number) => boolean): number =>
  values.reduce((sum, value) => sum + Number(test(value)), 0);

export interface TensorDifference extends Apartness {
  /** canonical */
  readonly name: string;
  readonly shape: readonly number[];
  readonly stored: readonly [a: DType, b: DType];
  /** how much it stands out among the tensors stored alike: 1 is usual, 0 is equal */
  readonly suspicion: number;
}

/** Differences this small are rounding, whatever the types. */
const NOISE = 1e-7;
/** A factor this close to 1 is what rounding leaves of a small tensor. */
const FACTOR_NOISE = 1e-5;

/**
 * @param device the CPU
 * @returns the tensors that both have, those that stand out most first
 */
export async function tensorDifferences(
  device: Device,
  a: Part,
  b: Part,
  options: { signal?: AbortSignal | undefined; onProgress?: (done: number, total: number) => void } = {},
): Promise<TensorDifference[]> {
  using stream = new TensorStream(device, options.signal);
  const names = [...a.tensors.keys()].filter((name) => b.tensors.has(name));
  const found: Omit<TensorDifference, 'suspicion'>[] = [];
  for (const [i, name] of names.entries()) {
    const [left, right] = [a.tensors.get(name)!, b.tensors.get(name)!];
    if (left.shape.join() === right.shape.join())
      found.push({
        name,
        shape: left.shape,
        stored: [left.tensor.dtype, right.tensor.dtype],
        ...(await apart(stream, left, right)),
      });
    options.onProgress?.(i + 1, names.length);
  }
  return ranked(found);
}

async function apart(stream: TensorStream, a: TensorSource, b: TensorSource): Promise<Apartness> {
  const sums = new PairSums();
  const [left, right] = [floats(stream.bytes(a, 'F32')), floats(stream.bytes(b, 'F32'))];
  let [x, y] = [new Float32Array(), new Float32Array()];
  for (;;) {
    if (x.length === 0) x = (await left.next()).value ?? x;
    if (y.length === 0) y = (await right.next()).value ?? y;
    const count = Math.min(x.length, y.length);
    if (count === 0) return sums.result();
    sums.add(x.subarray(0, count), y.subarray(0, count));
    [x, y] = [x.subarray(count), y.subarray(count)];
  }
}

/** Pieces of whole numbers: a copied piece may end in the middle of one only where the file does. */
async function* floats(
  bytes: AsyncIterable<Uint8Array>,
): AsyncGenerator<Float32Array<ArrayBuffer>, undefined> {
  for await (const piece of bytes)
    if (piece.byteLength > 0)
      yield new Float32Array(
        piece.buffer.slice(piece.byteOffset, piece.byteOffset + piece.byteLength) as ArrayBuffer,
      );
  return undefined;
}

/**
 * Quantised tensors are all apart, each type by its own measure: a fault is what is unusual among the tensors stored
 * alike, in its distance or in the factor that is left between the two.
 */
function ranked(found: readonly Omit<TensorDifference, 'suspicion'>[]): TensorDifference[] {
  const usual = new Map<string, { distance: number; factor: number }>();
  const keyOf = ({ stored, shape }: Omit<TensorDifference, 'suspicion'>): string =>
    `${stored.join()}:${shape.length > 1 ? 'matrix' : 'vector'}`;
  for (const key of new Set(found.map(keyOf))) {
    const own = found.filter((one) => keyOf(one) === key);
    usual.set(key, {
      distance: Math.max(NOISE, median(own.map(({ relativeL2 }) => relativeL2))),
      factor: Math.max(FACTOR_NOISE, median(own.map(({ factor }) => Math.abs(factor - 1)))),
    });
  }
  const suspicion = (one: Omit<TensorDifference, 'suspicion'>): number => {
    const { distance, factor } = usual.get(keyOf(one))!;
    if (one.nonFinite.some((count) => count > 0)) return Infinity;
    const by = Math.max(one.relativeL2 / distance, Math.abs(one.factor - 1) / factor);
    return Number.isNaN(by) ? Infinity : by;
  };
  return found
    .map((one) => ({
      ...one,
      suspicion: one.relativeL2 === 0 && one.nonFinite.every((n) => n === 0) ? 0 : suspicion(one),
    }))
    .sort((p, q) => q.suspicion - p.suspicion || q.relativeL2 - p.relativeL2);
}

function median(values: readonly number[]): number {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
}
