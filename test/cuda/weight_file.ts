/** Weights in a file of their own, as tests of the GPU's memory need them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { native, type NativeFile } from '../../bindings/native.js';
import type { Device } from '../../src/runtime/device.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { normal } from '../support/reference.js';

/** `count` F32 matrices [size, size], one after the other. */
export class WeightFile implements Disposable {
  readonly path: string;
  readonly bytes: number;
  readonly #dir = mkdtempSync(join(tmpdir(), 'kotoba-residency-'));
  readonly #count: number;
  readonly #size: number;
  #mapped: NativeFile | undefined;

  constructor(count: number, size: number, seed = 1) {
    this.path = join(this.#dir, 'weights');
    this.#count = count;
    this.#size = size;
    this.bytes = 4 * size * size;
    writeFileSync(
      this.path,
      normal(count * size * size, seed).map((v) => v / Math.sqrt(size)),
    );
  }

  get mapped(): NativeFile {
    return (this.#mapped ??= new native.File(this.path));
  }

  adopt(device: Device): Tensor[] {
    return Array.from({ length: this.#count }, (_, i) =>
      device.weight(this.mapped, i * this.bytes, 'F32', [this.#size, this.#size]),
    );
  }

  [Symbol.dispose](): void {
    this.#mapped?.dispose();
    rmSync(this.#dir, { recursive: true });
  }
}
