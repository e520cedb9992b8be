/** Golden tensors as numbers: F64 and I64 too, which the readers of the library leave as bytes. */
import { golden, readGolden, type GoldenTensor } from '../support/golden.js';
import { readFileSync } from 'node:fs';

export interface Numbers {
  readonly shape: readonly number[];
  readonly values: Float64Array;
  row(i: number): Float64Array;
}

function numbers({ info, shape, data }: GoldenTensor): Numbers {
  const typed =
    info.dtype === 'F64'
      ? new Float64Array(data.buffer as ArrayBuffer)
      : info.dtype === 'I64'
        ? Array.from(new BigInt64Array(data.buffer as ArrayBuffer), Number)
        : data;
  const values = Float64Array.from(typed);
  const width = shape.at(-1) ?? 1;
  return { shape, values, row: (i) => values.subarray(i * width, (i + 1) * width) };
}

export class GoldenNumbers {
  readonly #tensors: Map<string, GoldenTensor>;

  constructor(name: string) {
    this.#tensors = readGolden(name);
  }

  get names(): string[] {
    return [...this.#tensors.keys()];
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  get(name: string): Numbers {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new Error(`no golden tensor ${name}`);
    return numbers(tensor);
  }
}

export const goldenJson = (name: string): unknown => JSON.parse(readFileSync(golden(name), 'utf8'));
