/** Every public file of golden/names, rebuilt as a header-only sparse file at full size, is named and counted right. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { identify, leftovers, openModel, selectPart } from '../../src/formats/index.js';
import type { Part } from '../../src/formats/index.js';
import { goldenPath } from '../support/golden.js';
import { ggufHeader, safetensorsHeader, writeSparse } from './model_bytes.js';
import type { GgufValue, TensorTable } from './model_bytes.js';

interface NamesEntry {
  readonly json: string;
}

interface NamesFile {
  readonly container: 'safetensors' | 'gguf' | 'sharded' | 'pt';
  readonly file: string;
  readonly tensors: TensorTable;
  readonly read: Readonly<Record<string, { tensors: number; bytes: number }>>;
  readonly safetensors_header?: { metadata: unknown; json_spaces: boolean; padded_to_8: boolean };
  readonly metadata?: Readonly<Record<string, unknown>>;
  readonly weight_map?: Readonly<Record<string, string>>;
}

const folder = goldenPath('names')!;
const entries = JSON.parse(readFileSync(join(folder, 'index.json'), 'utf8')) as NamesEntry[];

function load(json: string): NamesFile {
  const bytes = readFileSync(join(folder, json));
  return JSON.parse((json.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString()) as NamesFile;
}

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kotoba-names-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** "array[string] x32128 (…)" stands for a real array in the public file. */
function ggufMetadata(metadata: Readonly<Record<string, unknown>>): Record<string, GgufValue> {
  return Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, ggufValue(value)]));
}

function ggufValue(value: unknown): GgufValue {
  const array = typeof value === 'string' ? /^array\[(\w+)\] x(\d+)/.exec(value) : null;
  if (array !== null) {
    const type = array[1]!.toUpperCase() as GgufValue[0];
    const item = (i: number): unknown => (type === 'STRING' ? `▁piece${i}` : i % 100);
    return ['ARRAY', [type, Array.from({ length: Number(array[2]) }, (_, i) => item(i))]];
  }
  if (typeof value === 'boolean') return ['BOOL', value];
  if (typeof value === 'number') return Number.isInteger(value) ? ['U32', value] : ['F32', value];
  return ['STRING', value];
}

/** Pickles are refused, so their tensors are written as safetensors, which is how people convert them. */
function build(entry: NamesFile): string {
  const style = {
    metadata: entry.safetensors_header?.metadata,
    spaces: entry.safetensors_header?.json_spaces ?? false,
    padded: entry.safetensors_header?.padded_to_8 ?? true,
  };
  if (entry.weight_map !== undefined) return buildShards(entry.tensors, entry.weight_map, style);
  const path = join(dir, entry.container === 'gguf' ? 'model.gguf' : 'model.safetensors');
  const isGguf = entry.container === 'gguf';
  writeSparse(
    path,
    isGguf
      ? ggufHeader(entry.tensors, ggufMetadata(entry.metadata!))
      : safetensorsHeader(entry.tensors, style),
  );
  return path;
}

function buildShards(tensors: TensorTable, map: Readonly<Record<string, string>>, style: object): string {
  const renamed = Object.fromEntries(
    Object.entries(map).map(([name, file]) => [
      name,
      file.replace(/\.bin$/, '.safetensors').replace('pytorch_model', 'model'),
    ]),
  );
  for (const shard of new Set(Object.values(renamed))) {
    const own = Object.entries(tensors).filter(([name]) => renamed[name] === shard);
    writeSparse(join(dir, shard), safetensorsHeader(Object.fromEntries(own), style));
  }
  const first = Object.values(renamed)[0]!;
  const path = join(dir, first.replace(/-\d+-of-\d+\.safetensors$/, '.safetensors.index.json'));
  writeFileSync(path, JSON.stringify({ metadata: {}, weight_map: renamed }));
  return path;
}

/** golden's slot names → ours */
function expectedPart(slot: string): Partial<Part> {
  if (slot.startsWith('clip_b')) return { slot: 'clip_b' };
  if (slot === 't5xxl') return { slot: 't5' };
  if (slot === 'diffusion_sd15') return { slot: 'unet', family: 'sd1' };
  if (slot === 'diffusion_sdxl') return { slot: 'unet', family: 'sdxl' };
  if (slot.startsWith('diffusion_'))
    return { slot: 'transformer', family: slot.slice('diffusion_'.length) as 'flux' | 'sd3' };
  return { slot: slot as 'vae' };
}

const kNamings: Readonly<Record<string, string>> = {
  'clip_l.json': 'Hugging Face names',
  'openclip_bigG.json.gz': 'OpenAI / open_clip names',
  'longclip-L.json': 'OpenAI / open_clip names',
  'city96_t5-v1_1-xxl-encoder-Q8_0.json': 'llama.cpp names',
  't5xxl_fp16.json': 'Hugging Face names',
};

describe('golden/names', () => {
  test('the corpus is complete', () => expect(entries.length).toBe(74));

  test.each(entries.map(({ json }) => json))('%s', (json) => {
    const entry = load(json);
    const path = build(entry);
    const started = performance.now();
    const model = openModel(path);
    const parts = identify(model);
    expect(performance.now() - started, 'milliseconds to open and identify').toBeLessThan(2000);
    expect(model.tensors.size).toBe(Object.keys(entry.tensors).length);
    const slots = new Map(
      Object.entries(entry.read).map(([slot, read]) => [expectedPart(slot).slot, { slot, read }]),
    );
    expect(new Set(parts.map(({ slot }) => slot))).toEqual(new Set(slots.keys()));
    for (const part of parts) {
      const { slot, read } = slots.get(part.slot)!;
      expect(part).toMatchObject(expectedPart(slot));
      expect({ tensors: part.tensorCount, bytes: part.bytesRead }, part.description).toEqual(read);
      expect(part).toMatchObject({ missing: [], unexpected: [], wrong: [], undecided: [], notes: [] });
      expect(selectPart(model, { slot: part.slot })).toEqual(part);
    }
    const read = new Set(parts.flatMap(({ tensors }) => [...tensors.values()].map(({ tensor }) => tensor)));
    expect(read.size).toBeGreaterThan(0);
    expect(leftovers(model, parts).map(({ reason }) => reason)).not.toContain('not known');
    if (kNamings[json] !== undefined) expect(parts[0]!.naming).toBe(kNamings[json]);
  });

  test('every shard of a set finds its siblings, and a missing one is named', () => {
    const path = build(load('google_flan-t5-xxl_safetensors.json.gz'));
    const shard = (i: number): string => join(dir, `model-0000${i}-of-00005.safetensors`);
    for (const from of [dir, shard(1), shard(4)]) {
      const [part] = identify(openModel(from));
      expect(part).toMatchObject({ slot: 't5', tensorCount: 219, bytesRead: 19_049_242_624, missing: [] });
    }
    rmSync(shard(3));
    for (const from of [path, shard(1)])
      expect(() => openModel(from)).toThrow(
        expect.objectContaining({
          code: 'ERR_SHARDS',
          message: expect.stringContaining(basename(shard(3))) as string,
        }),
      );
  });

  test('a diffusers folder is one model of several networks', () => {
    const folders = {
      text_encoder: 'sdxl__text_encoder.json',
      text_encoder_2: 'sdxl__text_encoder_2.json',
      unet: 'sdxl__unet.json.gz',
      vae: 'sdxl__vae.json',
    };
    const root = dir;
    for (const [name, json] of Object.entries(folders)) {
      dir = join(root, name);
      mkdirSync(dir);
      build(load(json));
    }
    dir = root;
    writeFileSync(join(root, 'model_index.json'), '{"_class_name": "StableDiffusionXLPipeline"}');
    const parts = identify(openModel(root));
    expect(parts.map(({ slot, family, prefix }) => [slot, family, prefix]).sort()).toEqual([
      ['clip_g', 'clip', 'text_encoder_2/'],
      ['clip_l', 'clip', 'text_encoder/'],
      ['unet', 'sdxl', 'unet/'],
      ['vae', 'sdxl', 'vae/'],
    ]);
    expect(dirname(parts.find(({ slot }) => slot === 'unet')!.path)).toBe(join(root, 'unet'));
  });
});

describe('what each file is, in words', () => {
  test.each([
    ['clip_l.json', 'CLIP-L text encoder, Hugging Face names, without projection, F16'],
    [
      'openai_ViT-B-32.json',
      'CLIP-B/32 text encoder, OpenAI / open_clip names, with projection, F32 and F16',
    ],
    ['openai_clip_vit_base_patch16.json', 'CLIP-B/16 text encoder, Hugging Face names, with projection, F32'],
    [
      'longclip-L.json',
      'Long-CLIP-L (248 tokens) text encoder, OpenAI / open_clip names, with projection, F32',
    ],
    [
      't5xxl_fp8_e4m3fn_scaled.json',
      'T5-XXL (v1.1 or Flan) encoder, Hugging Face names, F8_E4M3 with scales and F16',
    ],
    [
      'flan-t5-xxl_full-Q4_K_M.json',
      'T5-XXL (v1.1 or Flan) encoder of a full encoder-decoder, llama.cpp names, Q4_K, Q6_K and F32',
    ],
    [
      'flux1-schnell.json.gz',
      'Flux.1 schnell transformer (19 double and 38 single blocks), Black Forest Labs names, BF16',
    ],
    [
      'flux_dev__transformer.json.gz',
      'Flux.1 dev transformer (19 double and 38 single blocks), diffusers names, BF16',
    ],
    [
      'sd35_medium__transformer.json.gz',
      'SD3.5 Medium transformer (MMDiT, 24 blocks of width 1536), diffusers names, BF16',
    ],
    ['sd15__unet.json.gz', 'SD1 UNet, diffusers names, F32'],
    ['ae.json', 'Flux / SD3 VAE (16 latent channels), Stability AI names, F32'],
  ])('%s', (json, description) => {
    expect(identify(openModel(build(load(json))))[0]!.description).toBe(description);
  });
});
