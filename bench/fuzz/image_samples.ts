/**
 * What the fuzzer damages of pictures: small Flux transformers and VAEs in every naming and container, the model that
 * ships, and PNGs with texts. The small files are made anew each time, from the public name lists and our own writers.
 */
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32, deflateSync } from 'node:zlib';
import { convertModel } from '../../src/convert/convert.js';
import { openModel } from '../../src/formats/index.js';
import { writeSafetensors } from '../../src/formats/write.js';
import type { StreamedTensor } from '../../src/formats/write.js';
import { writeGguf, type GgufValue } from '../../src/formats/write_gguf.js';
import { encodePng, metadataTexts } from '../../src/image/index.js';
import { SHIPPED_T5, shippedModel } from '../../src/pipeline/shipped_model.js';
import {
  diffusersFlux,
  diffusersVae,
  filled,
  prefixed,
  publicTable,
  type StoredTensors,
  type TensorTable,
} from './diffusion_tensors.js';
import { readFamilySamples } from './family_samples.js';
import { Device } from '../../src/runtime/device.js';
import type { Sample } from './sample.js';

const kGolden = resolve(fileURLToPath(import.meta.url), '../../../test/golden/diffusion');

/** One double and two single blocks of two heads of 16. */
const kFluxSizes: Readonly<Record<number, number>> = {
  64: 16,
  128: 16,
  768: 24,
  3072: 32,
  4096: 32,
  6144: 64,
  9216: 96,
  12288: 128,
  15360: 160,
  18432: 192,
  21504: 224,
};
const kFluxConfig = {
  ...{ in_channels: 16, out_channels: 16, vec_in_dim: 24, context_in_dim: 32, hidden_size: 32, mlp_ratio: 4 },
  ...{ num_heads: 2, depth: 1, depth_single_blocks: 2, axes_dim: [4, 6, 6], theta: 10_000 },
};
/** Levels of 4, 8, 16 and 16 channels. */
const kVaeSizes: Readonly<Record<number, number>> = { 16: 4, 32: 8, 128: 4, 256: 8, 512: 16 };
const kVaeConfig = { ch: 4, ch_mult: [1, 2, 4, 4], num_res_blocks: 2, num_groups: 2 };

function shrunk(json: string, sizes: Readonly<Record<number, number>>, dtype?: string): TensorTable {
  const kept = Object.entries(publicTable(json)).filter(
    ([name]) =>
      !/(^|\.)(transformer|double)_blocks\.([1-9]|1\d)\./.test(name) &&
      !/^single_(transformer_)?blocks\.([2-9]|\d\d)\./.test(name),
  );
  return Object.fromEntries(
    kept.map(([name, [stored, shape]]) => [name, [dtype ?? stored, shape.map((n) => sizes[n] ?? n)]]),
  );
}

export async function readImageSamples(): Promise<Sample[]> {
  const dir = mkdtempSync(join(tmpdir(), 'kotoba-samples-'));
  try {
    return [
      ...(await fluxSamples(dir)),
      ...(await vaeSamples(dir)),
      ...(await readFamilySamples(dir)),
      ...shipped(),
      ...(await pictures()),
    ];
  } finally {
    rmSync(dir, { recursive: true });
  }
}

type Metadata = Readonly<Record<string, string>>;
const configured = (config: object): Metadata => ({ format: 'pt', config: JSON.stringify(config) });

/** @param beside a config.json, as diffusers keeps it */
async function safetensors(
  dir: string,
  name: string,
  tensors: StoredTensors,
  metadata: Metadata,
  beside?: object,
): Promise<Sample> {
  const path = join(dir, 'model.safetensors');
  await writeSafetensors(path, tensors, metadata);
  const files = new Map([['model.safetensors', readFileSync(path)]]);
  if (beside) files.set('config.json', Buffer.from(JSON.stringify(beside)));
  return { name, kind: 'model', open: 'model.safetensors', files };
}

async function gguf(dir: string, name: string, tensors: StoredTensors, config: object): Promise<Sample> {
  const path = join(dir, 'model.gguf');
  const metadata = new Map<string, GgufValue>([
    ['general.architecture', ['STRING', 'flux']],
    ['config', ['STRING', JSON.stringify(config)]],
  ]);
  const list = [...tensors].map(([tensor, { dtype, shape, data }]): StreamedTensor => ({
    name: tensor,
    dtype,
    shape,
    data: () => [data],
  }));
  await writeGguf(path, metadata, list);
  return { name, kind: 'model', open: 'model.gguf', files: new Map([['model.gguf', readFileSync(path)]]) };
}

async function fluxSamples(dir: string): Promise<Sample[]> {
  const schnell = filled(shrunk('flux1-schnell.json.gz', kFluxSizes, 'F32'));
  const dev = filled(shrunk('flux1-dev.json.gz', kFluxSizes));
  const split = diffusersFlux(dev, Object.keys(shrunk('flux_dev__transformer.json.gz', kFluxSizes)));
  const beside = { axes_dims_rope: [4, 6, 6], num_layers: 1, num_single_layers: 2, guidance_embeds: true };
  return [
    await safetensors(dir, 'flux schnell', schnell, configured(kFluxConfig)),
    await safetensors(
      dir,
      'flux dev in a checkpoint',
      prefixed(dev, 'model.diffusion_model.'),
      configured({ ...kFluxConfig, guidance_embed: true, max_sequence_length: 24 }),
    ),
    await safetensors(dir, 'flux dev of diffusers', split, {}, beside),
    await safetensors(dir, 'flux FP8', scaledFp8(schnell), configured(kFluxConfig)),
    await gguf(dir, 'flux F32 GGUF', schnell, kFluxConfig),
    await quantised(dir, schnell, 'Q8_0'),
    await quantised(dir, schnell, 'Q4_0'),
  ];
}

/** Matrices of random FP8, each with a scale, as ComfyUI marks them. */
function scaledFp8(tensors: StoredTensors): StoredTensors {
  const scale = new Uint8Array(Float32Array.of(0.004).buffer);
  const out: StoredTensors = new Map([
    ['scaled_fp8', { dtype: 'F8_E4M3', shape: [2], data: new Uint8Array(2) }],
  ]);
  for (const [name, tensor] of tensors) {
    if (tensor.shape.length !== 2) {
      out.set(name, tensor);
      continue;
    }
    const data = Uint8Array.from(
      { length: tensor.data.length / 4 },
      (_, i) => (tensor.data[4 * i + 1]! * 7) % 0x70,
    );
    out.set(name, { dtype: 'F8_E4M3', shape: tensor.shape, data });
    out.set(name.replace(/weight$/, 'scale_weight'), { dtype: 'F32', shape: [], data: scale });
  }
  return out;
}

/** A GGUF of a Flux, as `kotoba convert` writes it. */
async function quantised(dir: string, tensors: StoredTensors, type: 'Q8_0' | 'Q4_0'): Promise<Sample> {
  const [source, path] = [join(dir, 'source.safetensors'), join(dir, 'model.gguf')];
  await writeSafetensors(source, tensors, configured(kFluxConfig));
  await using device = Device.open('cpu');
  await convertModel(device, openModel(source), path, { type });
  const files = new Map([['model.gguf', readFileSync(path)]]);
  return { name: `flux ${type} GGUF`, kind: 'model', open: 'model.gguf', files };
}

async function vaeSamples(dir: string): Promise<Sample[]> {
  const whole = filled(shrunk('ae.json', kVaeSizes, 'F32'));
  const split = diffusersVae(whole, Object.keys(shrunk('flux__vae.json', kVaeSizes)));
  const beside = { block_out_channels: [4, 8, 16, 16], norm_num_groups: 2, scaling_factor: 0.3611 };
  const decoder: StoredTensors = new Map([...whole].filter(([name]) => name.startsWith('decoder.')));
  const sd1 = filled(shrunk('sd15__vae.json', kVaeSizes, 'F32'));
  return [
    await safetensors(
      dir,
      'vae',
      whole,
      configured({ ...kVaeConfig, scale_factor: 0.36, shift_factor: 0.1 }),
    ),
    await safetensors(dir, 'vae of diffusers', split, {}, beside),
    await safetensors(dir, 'vae with quant_conv', sd1, {}, beside),
    await safetensors(dir, 'decoder', decoder, configured(kVaeConfig)),
    await gguf(dir, 'vae GGUF', whole, kVaeConfig),
    ...['ae_tiny'].map((name): Sample => {
      const bytes = readFileSync(join(kGolden, `flux_${name}/flux_${name}.weights.safetensors`));
      return {
        name,
        kind: 'model',
        open: 'model.safetensors',
        files: new Map([['model.safetensors', bytes]]),
      };
    }),
  ];
}

/** The model that ships, each part a sample; transformer and VAE are tried in a pipeline with the other parts. */
function shipped(): Sample[] {
  const { denoiser, vae, encoders } = shippedModel();
  const file = (path: string): Sample => ({
    name: `shipped ${basename(path)}`,
    kind: 'model',
    open: basename(path),
    files: new Map([[basename(path), readFileSync(path)]]),
  });
  const folder = (path: string): Sample => ({
    name: `shipped ${basename(path)}`,
    kind: 'model',
    open: '',
    files: new Map(readdirSync(path).map((name) => [name, readFileSync(join(path, name))])),
  });
  const { path } = SHIPPED_T5['flan-t5']();
  return [
    { ...file(denoiser), pipeline: 'denoiser' },
    { ...file(vae), pipeline: 'vae' },
    folder(encoders.clip_l.path),
    folder(path),
    file(join(dirname(path), `${basename(path)}-Q4_0.gguf`)),
  ];
}

async function pictures(): Promise<Sample[]> {
  const size = { width: 24, height: 16 };
  const rgb = Uint8Array.from({ length: size.width * size.height * 3 }, (_, i) => (i * i) % 251);
  const texts = metadataTexts({
    ...{ prompt: 'a red circle, 漢字', negativePrompt: 'blur', seed: 7n, steps: 4, solver: 'euler' },
    ...{ schedule: 'flux', cfg: 1, noise: 'cpu', version: '0.1.0', sigmas: [1, 0.5, 0], ...size },
    parts: { transformer: { file: 'flux1.safetensors', precision: 'fp32' } },
  });
  const ours = Buffer.from(await encodePng({ ...size, rgb }, texts));
  const sample = (name: string, bytes: Buffer): Sample => ({
    name,
    kind: 'picture',
    open: 'picture.png',
    files: new Map([['picture.png', bytes]]),
  });
  return [
    sample('png of ours', ours),
    sample('png grey 4 bits', png([16, 8, 4, 0, 0], 8 * 9)),
    sample('png palette', png([16, 8, 8, 3, 0], 8 * 17, ['PLTE', 'tRNS'])),
    sample('png RGBA 16 bits', png([5, 7, 16, 6, 0], 7 * 41)),
    sample('png interlaced', png([9, 7, 8, 2, 1], 203)),
    sample('png with zTXt', png([3, 3, 8, 0, 0], 3 * 4, ['zTXt'])),
  ];
}

/**
 * A PNG of other programs' kinds. @param head width, height, bits, colour type, interlace
 * @param length bytes before compression
 */
function png(
  [width, height, ...rest]: readonly number[],
  length: number,
  extra: readonly string[] = [],
): Buffer {
  const [bits, colour, interlace] = rest as [number, number, number];
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width!, 0);
  header.writeUInt32BE(height!, 4);
  header.set([bits, colour, 0, 0, interlace], 8);
  const rows = Buffer.from(Array.from({ length }, (_, i) => i % 5));
  const more: Readonly<Record<string, Buffer>> = {
    PLTE: Buffer.from(Array.from({ length: 768 }, (_, i) => (i * 17) % 256)),
    tRNS: Buffer.from([0, 128, 255]),
    zTXt: Buffer.concat([
      Buffer.from('parameters\0\0'),
      deflateSync('a cat\nSteps: 4, Sampler: Euler, Seed: 1'),
    ]),
  };
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    pngChunk('IHDR', header),
    ...extra.map((type) => pngChunk(type, more[type]!)),
    pngChunk('IDAT', deflateSync(rows)),
    pngChunk('IEND', Buffer.alloc(0)),
  ]);
}

/** With its length and checksum. */
export function pngChunk(type: string, data: Uint8Array): Buffer {
  const out = Buffer.alloc(12 + data.length);
  out.writeUInt32BE(data.length, 0);
  out.write(type, 4, 'latin1');
  out.set(data, 8);
  out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length);
  return out;
}
