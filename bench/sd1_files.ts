/**
 * Stable Diffusion 1 checkpoints for the benches: of full size with random weights, made once like the files of
 * files.ts and beside them.
 */
import { join } from 'node:path';
import { safetensorsLayout } from './file_headers.js';
import { benchDirectory, contentsSeed, writeOnce, type FileOptions, type FileSize } from './files.js';
import { sd1Tensors, type Sd1Dims, type Sd1Type } from './sd1_layout.js';

export const sd1Dims: Readonly<Record<FileSize, Sd1Dims>> = {
  full: {
    unet: { model: 320, multiples: [1, 2, 4, 4], blocks: 2, attending: 3, context: 768 },
    vae: { ch: 128, multiples: [1, 2, 4, 4], blocks: 2 },
    clip: { hidden: 768, intermediate: 3072, layers: 12 },
  },
  tiny: {
    unet: { model: 32, multiples: [1, 2], blocks: 1, attending: 1, context: 128 },
    vae: { ch: 32, multiples: [1, 1, 2, 2], blocks: 1 },
    clip: { hidden: 128, intermediate: 512, layers: 2 },
  },
};

const types = { sd1_f16: 'F16', sd1_f32: 'F32' } as const satisfies Record<string, Sd1Type>;
export type Sd1FileName = keyof typeof types;
export const sd1FileNames = Object.keys(types) as Sd1FileName[];

/** Of widths that no public model has, heads and activation must be told. */
const tinyConfig = JSON.stringify({
  num_attention_heads: 2,
  hidden_act: 'quick_gelu',
  num_head_channels: 16,
});

/** Part of the names: raise it when the contents change. */
const contentsVersion = 1;

/** Makes one unless it is there. @returns its path */
export function makeSd1File(name: Sd1FileName, options: FileOptions = {}): string {
  const { size = 'full', directory = benchDirectory() } = options;
  const path = join(directory, `${name}-${size}-v${contentsVersion}.safetensors`);
  const metadata = size === 'tiny' ? { config: tinyConfig } : {};
  writeOnce(path, safetensorsLayout(sd1Tensors(sd1Dims[size], types[name]), contentsSeed, metadata));
  return path;
}
