/** `kotoba diff` end to end: equal is exactly 0, a fault comes first and is named, what does not fit is an error. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { openModel } from '../../src/formats/index.js';
import { writeSafetensors, type ArrayToWrite } from '../../src/formats/write.js';
import { decodePng } from '../../src/image/index.js';
import { golden } from '../support/golden.js';
import { writeRandomClip } from '../support/random_clip.js';
import { run, temporaryFolder } from './run.js';

const dir = temporaryFolder();
const T5 = golden('encoders/t5_tiny_gguf/model.f32.gguf'); // has its vocabulary
const FP8 = golden('encoders/t5_tiny_containers/model.fp8_e4m3fn.safetensors');
const OVERFLOW = golden('encoders/t5_overflow_tiny/model.safetensors');
const SPIECE = golden('encoders/t5_tiny_gguf/spiece.model');
let clip: string;
let tensors: Map<string, ArrayToWrite>;
beforeAll(async () => {
  clip = await writeRandomClip(dir.join('clip.safetensors'), { width: 64, layers: 3 });
  const bytes = readFileSync(clip);
  tensors = new Map(
    [...openModel(clip).tensors].map(([name, { offset, bytes: size, shape }]) => {
      const at = bytes.byteOffset + offset;
      return [name, { data: new Float32Array(bytes.buffer.slice(at, at + size) as ArrayBuffer), shape }];
    }),
  );
});

/** The CLIP with some tensors changed. */
async function changed(name: string, changes: Record<string, Float32Array>): Promise<string> {
  const all = new Map(tensors);
  for (const [key, data] of Object.entries(changes)) all.set(key, { ...all.get(key)!, data });
  const path = dir.join(`${name}.safetensors`);
  const config = JSON.stringify({ num_attention_heads: 4, hidden_act: 'quick_gelu' });
  await writeSafetensors(path, all, { config });
  return path;
}

const data = (name: string): Float32Array => tensors.get(name)!.data as Float32Array;

interface Report {
  slot: string;
  equal: boolean;
  worstRelativeL2: number | null;
  findings: string[];
  tensors: { name: string; relativeL2: number; looksLike: string | null; nonFinite: number[] }[];
  onlyInA: string[];
  onlyInB: string[];
  layersSkipped: string | null;
  prompts: {
    prompt: string;
    tokens: number;
    layers: { layer: number; relativeL2: number | null; worstCosine: number; largest: (number | null)[] }[];
  }[];
}

async function diff(...args: string[]): Promise<Report> {
  const { code, json, stderr } = await run(['diff', ...args, '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return json() as Report;
}

describe('equal files', () => {
  test.each(['itself', 'another container and other names'])('%s: exactly 0 everywhere', async (what) => {
    const other = what === 'itself' ? T5 : golden('encoders/t5_tiny/model.safetensors');
    const report = await diff(T5, other);
    expect(report).toMatchObject({ equal: true, worstRelativeL2: 0, onlyInA: [], onlyInB: [], slot: 't5' });
    expect(report.tensors.every(({ relativeL2, looksLike }) => relativeL2 === 0 && looksLike === null)).toBe(
      true,
    );
    expect(report.prompts).toHaveLength(4);
    for (const { layers } of report.prompts)
      expect(layers.map(({ relativeL2, worstCosine }) => [relativeL2, worstCosine])).toEqual(
        Array.from({ length: 4 }, () => [0, 1]),
      );
    const { stdout } = await run(['diff', T5, other]);
    expect(stdout).toContain('equal: all 30 tensors have the same values');
    expect(stdout).toContain('layers: 0 to 3 equal on 4 prompts');
  });
});

describe('a fault', () => {
  const Q = 'text_model.encoder.layers.1.self_attn.q_proj.weight';
  const K = 'text_model.encoder.layers.1.self_attn.k_proj.weight';
  const FC2 = 'text_model.encoder.layers.2.mlp.fc2.weight';

  test('a tensor × 1.01 is first, and the words say so', async () => {
    const report = await diff(clip, await changed('scaled', { [Q]: data(Q).map((v) => v * 1.01) }));
    expect(report.tensors[0]).toMatchObject({ name: Q, looksLike: 'all values × 1.01' });
    expect(report.tensors.slice(1).every(({ relativeL2 }) => relativeL2 === 0)).toBe(true);
    const [first] = report.prompts;
    expect(first!.layers.map(({ relativeL2 }) => relativeL2! > 0)).toEqual([false, false, true, true]);
  });

  test('q and k exchanged', async () => {
    const { stdout } = await run(['diff', clip, await changed('exchanged', { [Q]: data(K), [K]: data(Q) })]);
    expect(stdout).toMatch(/q_proj\.weight .*exchanged with k_proj\.weight\?/);
    expect(stdout).toMatch(/k_proj\.weight .*exchanged with q_proj\.weight\?/);
  });

  test('a lost scale', async () => {
    const { tensors: found } = await diff(
      clip,
      await changed('lost', { [FC2]: data(FC2).map((v) => v * 448) }),
    );
    expect(found[0]).toMatchObject({ name: FC2 });
    expect(found[0]!.looksLike).toMatch(/all values × 448: a scale lost/);
  });

  test('the sign turned, zeros, other values', async () => {
    const zero = new Float32Array(data(Q).length);
    const report = await diff(
      clip,
      await changed('three', { [Q]: zero, [FC2]: data(FC2).map((v) => -v), [K]: data(K).toReversed() }),
    );
    const looks = new Map(report.tensors.map(({ name, looksLike }) => [name, looksLike]));
    expect([Q, FC2, K].map((name) => looks.get(name))).toEqual([
      'all zero in B',
      'the sign turned',
      'other values altogether',
    ]);
  });

  test('NaN: the tensor is first, the layer from which on nothing is finite is named, and it never passes', async () => {
    const path = await changed('nan', { [FC2]: data(FC2).map((v, i) => (i === 5 ? NaN : v)) });
    const report = await diff(clip, path);
    expect(report.tensors[0]).toMatchObject({
      name: FC2,
      looksLike: '1 values not finite in B',
      nonFinite: [0, 1],
    });
    expect(report.findings).toContain('B: not finite from layer 3 on');
    expect(report).toMatchObject({ equal: false, worstRelativeL2: null });
    expect((await run(['diff', clip, path, '--fail-above', '1e9'])).code).toBe(1);
  });
});

describe('types', () => {
  test('FP8 without a scale: every tensor rounded, none of them accused', async () => {
    const report = await diff(T5, FP8);
    expect(report.tensors.filter(({ looksLike }) => looksLike !== null)).toEqual([]);
    expect(Math.max(...report.tensors.map(({ relativeL2 }) => relativeL2))).toBeLessThan(0.04);
    const [first] = report.prompts;
    expect(first!.layers.map(({ relativeL2 }) => relativeL2! > 0.005)).toEqual([true, true, true, true]);
  });

  test.each(['Q8_0', 'Q4_K'])('%s, as convert writes it', async (type) => {
    const path = dir.join(`t5-${type}.gguf`);
    const made = await run(['convert', T5, path, '--extract', 't5', '--type', type]);
    expect(made.stderr).toBe('');
    const report = await diff(T5, path, '--prompt', 'a sparrow');
    expect(report.prompts.map(({ prompt }) => prompt)).toEqual(['a sparrow']);
    const worst = report.worstRelativeL2!;
    expect(worst).toBeGreaterThan(type === 'Q8_0' ? 0.003 : 0.03);
    expect(worst).toBeLessThan(type === 'Q8_0' ? 0.05 : 0.5);
  });

  test("states beyond F16's limit are told with their layer", async () => {
    const path = await withRows(OVERFLOW, 600);
    const { code, stdout } = await run(['diff', path, path, '--t5-tokenizer', SPIECE]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/A: beyond F16's limit 65504 from layer 2 on, at most 1\d{5}/);
  });

  /** The embedding's rows again and again, for a vocabulary of more. */
  async function withRows(source: string, rows: number): Promise<string> {
    const bytes = readFileSync(source);
    const all = [...openModel(source).tensors].map(([name, { offset, bytes: size, shape, dtype }]) => {
      const stored = Uint8Array.from(bytes.subarray(offset, offset + size));
      if (name !== 'shared.weight') return [name, { data: stored, dtype, shape }] as const;
      const more = new Uint8Array((size / shape[0]!) * rows);
      for (let at = 0; at < more.length; at += size)
        more.set(stored.subarray(0, Math.min(size, more.length - at)), at);
      return [name, { data: more, dtype, shape: [rows, shape[1]!] }] as const;
    });
    const path = dir.join('rows.safetensors');
    await writeSafetensors(path, new Map<string, ArrayToWrite>(all), {});
    return path;
  }
});

describe('what is written', () => {
  test('--plot: HTML with nothing to load, and a PNG', async () => {
    const html = dir.join('plot.html');
    expect((await run(['diff', T5, FP8, '--plot', html])).code).toBe(0);
    const text = readFileSync(html, 'utf8');
    expect(text).toMatch(/^<!doctype html>[^]*<svg[^]*<polyline[^]*<\/svg>/);
    expect(text.replaceAll('http://www.w3.org/2000/svg', '')).not.toMatch(/https?:|<script|src=/);
    const png = dir.join('plot.png');
    expect((await run(['diff', T5, FP8, '--plot', png])).code).toBe(0);
    const picture = await decodePng(readFileSync(png), png);
    expect(picture.width).toBe(1100);
    expect(new Set(picture.rgb).size).toBeGreaterThan(20);
  });

  test('--fail-above decides the exit code, and nothing else does', async () => {
    expect((await run(['diff', T5, FP8])).code).toBe(0);
    expect((await run(['diff', T5, FP8, '--fail-above', '0.001'])).code).toBe(1);
    expect((await run(['diff', T5, FP8, '--fail-above', '0.9'])).code).toBe(0);
    expect((await run(['diff', T5, T5, '--fail-above', '0'])).code).toBe(0);
  });

  test('without a vocabulary the tensors are compared and the rest is told; --prompt makes it an error', async () => {
    const path = golden('encoders/t5_tiny/model.safetensors');
    const report = await diff(path, FP8);
    expect(report.layersSkipped).toMatch(/vocabulary/);
    expect(report.prompts).toEqual([]);
    expect((await run(['diff', path, FP8, '--prompt', 'x'])).stderr).toMatch(/ERR_TOKENIZER_MISSING/);
    expect((await diff(T5, FP8, '--no-layers')).layersSkipped).toBeNull();
  });
});

test('tensors that one file alone has, and networks that were trained apart', async () => {
  const [l, checkpoint] = ['clip_l_hf', 'sdxl_checkpoint'].map((name) =>
    golden(`encoders/clip_naming/${name}.safetensors`),
  );
  const config = '{"num_attention_heads": 2, "hidden_act": "quick_gelu"}';
  const report = await diff(l!, checkpoint!, '--config', config);
  expect(report).toMatchObject({ equal: false, onlyInA: ['text_projection.weight'], onlyInB: [] });
  expect(report.tensors.every(({ relativeL2 }) => relativeL2 === 0)).toBe(true);
  const { stdout } = await run(['diff', l!, checkpoint!, '--config', config]);
  expect(stdout).toMatch(/36 tensors equal\n\nonly in A: text_projection\.weight/);
  const other = await writeRandomClip(dir.join('other.safetensors'), { width: 64, layers: 3, seed: 9 });
  expect((await diff(clip, other)).findings[0]).toMatch(/nothing in common/);
});

describe('what does not fit', () => {
  test.each([
    ['ERR_MODEL_SLOT', /one network in common.*slot t5.*slot clip_l/, () => [T5, clip]],
    [
      'ERR_MODEL_SLOT',
      /one shape.*is \[49408, 64\] in the first/,
      () => [clip, dir.join('wide.safetensors')],
    ],
    ['ERR_MODEL_SLOT', /has 3 layers, the second 2/, () => [clip, dir.join('shallow.safetensors')]],
    ['ERR_FILE_NOT_FOUND', /nowhere/, () => [clip, './nowhere.safetensors']],
    ['ERR_ARGUMENT', /--plot: expected a \.html or \.png/, () => [T5, FP8, '--plot', dir.join('x.svg')]],
    [
      'ERR_FILE_EXISTS',
      /is an input too/,
      () => [T5, dir.join('input.png'), '--plot', dir.join('input.png')],
    ],
    ['ERR_ARGUMENT', /--slot/, () => [sdxl(), sdxl()]],
    ['ERR_TOKEN_ID', /not this encoder's/, () => [OVERFLOW, OVERFLOW, '--t5-tokenizer', SPIECE]],
  ] as const)('%s %s', async (code, text, args) => {
    const { stderr } = await run(['diff', ...args(), ...(code === 'ERR_TOKEN_ID' ? ['--prompt', 'x'] : [])]);
    expect(stderr).toContain(code);
    expect(stderr).toMatch(text);
    expect(existsSync(dir.join('x.svg'))).toBe(false);
  });

  beforeAll(async () => {
    await writeRandomClip(dir.join('wide.safetensors'), { width: 80, layers: 3 });
    await writeRandomClip(dir.join('shallow.safetensors'), { width: 64, layers: 2 });
    writeFileSync(dir.join('input.png'), readFileSync(FP8));
  });

  const sdxl = (): string => golden('encoders/clip_naming/sdxl_checkpoint.safetensors');
});
