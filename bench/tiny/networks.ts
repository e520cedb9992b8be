/**
 * Networks of every image family, small and with random weights, under their canonical names: UNets, MMDiTs, their
 * autoencoders and text encoders. Shapes follow from a few sizes; values keep activations finite and pictures within range.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DType } from '../../src/formats/index.js';
import { openAiClipEntries } from '../../src/formats/names/clip.js';
import { mmditEntries } from '../../src/formats/names/mmdit.js';
import type { NameEntry } from '../../src/formats/names/scheme.js';
import { unetEntries, type UnetLayout } from '../../src/formats/names/unet.js';
import { vaeEntries } from '../../src/formats/names/vae.js';
import { openModel } from '../../src/formats/index.js';
import { unetShapes } from '../../src/formats/unet_shapes.js';
import { vaeTensors } from '../image_layout.js';
import { hashName, Random } from '../random_weights.js';

export interface TinyTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}
export type TinyTensors = ReadonlyMap<string, TinyTensor>;

export interface TinyNetwork {
  /** by canonical name */
  readonly tensors: TinyTensors;
  /** what the shapes do not tell, in the keys of Hugging Face and diffusers */
  readonly config: Readonly<Record<string, unknown>>;
  /** under the names of the original, and of diffusers where those differ */
  readonly entries: { readonly original: readonly NameEntry[]; readonly diffusers?: readonly NameEntry[] };
}

const ENCODERS = resolve(fileURLToPath(import.meta.url), '../../../test/golden/encoders');

type Shapes = ReadonlyMap<string, readonly number[]>;

/** N(0, 1) */
function normal(count: number, seed: number): Float32Array {
  const random = new Random(seed);
  return Float32Array.from({ length: count }, () => random.normal());
}

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function randomTensor(name: string, shape: readonly number[], seed: number): TinyTensor {
  const isNorm = shape.length === 1 && name.endsWith('weight');
  const isTable = /embedding|pos_embed/.test(name) && !name.includes('linear');
  const fanIn = product(shape.slice(1));
  // The last convolution of a decoder: most pixels then lie inside −1 … 1.
  const gain = name === 'decoder.conv_out.weight' ? 0.5 : 1;
  const deviation = isNorm ? 0.1 : shape.length === 1 ? 0.02 : isTable ? 0.05 : gain / Math.sqrt(fanIn);
  const values = normal(product(shape), hashName(name, seed)).map(
    (value) => (isNorm ? 1 : 0) + deviation * value,
  );
  return { dtype: 'F32', shape, data: new Uint8Array(values.buffer) };
}

const randomTensors = (shapes: Shapes, seed: number): TinyTensors =>
  new Map([...shapes].map(([name, shape]) => [name, randomTensor(name, shape, seed)]));

export interface TinyUnet {
  /** 9: inpainting */
  readonly inputs?: number;
  /** width of the tokens attended to */
  readonly context: number;
  /** width of the vector; none: 0 */
  readonly vector?: number;
  /** as SD2 and SDXL have them; SD1's are convolutions */
  readonly isMatrixProjection: boolean;
  /** channels of its levels, multiples of 32 */
  readonly widths?: readonly number[];
  /** residual blocks of a level on the way down */
  readonly blocks?: number;
  readonly seed?: number;
}

export function tinyUnet({
  inputs = 4,
  context,
  vector = 0,
  isMatrixProjection,
  widths = [32, 64],
  blocks = 1,
  seed = 1,
}: TinyUnet): TinyNetwork {
  // SDXL has no attention at its finest level.
  const depths = widths.map((_, level) => (vector === 0 ? 1 : level === 0 ? 0 : 2));
  const layout: UnetLayout = {
    down: depths.map((depth) => new Array<number>(blocks).fill(depth)),
    middle: depths.at(-1)!,
    up: depths.map((depth) => new Array<number>(blocks + 1).fill(depth)).reverse(),
    hasVector: vector > 0,
  };
  const sizes = {
    inputs,
    outputs: 4,
    model: 32,
    time: 128,
    vector,
    context,
    isMatrixProjection,
    widths,
  };
  return {
    tensors: randomTensors(unetShapes(layout, sizes), seed),
    config: { num_head_channels: 16 },
    entries: { original: unetEntries(layout, 'ldm'), diffusers: unetEntries(layout, 'diffusers') },
  };
}

export interface TinyMmdit {
  readonly context: number;
  readonly vector: number;
  /** SD3 Medium has neither, SD3.5 Large a norm of queries and keys, SD3.5 Medium a second attention too */
  readonly kind: 'sd3' | 'sd35_large' | 'sd35_medium';
  readonly seed?: number;
}

const MMDIT_SIDE = 16;

/** Two blocks of width 64. */
export function tinyMmdit({ context, vector, kind, seed = 1 }: TinyMmdit): TinyNetwork {
  const [depth, hidden, hasQkNorm] = [2, 64, kind !== 'sd3'];
  const layout = { depth, hasQkNorm, dual: kind === 'sd35_medium' ? [0] : [] };
  const entries = mmditEntries(layout, 'original');
  const shapeOf = (name: string): readonly number[] => {
    if (name === 'pos_embed') return [1, MMDIT_SIDE ** 2, hidden];
    if (name.includes('.ln_')) return [hidden / 2]; // two heads
    if (name === 'x_embedder.proj.weight') return [hidden, 16, 2, 2];
    const [outputs, inputs] = linearOf(name.replace(/\.(weight|bias)$/, ''));
    return name.endsWith('.bias') ? [outputs] : [outputs, inputs];
  };
  const linearOf = (module: string): readonly [number, number] => {
    if (module === 'context_embedder') return [hidden, context];
    if (module === 't_embedder.mlp.0') return [hidden, 256];
    if (module === 'y_embedder.mlp.0') return [hidden, vector];
    if (module === 'final_layer.linear') return [64, hidden];
    if (module.startsWith('final_layer.ada')) return [2 * hidden, hidden];
    if (module.endsWith('.adaLN_modulation.1')) {
      if (module.startsWith(`joint_blocks.${depth - 1}.context`)) return [2 * hidden, hidden];
      const isDual = layout.dual.some((i) => module.startsWith(`joint_blocks.${i}.x_block`));
      return [(isDual ? 9 : 6) * hidden, hidden];
    }
    if (module.endsWith('.qkv')) return [3 * hidden, hidden];
    if (module.endsWith('.fc1')) return [4 * hidden, hidden];
    return [hidden, module.endsWith('.fc2') ? 4 * hidden : hidden];
  };
  const shapes = new Map(entries.map(({ canonical }) => [canonical, shapeOf(canonical)]));
  return {
    tensors: randomTensors(shapes, seed),
    config: {},
    entries: { original: entries, diffusers: mmditEntries(layout, 'diffusers') },
  };
}

const VAE = { ch: 8, multiples: [1, 2, 2, 2], blocks: 1 } as const;

/** Factor 8. @param latents 4: SD1, SD2 and SDXL, with convolutions around them; 16: SD3 and Flux, without */
export function tinyVae(latents: 4 | 16, seed = 1): TinyNetwork {
  const hasQuantConv = latents === 4;
  const layout = { latentChannels: latents, type: 'F32', ...(hasQuantConv && { latentGain: 1 }) } as const;
  const shapes = new Map(vaeTensors(VAE, layout).map(({ name, shape }) => [name, shape]));
  const names = { halves: ['encoder', 'decoder'], levels: 4, blocks: VAE.blocks, hasQuantConv } as const;
  const config = { num_groups: 4, norm_num_groups: 4 };
  return {
    tensors: randomTensors(shapes, seed),
    config,
    entries: { original: vaeEntries(names, 'ldm'), diffusers: vaeEntries(names, 'diffusers') },
  };
}

export interface TinyClip {
  readonly width: number;
  readonly layers?: number;
  readonly positions?: number;
  readonly projection?: number;
  readonly activation?: 'gelu' | 'quick_gelu';
  /** rows of the embedding; default: the real 49408 */
  readonly vocabulary?: number;
  readonly seed?: number;
}

/** From a width of 1024 on in FP8, as it would take 200 MB otherwise. */
export function tinyClip(options: TinyClip): TinyNetwork {
  const { width, layers = 2, positions = 77, projection } = options;
  const { activation = 'quick_gelu', vocabulary = 49408, seed = 1 } = options;
  const inner = Math.min(4 * width, 128);
  const shapes = new Map<string, readonly number[]>();
  const put = (name: string, shape: readonly [number, number]) => {
    shapes.set(`${name}.weight`, shape);
    shapes.set(`${name}.bias`, [shape[0]]);
  };
  const norm = (name: string) =>
    [`${name}.weight`, `${name}.bias`].forEach((each) => shapes.set(each, [width]));
  shapes.set('text_model.embeddings.token_embedding.weight', [vocabulary, width]);
  shapes.set('text_model.embeddings.position_embedding.weight', [positions, width]);
  for (let i = 0; i < layers; i++) {
    const at = `text_model.encoder.layers.${i}`;
    for (const name of ['q_proj', 'k_proj', 'v_proj', 'out_proj'])
      put(`${at}.self_attn.${name}`, [width, width]);
    for (const name of ['layer_norm1', 'layer_norm2']) norm(`${at}.${name}`);
    put(`${at}.mlp.fc1`, [inner, width]);
    put(`${at}.mlp.fc2`, [width, inner]);
  }
  norm('text_model.final_layer_norm');
  if (projection !== undefined) shapes.set('text_projection.weight', [projection, width]);
  const heads = width < 1024 && { num_attention_heads: 2 };
  const tensors = [...shapes].map(([name, shape]) => {
    const isLarge = width >= 1024 && shape.length === 2 && shape[0]! > positions;
    return [name, isLarge ? smallFp8(shape, hashName(name, seed)) : randomTensor(name, shape, seed)] as const;
  });
  return {
    tensors: new Map(tensors),
    config: { ...heads, hidden_act: activation },
    entries: { original: openAiClipEntries(layers) },
  };
}

/** Values up to 1/16 either way, from a repeated piece: FP8 has but 256 of them. */
function smallFp8(shape: readonly number[], seed: number): TinyTensor {
  const piece = Uint8Array.from(
    normal(65537, seed),
    (value) => (value < 0 ? 0x80 : 0) | (Math.abs(value * 16) % 0x18),
  );
  const data = new Uint8Array(product(shape));
  for (let at = 0; at < data.length; at += piece.length)
    data.set(piece.subarray(0, Math.min(piece.length, data.length - at)), at);
  return { dtype: 'F8_E4M3', shape, data };
}

/** golden/encoders/t5_tiny, width 64; its vocabulary is that of TINY_SPIECE. */
export function tinyT5(): TinyNetwork {
  const path = join(ENCODERS, 't5_tiny/model.safetensors');
  const bytes = readFileSync(path);
  const tensors = [...openModel(path).tensors].map(([name, { dtype, shape, offset, bytes: length }]) => {
    return [name, { dtype, shape, data: bytes.subarray(offset, offset + length) }] as const;
  });
  const config = JSON.parse(readFileSync(join(ENCODERS, 't5_tiny/config.json'), 'utf8')) as Record<
    string,
    unknown
  >;
  return { tensors: new Map(tensors), config, entries: { original: [] } };
}

export const TINY_SPIECE = join(ENCODERS, 't5_tiny_gguf/spiece.model');
/** The same T5 as a GGUF that carries its vocabulary. */
export const TINY_T5_GGUF = join(ENCODERS, 't5_tiny_gguf/model.f32.gguf');
