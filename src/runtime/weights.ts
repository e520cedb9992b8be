/**
 * The weights of one network on a device, by canonical name. They stay in their stored dtype in the mapped file;
 * only what a network cannot use as stored (a transposed projection, a position table in two pieces) is decoded.
 */
import { native, type NativeFile } from '../../bindings/native.js';
import { KotobaError } from '../errors.js';
import {
  blockWeights,
  piecesOf,
  readNumbers,
  rowsOf,
  type DType,
  type Piece,
  type Rows,
  type TensorInfo,
  type TensorSource,
} from '../formats/index.js';
import type { Device } from './device.js';
import { Ops, type Conv, type Linear, type Norm } from './ops.js';
import type { Tensor } from './tensor.js';

export class Weights implements Disposable {
  readonly #device: Device;
  readonly #ops: Ops;
  readonly #sources: ReadonlyMap<string, TensorSource>;
  readonly #owner: string;
  readonly #files = new Map<string, NativeFile>();
  readonly #ranges = new Map<string, number[]>();
  readonly #mapped = new Map<TensorInfo, Tensor>();
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
    this.#requireUnscaled(source);
    return this.#place(source);
  }

  /** `name`.weight [outputs, inputs], with `name`.bias and the FP8 scale where the file has them. */
  linear(name: string, outputs: number, inputs: number): Linear {
    const source = this.#source(`${name}.weight`, [outputs, inputs]);
    return { ...this.#matrix(source), bias: this.#bias(name, [0, outputs]) };
  }

  /**
   * Outputs [start, end) of `name`: q of a fused qkv, say. A view of what is stored, fused or not, wherever one stored
   * tensor holds all these rows.
   * @param range outputs of the canonical matrix
   */
  linearRows(name: string, range: Rows, inputs: number): Linear {
    const source = this.#sources.get(`${name}.weight`);
    const outputs = Math.max(source?.shape[0] ?? 0, range[1]);
    const whole = this.#source(`${name}.weight`, [outputs, inputs]);
    return { ...this.#matrix(rowsOf(whole, range)), bias: this.#bias(name, range) };
  }

  /**
   * `name`.weight [outputs, inputs, kernel, kernel]. The CPU uses it as stored, unless it is quantised; for others its
   * columns are put in the order ky, kx, inputs once. F32, F16 and BF16 stay as they are, other types become F32; a 1×1
   * convolution is used as stored.
   */
  conv(name: string, outputs: number, inputs: number, kernel: number): Conv {
    const source = this.#source(`${name}.weight`, [outputs, inputs, kernel, kernel]);
    this.#requireUnscaled(source);
    const bias = this.#bias(name, [0, outputs]);
    if (kernel > 1 && !this.#device.isGpu && blockWeights(source.tensor.dtype as DType) === 1)
      return { weight: this.#map(source.tensor), bias, kernel };
    const taps = kernel * kernel;
    const stored = this.#map(source.tensor, [outputs, inputs * taps]);
    if (kernel === 1) return { weight: stored, bias, kernel };
    const dtype = ['F16', 'BF16'].includes(stored.dtype) ? stored.dtype : 'F32';
    const weight = this.#own(this.#device.empty(dtype, [outputs, taps * inputs]));
    this.#ops.convWeight(weight, stored, taps);
    this.#forgetWhenCopied(source.tensor);
    return { weight, bias, kernel };
  }

  /** A 1×1 convolution, which is a linear layer over pixels, or a matrix in its place. */
  pointwise(name: string, outputs: number, inputs: number): Linear {
    if (this.#sources.get(`${name}.weight`)?.shape.length === 2) return this.linear(name, outputs, inputs);
    const { weight, bias } = this.conv(name, outputs, inputs, 1);
    return { weight, bias };
  }

  /** A convolution whose stride is its kernel: a linear layer over patches in the order channel, row, column. */
  patchEmbedding(name: string, outputs: number, inputs: number, patch: number): Linear {
    const source = this.#source(`${name}.weight`, [outputs, inputs, patch, patch]);
    this.#requireUnscaled(source);
    const weight = this.#map(source.tensor, [outputs, inputs * patch * patch]);
    return { weight, bias: this.#bias(name, [0, outputs]) };
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

  /** Gives the memory of the tensors whose names begin with `prefix` back: what is used again is read again. */
  forget(prefix: string): void {
    for (const [name, source] of this.#sources) {
      if (!name.startsWith(prefix)) continue;
      for (const { tensor } of piecesOf(source))
        this.#files.get(tensor.path)?.forget([tensor.offset, tensor.bytes]);
    }
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

  #requireUnscaled(source: TensorSource): void {
    const scaled = piecesOf(source).find(({ scale }) => scale !== undefined);
    if (scaled)
      throw new KotobaError(
        'ERR_MODEL_TENSORS',
        `${this.#owner}: ${scaled.tensor.name} has an FP8 scale (${scaled.scale!.name}), expected on matrices only`,
      );
  }

  /** Nothing reads the stored tensor again. */
  #forgetWhenCopied({ path, offset, bytes }: TensorInfo): void {
    const forget = () => this.#files.get(path)?.forget([offset, bytes]);
    this.#device.native.reached().then(forget, () => undefined); // a failure is reported where it is awaited
  }

  #bias(name: string, range: Rows): Tensor | undefined {
    const source = this.#sources.get(`${name}.bias`);
    if (!source) return undefined;
    this.#source(`${name}.bias`, [Math.max(source.shape[0] ?? 0, range[1])]);
    this.#requireUnscaled(source);
    return this.#place(rowsOf(source, range));
  }

  #matrix(source: TensorSource): Pick<Linear, 'weight' | 'scale'> {
    const pieces = piecesOf(source);
    const scale = pieces.length === 1 ? source.scale && this.#float32(source.scale) : this.#rowScales(pieces);
    return { weight: this.#place(source), scale };
  }

  #place(source: TensorSource): Tensor {
    const pieces = piecesOf(source).map(({ tensor, rows }) => {
      const stored = this.#map(tensor);
      return rows ? this.#own(stored.rowRange(rows[0], rows[1])) : stored;
    });
    const whole = pieces.length === 1 ? pieces[0]! : this.#join(pieces);
    return source.transposed ? this.#own(this.#ops.transpose(whole)) : whole;
  }

  /** A copy: in the stored type where all pieces share one that is not quantised, else decoded. */
  #join(pieces: readonly Tensor[]): Tensor {
    const { dtype, shape } = pieces[0]!;
    const isShared = pieces.every((piece) => piece.dtype === dtype) && blockWeights(dtype as DType) === 1;
    const rows = pieces.reduce((sum, piece) => sum + piece.shape[0]!, 0);
    const whole = this.#own(this.#device.empty(isShared ? dtype : 'F32', [rows, ...shape.slice(1)]));
    let at = 0;
    for (const piece of pieces) {
      using part = whole.rowRange(at, (at += piece.shape[0]!));
      if (isShared) this.#ops.convWeight(part, piece, 1);
      else this.#ops.decodeInto(part, piece);
    }
    return whole;
  }

  /** [rows]: one scale for each row of joined pieces, read at once, for they are a few bytes; undefined where none has one. */
  #rowScales(pieces: readonly Piece[]): Tensor | undefined {
    if (!pieces.some(({ scale }) => scale)) return undefined;
    const scales = pieces.flatMap(({ tensor, rows, scale }) => {
      const [start, end] = rows ?? [0, tensor.shape[0]!];
      return new Array<number>(end - start).fill(scale ? readNumbers(scale)[0]! : 1);
    });
    return this.#own(this.#device.from(Float32Array.from(scales), [scales.length]));
  }

  /** A scale of any float dtype as F32 [elements]. */
  #float32(info: TensorInfo): Tensor {
    using stored = this.#map(info).reshape(info.shape.reduce((a, b) => a * b, 1));
    return this.#own(this.#ops.decode(stored));
  }

  /** @param shape of the elements, where it is not the stored one */
  #map(info: TensorInfo, shape: readonly number[] = info.shape): Tensor {
    const known = this.#mapped.get(info);
    if (known) return known;
    let file = this.#files.get(info.path);
    if (!file) {
      file = new native.File(info.path);
      this.#files.set(info.path, file);
      this.#ranges.set(info.path, []);
    }
    this.#ranges.get(info.path)!.push(info.offset, info.bytes);
    const tensor = this.#own(this.#device.weight(file, info.offset, info.dtype, shape));
    this.#mapped.set(info, tensor);
    return tensor;
  }

  #own(tensor: Tensor): Tensor {
    this.#tensors.push(tensor);
    return tensor;
  }
}
