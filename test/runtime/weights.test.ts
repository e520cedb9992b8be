/** Canonical weights on a device: slices and joins of what is stored, with biases and FP8 scales; convolutions. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openModel, selectPart, type TensorInfo, type TensorSource } from '../../src/formats/index.js';
import { writeSafetensors, type ArrayToWrite } from '../../src/formats/write.js';
import { Device } from '../../src/runtime/device.js';
import { Ops, type Linear } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { Weights } from '../../src/runtime/weights.js';
import { FLUX_CONFIG, diffusersFlux, filled, tinyFlux, writeModel } from '../formats/diffusion_files.js';

let dir: string;
let device: Device;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'kotoba-weights-'));
  device = Device.open('cpu', { threads: 1 });
});
afterAll(() => {
  device.close();
  rmSync(dir, { recursive: true });
});

async function values(tensor: Tensor): Promise<number[]> {
  using out = new Ops(device, 'fp32').decode(tensor);
  return [...(await out.read())];
}

/** [weight · scale, bias] as the op sees them. */
async function effective({ weight, bias, scale }: Linear): Promise<[number[], number[]]> {
  const scales = scale ? await values(scale) : [1];
  const [rows, columns] = weight.shape as [number, number];
  const scaleOf = (row: number): number => scales[scales.length === rows ? row : 0]!;
  const scaled = (await values(weight)).map((v, i) => v * scaleOf(Math.floor(i / columns)));
  return [scaled, bias ? await values(bias) : []];
}

describe('a Flux whose matrices are stored fused, and one whose are split', () => {
  const original = filled(tinyFlux('flux1-dev.json.gz'));
  const names = Object.keys(tinyFlux('flux_dev__transformer.json.gz'));
  let fused: Weights;
  let split: Weights;
  beforeAll(async () => {
    const load = async (name: string, tensors: typeof original): Promise<Weights> => {
      const part = selectPart(await writeModel(dir, name, tensors, FLUX_CONFIG));
      return new Weights(device, part.tensors, name);
    };
    fused = await load('fused.safetensors', original);
    split = await load('split.safetensors', diffusersFlux(original, names));
  });
  afterAll(() => [fused, split].forEach((weights) => weights[Symbol.dispose]()));

  const bf16 = (name: string): number[] =>
    Array.from(
      new Uint16Array(original.get(name)!.data.buffer),
      (bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!,
    );

  test.each([
    ['double_blocks.1.img_attn.qkv', 0, 96],
    ['double_blocks.1.txt_attn.qkv', 192, 288],
    ['single_blocks.2.linear1', 96, 192],
    ['single_blocks.2.linear1', 288, 672],
    ['single_blocks.0.linear1', 90, 300],
    ['double_blocks.0.img_attn.qkv', 0, 288],
  ])('%s rows %i to %i', async (name, start, end) => {
    const weight = bf16(`${name}.weight`).slice(start * 96, end * 96);
    const bias = bf16(`${name}.bias`).slice(start, end);
    for (const weights of [fused, split]) {
      const linear = weights.linearRows(name, [start, end], 96);
      expect(linear.weight).toMatchObject({ dtype: 'BF16', shape: [end - start, 96] });
      expect(await effective(linear)).toEqual([weight, bias]);
    }
  });

  test('whole matrices, joined and with halves swapped back', async () => {
    for (const name of ['final_layer.adaLN_modulation.1', 'single_blocks.1.linear1', 'img_in']) {
      const [rows, columns] = original.get(`${name}.weight`)!.shape as [number, number];
      for (const weights of [fused, split]) {
        const linear = weights.linear(name, rows, columns);
        expect(linear.weight.dtype).toBe('BF16');
        expect(await effective(linear)).toEqual([bf16(`${name}.weight`), bf16(`${name}.bias`)]);
      }
    }
  });

  test('rows that are not there, or of another width', () => {
    expect(() => fused.linearRows('img_in', [90, 97], 16)).toThrow(
      /expected img_in.weight \[97, 16\], got \[96, 16\]/,
    );
    expect(() => split.linearRows('single_blocks.0.linear1', [0, 96], 95)).toThrow(/expected .* \[672, 95\]/);
    expect(() => split.linearRows('nothing', [0, 96], 95)).toThrow(/nothing.weight is missing/);
  });
});

/** Sources made by hand from the tensors of one small file. */
async function handMade(
  tensors: Record<string, ArrayToWrite>,
  sources: (info: (name: string) => TensorInfo) => Record<string, TensorSource>,
): Promise<Weights> {
  const path = join(dir, `${Math.random()}.safetensors`);
  await writeSafetensors(path, new Map(Object.entries(tensors)));
  const model = openModel(path);
  const made = sources((name) => model.tensors.get(name)!);
  return new Weights(device, new Map(Object.entries(made)), path);
}

test('pieces of scaled FP8 keep their type and get a scale a row', async () => {
  const fp8 = { data: Uint8Array.of(0x38, 0x40, 0x44, 0x48), dtype: 'F8_E4M3', shape: [2, 2] } as const; // 1 2 3 4
  const scale = (value: number): ArrayToWrite => ({ data: Float32Array.of(value), shape: [] });
  using weights = await handMade({ q: fp8, k: fp8, v: fp8, qs: scale(2), ks: scale(0.5) }, (info) => ({
    'qkv.weight': {
      tensor: info('q'),
      scale: info('qs'),
      append: [{ tensor: info('k'), scale: info('ks') }, { tensor: info('v') }],
      shape: [6, 2],
    },
  }));
  const whole = weights.linear('qkv', 6, 2);
  expect(whole.weight.dtype).toBe('F8_E4M3');
  expect((await effective(whole))[0]).toEqual([2, 4, 6, 8, 0.5, 1, 1.5, 2, 1, 2, 3, 4]);
  expect((await effective(weights.linearRows('qkv', [1, 3], 2)))[0]).toEqual([6, 8, 0.5, 1]);
  expect((await effective(weights.linearRows('qkv', [2, 4], 2)))[0]).toEqual([0.5, 1, 1.5, 2]);
  expect(() => weights.tensor('qkv.weight', [6, 2])).toThrow(/FP8 scale/);
});

describe('conv', () => {
  /** out[o, (ky, kx, c)] = stored[o, c, ky, kx] */
  const reordered = (stored: readonly number[], outputs: number, inputs: number, taps: number): number[] =>
    Array.from({ length: stored.length }, (_, i) => {
      const [o, at] = [Math.floor(i / (taps * inputs)), i % (taps * inputs)];
      return stored[o * taps * inputs + (at % inputs) * taps + Math.floor(at / inputs)]!;
    }).slice(0, outputs * inputs * taps);

  const counting = (n: number): number[] => Array.from({ length: n }, (_, i) => i % 100);

  test.each(['F32', 'F16', 'BF16'] as const)('3×3 in %s is used in place', async (dtype) => {
    const numbers = counting(4 * 5 * 9);
    const word = new Float32Array(1);
    const bits = (value: number): number => {
      word[0] = value;
      const f32 = new Uint32Array(word.buffer)[0]!;
      const exponent = ((f32 >>> 23) & 0xff) - 127 + 15;
      return dtype === 'BF16' ? f32 >>> 16 : value === 0 ? 0 : (exponent << 10) | ((f32 >>> 13) & 0x3ff);
    };
    const data =
      dtype === 'F32' ? Float32Array.from(numbers) : new Uint8Array(Uint16Array.from(numbers, bits).buffer);
    const bias = { data: Float32Array.of(1, 2, 3, 4), shape: [4] };
    using weights = await handMade({ w: { data, dtype, shape: [4, 5, 3, 3] }, b: bias }, (info) => ({
      'c.weight': { tensor: info('w'), shape: [4, 5, 3, 3] },
      'c.bias': { tensor: info('b'), shape: [4] },
    }));
    const conv = weights.conv('c', 4, 5, 3);
    expect(conv.weight).toMatchObject({ dtype, shape: [4, 5, 3, 3] });
    expect(await values(conv.weight)).toEqual(numbers);
    expect(await values(conv.bias!)).toEqual([1, 2, 3, 4]);
  });

  test('1×1 is used in place, stored as a matrix or not', async () => {
    const data = Float32Array.from(counting(12));
    for (const shape of [
      [3, 4, 1, 1],
      [3, 4],
    ]) {
      using weights = await handMade({ w: { data, shape } }, (info) => ({
        'c.weight': { tensor: info('w'), shape: [3, 4, 1, 1] },
      }));
      const conv = weights.conv('c', 3, 4, 1);
      expect(conv).toMatchObject({ kernel: 1, bias: undefined, weight: { dtype: 'F32', shape: [3, 4] } });
      expect(await values(conv.weight)).toEqual([...data]);
    }
  });

  test('quantised and flattened, as ComfyUI-GGUF writes it', async () => {
    const block = Buffer.alloc(34 * 9);
    for (let b = 0; b < 9; b++) {
      block.writeUInt16LE(0x3c00, b * 34);
      for (let i = 0; i < 32; i++) block.writeInt8((b * 32 + i) % 100, b * 34 + 2 + i);
    }
    using weights = await handMade({ w: { data: block, dtype: 'U8', shape: [34 * 9] } }, (info) => ({
      'c.weight': { tensor: { ...info('w'), dtype: 'Q8_0', shape: [1, 32, 3, 3] }, shape: [1, 32, 3, 3] },
    }));
    const conv = weights.conv('c', 1, 32, 3);
    expect(conv.weight).toMatchObject({ dtype: 'F32', shape: [1, 288] });
    expect(await values(conv.weight)).toEqual(reordered(counting(288), 1, 32, 9));
  });
});
