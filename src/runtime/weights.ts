/**
 * The weights of one network on a device, by canonical name. They stay in their stored dtype in the mapped file;
 * only what a network cannot use as stored (a transposed projection, a position table in two pieces) is decoded.
 */
import { native, type NativeFile } from '../../bindings/native.js';
import { KotobaError } from '../errors.js';
import type { TensorInfo, TensorSource } from '../formats/index.js';
import type { Device } from './device.js';
import { Ops, type Linear, type Norm } from './ops.js';
import type { Tensor } from './tensor.js';

export class Weights implements Disposable {
  readonly #device: Device;
  readonly #ops: Ops;
  readonly #sources: ReadonlyMap<string, TensorSource>;
  readonly #owner: string;
  readonly #files = new Map<string, NativeFile>();
  readonly #ranges = new Map<string, number[]>();
  readonly #tensors: Tensor[] = [];

  /**
   * @param sources canonical name → where it is
   * @param owner what the weights belong to, for messages
   */
  constructor(device: Device, sources: ReadonlyMap<string, TensorSource>, owner: string) {
    this.#device = device;
    this.#ops = new Ops(device, 'fp32');
    this.#sources = sources;
    this.#owner = owner;
  }

  /** @throws KotobaError ERR_MODEL_TENSORS if it is missing, scaled, or not of this shape */
  tensor(name: string, shape: readonly number[]): Tensor {
    const source = this.#source(name, shape);
    if (source.scale)
      throw new KotobaError(
        'ERR_MODEL_TENSORS',
        `${this.#owner}: ${source.tensor.name} has an FP8 scale (${source.scale.name}), expected on matrices only`,
      );
    return this.#place(source);
  }

  /** `name`.weight [outputs, inputs], with `name`.bias and the FP8 scale where the file has them. */
  linear(name: string, outputs: number, inputs: number): Linear {
    const source = this.#source(`${name}.weight`, [outputs, inputs]);
    return {
      weight: this.#place(source),
      bias: this.#sources.has(`${name}.bias`) ? this.tensor(`${name}.bias`, [outputs]) : undefined,
      scale: source.scale && this.#float32(source.scale),
    };
  }

  /** `name`.weight and `name`.bias [columns] */
  norm(name: string, columns: number): Norm {
    return { weight: this.tensor(`${name}.weight`, [columns]), bias: this.tensor(`${name}.bias`, [columns]) };
  }

  /** @throws KotobaError ERR_FILE_READ if a file was cut short since it was mapped: what was computed is then void */
  requireIntact(): void {
    for (const [path, file] of this.#files)
      if (!file.intact())
        throw new KotobaError(
          'ERR_FILE_READ',
          `${path}: the file has become shorter while it was in use; write it whole, then load it again`,
        );
  }

  /** Starts reading everything placed so far, in that order, in the background. */
  prefetch(): void {
    for (const [path, file] of this.#files) file.prefetch(this.#ranges.get(path)!);
  }

  [Symbol.dispose](): void {
    for (const tensor of this.#tensors) tensor.dispose();
    for (const file of this.#files.values()) file.dispose();
    this.#files.clear();
  }

  #source(name: string, shape: readonly number[]): TensorSource {
    const source = this.#sources.get(name);
    if (!source) throw new KotobaError('ERR_MODEL_TENSORS', `${this.#owner}: ${name} is missing`);
    if (source.shape.join() !== shape.join())
      throw new KotobaError(
        'ERR_MODEL_TENSORS',
        `${this.#owner}: expected ${name} [${shape.join(', ')}], got [${source.shape.join(', ')}] in ${source.tensor.path}`,
      );
    return source;
  }

  #place(source: TensorSource): Tensor {
    const stored = this.#map(source.tensor);
    const rows = source.rows ? this.#own(stored.rowRange(source.rows[0], source.rows[1])) : stored;
    const whole = source.append ? this.#join(rows, source.append) : rows;
    return source.transposed ? this.#own(this.#ops.transpose(whole)) : whole;
  }

  #join(head: Tensor, append: NonNullable<TensorSource['append']>): Tensor {
    using tail = this.#map(append.tensor).rowRange(append.rows[0], append.rows[1]);
    const rows = head.shape[0]! + tail.shape[0]!;
    const whole = this.#own(this.#device.empty('F32', [rows, ...head.shape.slice(1)]));
    using first = whole.rowRange(0, head.shape[0]!);
    using rest = whole.rowRange(head.shape[0]!, rows);
    this.#ops.decodeInto(first, head);
    this.#ops.decodeInto(rest, tail);
    return whole;
  }

  /** A scale of any float dtype as F32 [elements]. */
  #float32(info: TensorInfo): Tensor {
    using stored = this.#map(info).reshape(info.shape.reduce((a, b) => a * b, 1));
    return this.#own(this.#ops.decode(stored));
  }

  #map(info: TensorInfo): Tensor {
    let file = this.#files.get(info.path);
    if (!file) {
      file = new native.File(info.path);
      this.#files.set(info.path, file);
      this.#ranges.set(info.path, []);
    }
    this.#ranges.get(info.path)!.push(info.offset, info.bytes);
    return this.#own(this.#device.weight(file, info.offset, info.dtype, info.shape));
  }

  #own(tensor: Tensor): Tensor {
    this.#tensors.push(tensor);
    return tensor;
  }
}
