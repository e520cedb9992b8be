/** Independent readers agree on every name, shape, dtype and offset: npm `safetensors`, `@huggingface/gguf`. */
import { GGMLQuantizationType, gguf } from '@huggingface/gguf';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { SafeTensor } from 'safetensors/dist/safetensors.es.js';
import { describe, expect, test } from 'vitest';
import { openModel } from '../../src/formats/index.js';
import { goldenPath } from '../support/golden.js';

const root = goldenPath('encoders')!;
const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
  (name) => /\.(safetensors|gguf)$/.test(name) && !/-of-/.test(name),
);

/** The oracle takes every entry for a tensor; blanks in its place keep all offsets. */
function withoutMetadata(bytes: Buffer): Uint8Array {
  const length = Number(bytes.readBigUInt64LE());
  const { __metadata__: _, ...tensors } = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<
    string,
    unknown
  >;
  const copy = Uint8Array.from(bytes);
  copy.set(Buffer.from(JSON.stringify(tensors).padEnd(length)).subarray(0, length), 8);
  return copy;
}

describe('safetensors', () => {
  test.each(files.filter((name) => name.endsWith('.safetensors')))('%s', (name) => {
    const oracle = new SafeTensor(withoutMetadata(readFileSync(join(root, name))));
    const expected = [...oracle.metadata].map(([key, { dtype, shape, data_offsets }]) => [
      key,
      dtype,
      shape,
      ...data_offsets,
    ]);
    const found = [...openModel(join(root, name)).tensors.values()].map(
      ({ name: key, dtype, shape, offset, bytes: length }) => [key, dtype, shape, offset, offset + length],
    );
    expect(found.sort()).toEqual(expected.sort());
  });
});

describe('GGUF', () => {
  test.each(files.filter((name) => name.endsWith('.gguf')))('%s', async (name) => {
    const path = join(root, name);
    const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
    const model = openModel(path);
    const expected = tensorInfos.map(({ name: key, dtype, shape, offset }) => [
      key,
      GGMLQuantizationType[dtype],
      shape.map(Number).reverse(),
      Number(offset + tensorDataOffset),
    ]);
    expect(
      [...model.tensors.values()].map(({ name: key, dtype, shape, offset }) => [key, dtype, shape, offset]),
    ).toEqual(expected);
    for (const [key, value] of model.metadata) {
      const plain = ArrayBuffer.isView(value) ? [...(value as Uint8Array)] : value;
      const theirs: unknown = (metadata as Record<string, unknown>)[key];
      expect(typeof theirs === 'bigint' ? Number(theirs) : theirs, key).toEqual(plain);
    }
  });
});
