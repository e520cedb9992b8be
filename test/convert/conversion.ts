/** A folder to convert into, and files compared by the values of their networks. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { convertModel, type ConvertOptions, type Converted } from '../../src/convert/convert.js';
import { openModel, selectPart, type Part, type Slot, type TensorSource } from '../../src/formats/index.js';
import { Device } from '../../src/runtime/device.js';
import { TensorStream } from '../../src/runtime/tensor_stream.js';
import type { StoredTensors } from '../formats/diffusion_files.js';
import { golden } from '../support/golden.js';
import { relativeL2 } from '../support/reference.js';

export const part = (path: string, slot: Slot): Part =>
  selectPart(openModel(path), { slot, allowUndecided: true });
export const naming = (file: string): string => golden(`encoders/clip_naming/${file}.safetensors`);
export const shipped = (file: string): string => join(import.meta.dirname, '../../models/kotoba-small', file);

/** Every tensor of a file as it is stored. */
export function stored(path: string): StoredTensors {
  const file = readFileSync(path);
  return new Map(
    [...openModel(path).tensors].map(([name, { dtype, shape, offset, bytes }]) => [
      name,
      { dtype, shape, data: new Uint8Array(file.subarray(offset, offset + bytes)) },
    ]),
  );
}

export interface Conversion {
  readonly dir: string;
  /** A path in a folder that each test has for itself. */
  out(name: string): string;
  convert(input: string, output: string, options?: ConvertOptions): Promise<Converted>;
  /** The bytes of a tensor in F32, or of an integer type in its own. */
  bytes(source: TensorSource): Promise<Buffer>;
  /** Every canonical tensor of both, in F32; 0: bit for bit. */
  expectSame(a: Part, b: Part, tolerance?: number): Promise<void>;
}

export function conversion(): Conversion {
  let device: Device;
  let dir: string;
  beforeAll(() => (device = Device.open('cpu')));
  afterAll(() => device.close());
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'kotoba-convert-'))));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const read = async (stream: TensorStream, source: TensorSource): Promise<Buffer> => {
    const parts: Uint8Array[] = [];
    const type = /^[IU]\d/.test(source.tensor.dtype) ? source.tensor.dtype : 'F32';
    for await (const piece of stream.bytes(source, type)) parts.push(piece);
    return Buffer.concat(parts);
  };
  const bytes = async (source: TensorSource): Promise<Buffer> => {
    using stream = new TensorStream(device);
    return await read(stream, source); // not disposed before
  };
  const values = async (stream: TensorStream, source: TensorSource): Promise<Float32Array> => {
    const all = await read(stream, source);
    return new Float32Array(all.buffer.slice(all.byteOffset, all.byteOffset + all.length));
  };
  const expectSame = async (a: Part, b: Part, tolerance = 0): Promise<void> => {
    // A checkpoint may leave out the projection.
    const other = [...b.tensors.keys()].filter(
      (name) => a.tensors.has(name) || name !== 'text_projection.weight',
    );
    expect([...a.tensors.keys()].sort()).toEqual(other.sort());
    using stream = new TensorStream(device);
    for (const [name, source] of a.tensors) {
      const [left, right] = [await values(stream, source), await values(stream, b.tensors.get(name)!)];
      expect(source.shape, name).toEqual(b.tensors.get(name)!.shape);
      if (tolerance === 0)
        expect(Buffer.from(left.buffer).equals(Buffer.from(right.buffer)), name).toBe(true);
      else expect(relativeL2(left, right), name).toBeLessThanOrEqual(tolerance);
    }
  };
  return {
    get dir() {
      return dir;
    },
    out: (name) => join(dir, name),
    convert: async (input, output, options) => convertModel(device, openModel(input), output, options),
    bytes,
    expectSame,
  };
}
