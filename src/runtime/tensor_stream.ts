/**
 * The bytes of a tensor in another type, some rows at a time, so that a file of any size is converted in little memory.
 * What already has the type is copied byte for byte.
 */
import { open } from 'node:fs/promises';
import { native, type NativeFile } from '../../bindings/native.js';
import { KotobaError } from '../errors.js';
import {
  blockBytes,
  blockWeights,
  isWeightDType,
  piecesOf,
  readNumbers,
  type DType,
  type Piece,
  type TensorSource,
} from '../formats/index.js';
import { cancelled, type Device } from './device.js';
import { Ops } from './ops.js';
import type { Tensor } from './tensor.js';

/** Of a copy at once. */
const COPY_BYTES = 8 << 20;
/** Decoded at once. */
const CHUNK_VALUES = 4 << 20;

export class TensorStream implements Disposable {
  readonly #device: Device;
  readonly #ops: Ops;
  readonly #files = new Map<string, NativeFile>();
  readonly #signal: AbortSignal | undefined;

  /** @param device the CPU */
  constructor(device: Device, signal?: AbortSignal) {
    this.#device = device;
    this.#ops = new Ops(device, 'fp32');
    this.#signal = signal;
  }

  /**
   * @throws KotobaError ERR_NON_FINITE where a quantised type would have to store NaN or infinity, or F16 what is too
   *   large for it; ERR_FILE_READ; ERR_CANCELLED
   */
  async *bytes(source: TensorSource, dtype: DType): AsyncGenerator<Uint8Array> {
    try {
      for (const piece of piecesOf(source))
        if (piece.tensor.dtype === dtype && !piece.scale && !source.transposed) yield* this.#copy(piece);
        else if (source.transposed) yield* this.#transposed(source, dtype);
        else yield* this.#decoded(piece, dtype);
    } catch (error) {
      await this.#device.native.flush().catch(() => undefined); // the queue has the same failure: not the next user's
      throw error;
    }
    for (const file of this.#files.values())
      if (!file.intact())
        throw new KotobaError('ERR_FILE_READ', `${source.tensor.path}: became shorter while it was read`);
  }

  [Symbol.dispose](): void {
    for (const file of this.#files.values()) file.dispose();
    this.#files.clear();
  }

  async *#copy(piece: Piece): AsyncGenerator<Uint8Array> {
    const { tensor } = piece;
    const { rows, width } = rowsOf(piece);
    const rowBytes = bytesOf(tensor.dtype, width);
    let at = tensor.offset + rows[0] * rowBytes;
    let left = (rows[1] - rows[0]) * rowBytes;
    const file = await open(tensor.path);
    try {
      while (left > 0) {
        this.#requireRunning();
        const chunk = new Uint8Array(Math.min(left, COPY_BYTES));
        const { bytesRead } = await file.read(chunk, 0, chunk.length, at);
        if (bytesRead === 0)
          throw new KotobaError('ERR_FILE_READ', `${tensor.path}: ended in the middle of ${tensor.name}`);
        yield chunk.subarray(0, bytesRead);
        at += bytesRead;
        left -= bytesRead;
      }
    } finally {
      await file.close();
    }
  }

  async *#decoded(piece: Piece, dtype: DType): AsyncGenerator<Uint8Array> {
    const { tensor } = piece;
    if (!isWeightDType(tensor.dtype))
      throw new KotobaError('ERR_ARGUMENT', `${tensor.path}: ${tensor.name} is ${tensor.dtype}: no ${dtype}`);
    const { rows, width } = rowsOf(piece);
    const [start, end] = rows;
    const step = Math.max(1, Math.floor(CHUNK_VALUES / width));
    for (let row = start; row < end; row += step) {
      this.#requireRunning();
      using values = this.#rows(piece, width, [row, Math.min(end, row + step)]);
      yield await this.#encoded(values, dtype, tensor.name);
    }
  }

  #rows({ tensor, scale }: Piece, width: number, [start, end]: readonly [number, number]): Tensor {
    const rowBytes = bytesOf(tensor.dtype, width);
    const file = this.#file(tensor.path);
    const offset = tensor.offset + start * rowBytes;
    using stored = this.#device.weight(file, offset, tensor.dtype, [end - start, width]);
    const values = this.#ops.decode(stored);
    const factor = scale ? readNumbers(scale)[0]! : 1;
    if (factor !== 1) this.#ops.combineInto(values, [[factor, values]]);
    void this.#device.native.reached().then(
      () => file.forget([offset, (end - start) * rowBytes]),
      () => undefined, // told where the rows are awaited
    );
    return values;
  }

  /** A projection that is stored the other way round: small enough to be turned as a whole. */
  async *#transposed(source: TensorSource, dtype: DType): AsyncGenerator<Uint8Array> {
    const [height, width] = source.tensor.shape as [number, number];
    using stored = this.#rows(source, width, [0, height]);
    using turned = this.#ops.transpose(stored);
    yield await this.#encoded(turned, dtype, source.tensor.name);
  }

  async #encoded(values: Tensor, dtype: DType, name: string): Promise<Uint8Array> {
    if (dtype === 'F32') return values.readBytes();
    if (blockWeights(dtype) > 1) this.#ops.requireFinite(values, name);
    using blocks = this.#ops.quantize(values, dtype);
    const bytes = await blocks.readBytes();
    if (dtype === 'F16') await requireNoOverflow(bytes, values, name);
    return bytes;
  }

  #requireRunning(): void {
    if (this.#signal?.aborted) throw cancelled();
  }

  #file(path: string): NativeFile {
    let file = this.#files.get(path);
    if (!file) this.#files.set(path, (file = new native.File(path)));
    return file;
  }
}

/** The exponent of infinities and NaNs. */
const HALF_EXPONENT = 0x7c00;

/** What was infinite before may stay so: a mask, say. */
async function requireNoOverflow(halves: Uint8Array, values: Tensor, name: string): Promise<void> {
  const codes = new Uint16Array(halves.buffer, halves.byteOffset, halves.byteLength / 2);
  // A plain loop takes 1 ns a value; with a callback it would take as long as all the rest.
  let first = 0;
  while (first < codes.length && (codes[first]! & HALF_EXPONENT) !== HALF_EXPONENT) first++;
  if (first === codes.length) return;
  const before = await values.read();
  const lost = before.find(
    (value, i) => (codes[i]! & HALF_EXPONENT) === HALF_EXPONENT && Number.isFinite(value),
  );
  if (lost !== undefined)
    throw new KotobaError(
      'ERR_NON_FINITE',
      `${name} holds ${lost}: expected at most 65504 for F16; write BF16 or F32`,
    );
}

const bytesOf = (dtype: DType, values: number): number => (values / blockWeights(dtype)) * blockBytes(dtype);

/** Rows are what the outermost dimension counts. A whole vector is one row, part of one many of a single value. */
function rowsOf({ tensor: { shape }, rows }: Piece): { rows: readonly [number, number]; width: number } {
  const height = shape.length > 1 || rows ? shape[0]! : 1;
  return { rows: rows ?? [0, height], width: shape.reduce((a, b) => a * b, 1) / height };
}
