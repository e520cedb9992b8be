import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gguf } from '@huggingface/gguf';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ggufLayout, safetensorsLayout, type FileLayout } from '../../bench/file_headers.js';
import {
  benchFileNames,
  benchFiles,
  makeBenchFile,
  writeLayout,
  type BenchFileName,
} from '../../bench/files.js';
import type { PlannedTensor } from '../../bench/model_layout.js';

const golden = new URL('../golden/names/', import.meta.url);

interface GoldenNames {
  readonly tensors: Record<string, [type: string, shape: number[]]>;
  readonly published_bytes?: number;
  readonly data_bytes: number;
  readonly metadata?: Record<string, unknown>;
}

const namesOf = (file: string): GoldenNames =>
  JSON.parse(readFileSync(new URL(file, golden), 'utf8')) as GoldenNames;

const planned = (layout: FileLayout) =>
  layout.tensors.map(({ tensor }) => [tensor.name, [tensor.type, tensor.shape]]);

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'kotoba-bench-test-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe('full-size layouts are those of the public files', () => {
  test.each<[BenchFileName, string]>([
    ['clip_l_f16', 'clip_l.json'],
    ['clip_g_f16', 'clip_g.json'],
    ['t5_q8_0', 'city96_t5-v1_1-xxl-encoder-Q8_0.json'],
    ['t5_f16', 'city96_t5-v1_1-xxl-encoder-f16.json'],
    ['t5_f16_safetensors', 't5xxl_fp16.json'],
  ])('%s has the tensors, order and bytes of %s', (name, file) => {
    const expected = namesOf(file);
    const layout = benchFiles[name].layout('full');
    expect(planned(layout)).toEqual(Object.entries(expected.tensors));
    expect(layout.totalBytes - layout.header.length).toBe(expected.data_bytes);
  });

  test.each<[BenchFileName, string]>([
    ['clip_l_f16', 'clip_l.json'],
    ['clip_g_f16', 'clip_g.json'],
  ])('%s is as long as the published file', (name, file) => {
    expect(benchFiles[name].layout('full').totalBytes).toBe(namesOf(file).published_bytes);
  });
});

describe('tiny files', () => {
  test.each(benchFileNames)('%s: written whole, once, and the same each time', (name) => {
    const first = makeBenchFile(name, { size: 'tiny', directory });
    expect(first.written).toBe(true);
    expect(statSync(first.path).size).toBe(first.bytes);
    expect(makeBenchFile(name, { size: 'tiny', directory })).toEqual({ ...first, written: false });
    const again = makeBenchFile(name, { size: 'tiny', directory: join(directory, 'again') });
    expect(readFileSync(again.path).equals(readFileSync(first.path))).toBe(true);
    expect(readdirSync(directory).filter((file) => file.endsWith('.part'))).toEqual([]);
  });

  test('an independent GGUF reader finds the metadata and every tensor where it lies', async () => {
    const { path } = makeBenchFile('t5_q4_k', { size: 'tiny', directory });
    const layout = benchFiles.t5_q4_k.layout('tiny');
    const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
    expect(metadata['general.architecture']).toBe('t5encoder');
    expect(Object.keys(namesOf('city96_t5-v1_1-xxl-encoder-Q8_0.json').metadata!)).toEqual(
      expect.arrayContaining(Object.keys(metadata).filter((key) => key.startsWith('t5encoder.'))),
    );
    const found = tensorInfos.map(({ name, shape, offset }) => [
      name,
      shape.map(Number).reverse(),
      Number(tensorDataOffset + offset),
    ]);
    expect(found).toEqual(layout.tensors.map(({ tensor, offset }) => [tensor.name, tensor.shape, offset]));
  });

  test('the safetensors header says where every tensor lies', () => {
    const { path } = makeBenchFile('clip_g_f16', { size: 'tiny', directory });
    const { tensors } = benchFiles.clip_g_f16.layout('tiny');
    const file = readFileSync(path);
    const length = Number(file.readBigUInt64LE(0));
    const header = JSON.parse(file.subarray(8, 8 + length).toString()) as Record<
      string,
      { data_offsets: [number, number] }
    >;
    for (const { tensor, offset, bytes } of tensors)
      expect(header[tensor.name]!.data_offsets.map((at) => at + 8 + length)).toEqual([
        offset,
        offset + bytes,
      ]);
  });

  test('the embedding stored twice is the same embedding', () => {
    const { path } = makeBenchFile('t5_f16_safetensors', { size: 'tiny', directory });
    const file = readFileSync(path);
    const { tensors } = benchFiles.t5_f16_safetensors.layout('tiny');
    const bytesOf = (name: string) => {
      const { offset, bytes } = tensors.find(({ tensor }) => tensor.name === name)!;
      return file.subarray(offset, offset + bytes);
    };
    expect(bytesOf('shared.weight').equals(bytesOf('encoder.embed_tokens.weight'))).toBe(true);
    expect(bytesOf('encoder.block.0.layer.0.SelfAttention.k.weight').subarray(0, 4096)).not.toEqual(
      bytesOf('encoder.block.1.layer.0.SelfAttention.k.weight').subarray(0, 4096),
    );
  });
});

describe('tensors of odd sizes', () => {
  const values = { mean: 0, std: 1 };
  const odd: PlannedTensor[] = [
    { name: 'three', shape: [3], type: 'F32', values },
    { name: 'five', shape: [5, 1], type: 'F16', values },
    { name: 'block', shape: [1, 32], type: 'Q8_0', values },
  ];

  test('GGUF aligns each to 32 bytes and fills the gaps with zeros', async () => {
    const path = join(directory, 'odd.gguf');
    const layout = ggufLayout(odd, { 'general.architecture': 'none', count: 3, fraction: 0.5 }, 1);
    writeLayout(path, layout);
    const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
    expect(metadata).toMatchObject({ 'general.architecture': 'none', count: 3, fraction: 0.5 });
    expect(tensorInfos.map(({ offset }) => Number(offset))).toEqual([0, 32, 64]);
    expect(layout.tensors.map(({ offset }) => offset - Number(tensorDataOffset))).toEqual([0, 32, 64]);
    const data = readFileSync(path).subarray(Number(tensorDataOffset));
    expect(data.length).toBe(128);
    expect(
      [...data.subarray(12, 32), ...data.subarray(42, 64), ...data.subarray(98)].every((b) => b === 0),
    ).toBe(true);
    expect([0, 32, 64].map((at) => data[at] !== 0 || data[at + 1] !== 0)).toEqual([true, true, true]);
  });

  test('safetensors leaves no gaps, and rows must be whole blocks', () => {
    const layout = safetensorsLayout(odd.slice(0, 2), 1);
    expect(layout.totalBytes - layout.header.length).toBe(22);
    expect(() => safetensorsLayout([{ name: 'short', shape: [2, 31], type: 'Q8_0', values }], 1)).toThrow(
      RangeError,
    );
  });
});
