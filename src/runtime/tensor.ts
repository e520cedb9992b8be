/**
 * A tensor on a device. Whoever gets one from a function owns it: declare it with `using`, or dispose() it.
 * Its memory may be reused by the next op as soon as it is disposed; queued work is not disturbed.
 */
import type { NativeTensor } from '../../bindings/native.js';
import { KotobaError } from '../errors.js';
import type { Device } from './device.js';

export class Tensor implements Disposable {
  readonly device: Device;
  readonly native: NativeTensor;
  readonly dtype: string;
  /** Outermost dimension first. */
  readonly shape: readonly number[];

  constructor(device: Device, native: NativeTensor, dtype: string, shape: readonly number[]) {
    this.device = device;
    this.native = native;
    this.dtype = dtype;
    this.shape = shape;
  }

  /** Length of the last dimension. */
  get cols(): number {
    return this.shape.at(-1) ?? 1;
  }

  /** Product of all dimensions but the last. */
  get rows(): number {
    return this.shape.slice(0, -1).reduce((a, b) => a * b, 1);
  }

  /** A view of rows [start, end) of the first dimension; shares the memory. */
  rowRange(start: number, end: number): Tensor {
    return this.#view(this.native.rows(start, end), [end - start, ...this.shape.slice(1)]);
  }

  /** A strided view of columns [start, end); shares the memory. */
  columnRange(start: number, end: number): Tensor {
    return this.#view(this.native.columns(start, end), [...this.shape.slice(0, -1), end - start]);
  }

  /** The same elements in another shape; shares the memory. */
  reshape(...shape: number[]): Tensor {
    return this.#view(this.native.reshape(shape), shape);
  }

  /** New values for all elements, in the order of the queue. */
  write(data: Float32Array | Int32Array): void {
    this.device.native.upload(this.native, data);
  }

  /** Values of an F32 tensor, dense, once everything enqueued so far has run. */
  async read(): Promise<Float32Array> {
    if (this.dtype !== 'F32')
      throw new KotobaError('ERR_ARGUMENT', `tensor: read() needs F32, got ${this.dtype}: decode it first`);
    return new Float32Array(await this.device.native.read(this.native));
  }

  /** The dense bytes of any dtype, after everything enqueued so far. */
  async readBytes(): Promise<Uint8Array> {
    return new Uint8Array(await this.device.native.read(this.native));
  }

  dispose(): void {
    this.native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #view(native: NativeTensor, shape: readonly number[]): Tensor {
    return new Tensor(this.device, native, this.dtype, shape);
  }
}
