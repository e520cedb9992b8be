/**
 * What the fuzzer damages of SD1, SDXL and SD3: UNets and MMDiTs in every naming and container, and whole checkpoints,
 * made anew each time.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { convertModel } from '../../src/convert/convert.js';
import type { WrittenType } from '../../src/convert/types.js';
import { openModel } from '../../src/formats/index.js';
import { Device } from '../../src/runtime/device.js';
import { named, writeCheckpoint, writeNetwork } from '../tiny/checkpoints.js';
import { tinyClip, tinyMmdit, tinyUnet, tinyVae, type TinyNetwork } from '../tiny/networks.js';
import type { Sample } from './sample.js';

const kWidths = [32, 32] as const;
const kClipWidth = 8;

const unet = (options: Partial<Parameters<typeof tinyUnet>[0]> = {}): TinyNetwork =>
  tinyUnet({ context: kClipWidth, isMatrixProjection: false, widths: kWidths, ...options });
const sdxlUnet = (): TinyNetwork =>
  unet({ context: 2 * kClipWidth, vector: kClipWidth + 6 * 256, isMatrixProjection: true });
const mmdit = (kind: Parameters<typeof tinyMmdit>[0]['kind']): TinyNetwork =>
  tinyMmdit({ context: 24, vector: 16, kind });

/** @param dir for what is written in between */
export async function readFamilySamples(dir: string): Promise<Sample[]> {
  const one = (name: string, network: TinyNetwork): Promise<Sample> => written(dir, name, network);
  return [
    await one('sd1 unet', unet()),
    await one('sd1 unet for inpainting', unet({ inputs: 9 })),
    await one('sdxl unet', sdxlUnet()),
    await ofDiffusers(dir, 'sd1 unet of diffusers', unet()),
    await ofDiffusers(dir, 'sdxl unet of diffusers', sdxlUnet()),
    await quantised(dir, 'sdxl unet GGUF', sdxlUnet(), 'Q8_0'),
    await one('sd3 medium', mmdit('sd3')),
    await ofDiffusers(dir, 'sd3.5 medium of diffusers', mmdit('sd35_medium')),
    await quantised(dir, 'sd3.5 large GGUF', mmdit('sd35_large'), 'Q4_0'),
    ...(await checkpoints(dir)),
  ];
}

async function written(dir: string, name: string, network: TinyNetwork): Promise<Sample> {
  const path = await writeNetwork(join(dir, 'model.safetensors'), network);
  return {
    name,
    kind: 'model',
    open: 'model.safetensors',
    files: new Map([['model.safetensors', readFileSync(path)]]),
  };
}

/** Its config lies beside it there. */
async function ofDiffusers(dir: string, name: string, network: TinyNetwork): Promise<Sample> {
  const { tensors, entries, config } = network;
  const sample = await written(dir, name, {
    ...network,
    tensors: named(tensors, entries.diffusers!),
    config: {},
  });
  const beside = Buffer.from(JSON.stringify(config));
  return { ...sample, files: new Map([...sample.files, ['config.json', beside]]) };
}

/** As `kotoba convert` writes it. */
async function quantised(
  dir: string,
  name: string,
  network: TinyNetwork,
  type: WrittenType,
): Promise<Sample> {
  const source = await writeNetwork(join(dir, 'source.safetensors'), network);
  const path = join(dir, 'model.gguf');
  await using device = Device.open('cpu');
  await convertModel(device, openModel(source), path, { type });
  return { name, kind: 'model', open: 'model.gguf', files: new Map([['model.gguf', readFileSync(path)]]) };
}

/** With encoders of the real vocabulary, so that prompts are read. */
async function checkpoints(dir: string): Promise<Sample[]> {
  const clip = (options: Partial<Parameters<typeof tinyClip>[0]> = {}): TinyNetwork =>
    tinyClip({ width: kClipWidth, layers: 2, ...options });
  const encoders = { clip_l: clip(), clip_g: clip({ projection: kClipWidth, activation: 'gelu', seed: 2 }) };
  const models = [
    { kind: 'sd1', denoiser: unet(), vae: tinyVae(4), encoders: { clip_l: clip() } },
    { kind: 'sdxl', denoiser: sdxlUnet(), vae: tinyVae(4), encoders },
    { kind: 'sd3', denoiser: mmdit('sd35_large'), vae: tinyVae(16), encoders },
  ] as const;
  const samples: Sample[] = [];
  for (const model of models) {
    const path = await writeCheckpoint(join(dir, 'model.safetensors'), model);
    const files = new Map([['model.safetensors', readFileSync(path)]]);
    samples.push({
      name: `${model.kind} checkpoint`,
      kind: 'model',
      open: 'model.safetensors',
      files,
      pipeline: 'whole',
    });
  }
  return samples;
}
