/** `diff` finds a fault: of a hundred files with one tensor changed, the changed one comes first. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { convertModel } from '../../src/convert/convert.js';
import { tensorDifferences } from '../../src/convert/tensor_difference.js';
import type { WrittenType } from '../../src/convert/types.js';
import { openModel, selectPart, type Part } from '../../src/formats/index.js';
import { writeSafetensors, type ArrayToWrite } from '../../src/formats/write.js';
import { Device } from '../../src/runtime/device.js';
import { writeRandomClip } from '../support/random_clip.js';

let device: Device;
let dir: string;
let clip: string;
let original: Map<string, ArrayToWrite>;
beforeAll(async () => {
  device = Device.open('cpu');
  dir = mkdtempSync(join(tmpdir(), 'kotoba-diff-'));
  clip = await writeRandomClip(join(dir, 'clip.safetensors'), { width: 64, layers: 4, vocabulary: 400 });
  const { readFileSync } = await import('node:fs');
  const bytes = readFileSync(clip);
  original = new Map(
    [...openModel(clip).tensors].map(([name, { offset, bytes: size, shape }]) => {
      const at = bytes.byteOffset + offset;
      return [name, { data: new Float32Array(bytes.buffer.slice(at, at + size) as ArrayBuffer), shape }];
    }),
  );
});
afterAll(() => {
  device.close();
  rmSync(dir, { recursive: true });
});

const CONFIG = { config: JSON.stringify({ num_attention_heads: 4, hidden_act: 'quick_gelu' }) };
const partOf = (path: string): Part => selectPart(openModel(path), { slot: 'clip_l', allowUndecided: true });

type Tensors = Map<string, ArrayToWrite>;
/** Changes one place of the tensors; @returns the names of which one has to come first */
type Fault = (tensors: Tensors, random: (below: number) => number) => readonly string[];

const FAULTS: Readonly<Record<string, Fault>> = {
  'a tensor scaled by 1.01': (tensors, random) => {
    const names = [...tensors.keys()].filter((name) => tensors.get(name)!.data.some((v) => v !== 0));
    const name = names[random(names.length)]!;
    const { data, shape } = tensors.get(name)!;
    tensors.set(name, { data: (data as Float32Array).map((v) => v * 1.01), shape });
    return [name];
  },
  'q and k exchanged': (tensors, random) => {
    const at = `text_model.encoder.layers.${random(4)}.self_attn`;
    const kind = ['weight', 'bias'][random(2)]!;
    const [q, k] = [`${at}.q_proj.${kind}`, `${at}.k_proj.${kind}`];
    const [a, b] = [tensors.get(q)!, tensors.get(k)!];
    tensors.set(q, b);
    tensors.set(k, a);
    return [q, k];
  },
};

function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

describe.each(['F32', 'F16', 'Q8_0', 'Q4_K'] as const)('against %s', (type: WrittenType) => {
  const extension = type.startsWith('Q') ? 'gguf' : 'safetensors';
  async function variant(tensors: Tensors, name: string): Promise<Part> {
    const plain = join(dir, `${name}.plain.safetensors`);
    await writeSafetensors(plain, tensors, CONFIG);
    const path = join(dir, `${name}.${extension}`);
    await convertModel(device, openModel(plain), path, { extract: 'clip_l', type });
    return partOf(path);
  }

  test('what is not changed is as far apart as the type makes it', async () => {
    const differences = await tensorDifferences(device, partOf(clip), await variant(original, 'same'));
    expect(differences.length).toBe(original.size);
    if (type === 'F32')
      for (const one of differences) expect(one).toMatchObject({ relativeL2: 0, cosine: 1, suspicion: 0 });
    else expect(Math.max(...differences.map(({ relativeL2 }) => relativeL2))).toBeGreaterThan(0);
  });

  test.each(Object.entries(FAULTS))('%s', async (_, fault) => {
    let first = 0;
    const trials = 25;
    for (let seed = 0; seed < trials; seed++) {
      const tensors = new Map(original);
      const names = fault(tensors, generator(seed + 7));
      const [worst] = await tensorDifferences(device, partOf(clip), await variant(tensors, 'faulty'));
      if (names.includes(worst!.name)) first++;
    }
    expect(first / trials).toBeGreaterThanOrEqual(0.95);
  });
});

/** The nearest F8_E4M3 of a value of at most 448. */
function e4m3(value: number): number {
  const magnitude = Math.abs(value);
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), -6);
  const code = Math.round((magnitude / 2 ** exponent) * 8) + (exponent + 6) * 8;
  return (value < 0 ? 0x80 : 0) | code;
}

test('a dropped FP8 scale', async () => {
  let first = 0;
  const trials = 25;
  const matrices = [...original.keys()].filter(
    (name) => name.includes('layers') && original.get(name)!.shape.length === 2,
  );
  // E4M3 with a scale, as ComfyUI writes it: every value rounded to 3 bits, by way of F16.
  const scaled = new Map<string, ArrayToWrite>();
  const dropped = (lost: string | undefined): Tensors => {
    const tensors = new Map(scaled);
    if (lost)
      tensors.set(lost.replace(/weight$/, 'scale_weight'), { data: new Float32Array([1]), shape: [] });
    return tensors;
  };
  for (const [name, { data, shape }] of original) {
    if (!matrices.includes(name)) {
      scaled.set(name, { data, shape });
      continue;
    }
    const scale = Math.max(...(data as Float32Array).map(Math.abs)) / 448;
    const bytes = Uint8Array.from(data as Float32Array, (v) => e4m3(v / scale));
    scaled.set(name, { data: bytes, dtype: 'F8_E4M3', shape });
    scaled.set(name.replace(/weight$/, 'scale_weight'), { data: new Float32Array([scale]), shape: [] });
  }
  scaled.set('scaled_fp8', { data: new Uint8Array([0]), dtype: 'F8_E4M3', shape: [1] });
  for (let trial = 0; trial < trials; trial++) {
    const lost = matrices[trial % matrices.length]!;
    const path = join(dir, 'fp8.safetensors');
    await writeSafetensors(path, dropped(lost), CONFIG);
    const [worst] = await tensorDifferences(device, partOf(clip), partOf(path));
    if (worst!.name === lost) first++;
  }
  expect(first / trials).toBeGreaterThanOrEqual(0.95);
});
