/**
 * Complete image models of networks.ts in the containers that people have: a checkpoint under the original's names,
 * one file for each part, a diffusers folder, and GGUF files.
 */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { convertModel } from '../../src/convert/convert.js';
import { openModel } from '../../src/formats/index.js';
import type { NameEntry, StoredAs } from '../../src/formats/names/scheme.js';
import { writeSafetensors } from '../../src/formats/write.js';
import type { EncoderSlot } from '../../src/pipeline/image_types.js';
import type { Device } from '../../src/runtime/device.js';
import { readT5Vocabulary } from '../../src/text/index.js';
import {
  TINY_SPIECE,
  tinyClip,
  tinyMmdit,
  tinyT5,
  tinyUnet,
  tinyVae,
  type TinyNetwork,
  type TinyTensor,
  type TinyTensors,
} from './networks.js';

export interface TinyModel {
  readonly kind: TinyKind;
  readonly denoiser: TinyNetwork;
  readonly vae: TinyNetwork;
  readonly encoders: Readonly<Partial<Record<EncoderSlot, TinyNetwork>>>;
}

export type TinyFiles = Readonly<Record<'denoiser' | 'vae', string> & Partial<Record<EncoderSlot, string>>>;

/** Widths of the states: CLIP-L and CLIP-G together leave columns of SD3's 64 free. */
export const TINY = { clip_l: 16, clip_g: 24, clip_h: 1024, t5: 64, projection: 24 } as const;

const clipL = (projection?: number): TinyNetwork =>
  tinyClip({ width: TINY.clip_l, seed: 10, ...(projection && { projection }) });
const clipG = (): TinyNetwork =>
  tinyClip({ width: TINY.clip_g, projection: TINY.projection, activation: 'gelu', seed: 20 });
const unet = (
  context: number,
  more: { vector?: number; inputs?: number; convolves?: true } = {},
): TinyNetwork => tinyUnet({ context, isMatrixProjection: !more.convolves, ...more });

const sd1 = (inputs: number) => () => ({
  denoiser: unet(TINY.clip_l, { inputs, convolves: true }),
  vae: tinyVae(4),
  encoders: { clip_l: clipL() },
});
const sd3 = (kind: 'sd3' | 'sd35_large' | 'sd35_medium') => () => ({
  denoiser: tinyMmdit({ context: TINY.t5, vector: TINY.clip_l + TINY.projection, kind }),
  vae: tinyVae(16),
  encoders: { clip_l: clipL(TINY.clip_l), clip_g: clipG(), t5: tinyT5() },
});

const MAKERS = {
  sd1: sd1(4),
  sd1_inpainting: sd1(9),
  sd2: () => ({
    denoiser: unet(TINY.clip_h),
    vae: tinyVae(4),
    encoders: { clip_h: tinyClip({ width: TINY.clip_h, activation: 'gelu', seed: 30 }) },
  }),
  sdxl: () => ({
    denoiser: unet(TINY.clip_l + TINY.clip_g, { vector: TINY.projection + 6 * 256 }),
    vae: tinyVae(4),
    encoders: { clip_l: clipL(), clip_g: clipG() },
  }),
  sdxl_refiner: () => ({
    denoiser: unet(TINY.clip_g, { vector: TINY.projection + 5 * 256 }),
    vae: tinyVae(4),
    encoders: { clip_g: clipG() },
  }),
  sd3: sd3('sd3'),
  sd35_large: sd3('sd35_large'),
  sd35_medium: sd3('sd35_medium'),
} as const satisfies Record<string, () => Omit<TinyModel, 'kind'>>;

export type TinyKind = keyof typeof MAKERS;
export const TINY_KINDS = Object.keys(MAKERS) as TinyKind[];
export const tinyModel = (kind: TinyKind): TinyModel => ({ kind, ...MAKERS[kind]() });

type Slot = 'denoiser' | 'vae' | EncoderSlot;
const partsOf = ({ denoiser, vae, encoders }: TinyModel): [Slot, TinyNetwork][] =>
  Object.entries({ denoiser, vae, ...encoders }) as [Slot, TinyNetwork][];

/** Where a checkpoint has its parts; its CLIPs under OpenAI's names where that says so. */
function placeIn(kind: TinyKind, slot: Slot): { prefix: string; isOpenAi?: true } {
  if (slot === 'denoiser') return { prefix: 'model.diffusion_model.' };
  if (slot === 'vae') return { prefix: 'first_stage_model.' };
  if (kind.startsWith('sd3'))
    return { prefix: `text_encoders.${slot === 't5' ? 't5xxl' : slot}.transformer.` };
  if (kind.startsWith('sd1')) return { prefix: 'cond_stage_model.transformer.' };
  if (kind === 'sd2') return { prefix: 'cond_stage_model.model.', isOpenAi: true };
  if (slot === 'clip_l') return { prefix: 'conditioner.embedders.0.transformer.' };
  return { prefix: `conditioner.embedders.${kind === 'sdxl' ? 1 : 0}.model.`, isOpenAi: true };
}

export interface CheckpointOptions {
  /** Parts left out. */
  readonly without?: readonly Slot[];
  /** Tensors beside the networks': `v_pred`, `ztsnr`. */
  readonly markers?: readonly string[];
  /** More of what the shapes do not tell. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/** All in one file; T5's vocabulary beside it. */
export async function writeCheckpoint(
  path: string,
  model: TinyModel,
  { without = [], markers = [], config = {} }: CheckpointOptions = {},
): Promise<string> {
  const parts = partsOf(model).filter(([slot]) => !without.includes(slot));
  const tensors = parts.flatMap(([slot, network]) => {
    const { prefix, isOpenAi } = placeIn(model.kind, slot);
    const stored = isOpenAi ? named(network.tensors, openAi(network)) : network.tensors;
    return [...stored].map(([name, tensor]) => [prefix + name, tensor] as const);
  });
  const marked = markers.map((name) => [name, { dtype: 'F32', shape: [0], data: new Uint8Array() }] as const);
  // What an activation is follows from an encoder's place.
  const told = Object.assign(
    {},
    ...parts.map(([slot, network]) => (slot === 't5' ? {} : network.config)),
  ) as object;
  const { hidden_act: _, ...all } = { ...told, ...config } as Record<string, unknown>;
  await write(path, new Map([...tensors, ...marked]), all);
  if (parts.some(([slot]) => slot === 't5')) copyFileSync(TINY_SPIECE, join(dirname(path), 'spiece.model'));
  return path;
}

/** A matrix of the projection stands turned round there. */
const openAi = ({ entries }: TinyNetwork): NameEntry[] =>
  entries.original.map((entry) =>
    entry.canonical === 'text_projection.weight'
      ? { ...entry, storedAs: [{ file: 'text_projection', transposed: true }] }
      : entry,
  );

/** One file for each part: `unet.safetensors`, `clip_l.safetensors` and so on, as ComfyUI's folders have them. */
export async function writeSplit(folder: string, model: TinyModel): Promise<TinyFiles> {
  const files = await Promise.all(
    partsOf(model).map(async ([slot, { tensors, config }]) => {
      return [slot, await write(join(folder, `${slot}.safetensors`), tensors, config)] as const;
    }),
  );
  if (model.encoders.t5) copyFileSync(TINY_SPIECE, join(folder, 'spiece.model'));
  return Object.fromEntries(files) as TinyFiles;
}

/** As `kotoba convert --extract` writes them. @param split what writeSplit() wrote */
export async function writeGgufs(folder: string, split: TinyFiles, device: Device): Promise<TinyFiles> {
  mkdirSync(folder, { recursive: true });
  const vocabulary = await readT5Vocabulary(TINY_SPIECE);
  const files: [string, string][] = [];
  for (const [slot, path] of Object.entries(split)) {
    const output = join(folder, `${slot}.gguf`);
    const extract = { extract: slot as EncoderSlot, vocabulary };
    await convertModel(device, openModel(path), output, slot === 't5' ? extract : {});
    files.push([slot, output]);
  }
  return Object.fromEntries(files) as unknown as TinyFiles;
}

const FOLDERS: Readonly<Record<EncoderSlot, (kind: TinyKind) => string>> = {
  clip_l: () => 'text_encoder',
  clip_h: () => 'text_encoder',
  clip_g: () => 'text_encoder_2', // the refiner's too
  t5: () => 'text_encoder_3',
};

/** A folder with model_index.json. */
export async function writeDiffusers(folder: string, model: TinyModel): Promise<string> {
  const isMmdit = model.kind.startsWith('sd3');
  for (const [slot, network] of partsOf(model)) {
    const isEncoder = slot !== 'denoiser' && slot !== 'vae';
    const place = isEncoder
      ? FOLDERS[slot](model.kind)
      : slot === 'vae'
        ? 'vae'
        : isMmdit
          ? 'transformer'
          : 'unet';
    const name = isEncoder ? 'model.safetensors' : 'diffusion_pytorch_model.safetensors';
    const names = isEncoder ? undefined : network.entries.diffusers;
    const tensors = names ? asMatrices(named(network.tensors, names)) : network.tensors;
    await write(join(folder, place, name), tensors);
    writeFileSync(join(folder, place, 'config.json'), JSON.stringify(network.config));
  }
  writeFileSync(join(folder, 'model_index.json'), '{}');
  if (!model.encoders.t5) return folder;
  mkdirSync(join(folder, 'tokenizer_3'), { recursive: true });
  copyFileSync(TINY_SPIECE, join(folder, 'tokenizer_3/spiece.model'));
  return folder;
}

/** One network in a file of its own, under its canonical names. */
export const writeNetwork = (path: string, { tensors, config }: TinyNetwork): Promise<string> =>
  write(path, tensors, config);

async function write(path: string, tensors: TinyTensors, config?: object): Promise<string> {
  mkdirSync(dirname(path), { recursive: true });
  await writeSafetensors(path, tensors, { format: 'pt', ...(config && { config: JSON.stringify(config) }) });
  return path;
}

/** Attention of an autoencoder is made of matrices in diffusers. */
export function asMatrices(tensors: TinyTensors): TinyTensors {
  return new Map(
    [...tensors].map(([name, tensor]) => {
      const isOne =
        /mid_block\.attentions.*(to_[qkv]|to_out\.0)\.weight$/.test(name) && tensor.shape.length === 4;
      return [name, isOne ? { ...tensor, shape: tensor.shape.slice(0, 2) } : tensor];
    }),
  );
}

/** Canonical tensors under the last of the names that the entries have for each. */
export function named(tensors: TinyTensors, entries: readonly NameEntry[]): TinyTensors {
  const stored = new Map<string, TinyTensor>();
  const thirds = new Map<string, TinyTensor[]>();
  for (const { canonical, storedAs } of entries) {
    const tensor = tensors.get(canonical);
    const way = storedAs.at(-1)!;
    if (!tensor) continue; // optional
    if (way.third === undefined) for (const [name, each] of piecesOf(tensor, way)) stored.set(name, each);
    else thirds.set(way.file, [...(thirds.get(way.file) ?? []), tensor]);
  }
  for (const [name, parts] of thirds) stored.set(name, joinedRows(parts)); // q, k and v come in order
  return stored;
}

function piecesOf(
  tensor: TinyTensor,
  { file, then = [], swapped, transposed }: StoredAs,
): [string, TinyTensor][] {
  if (transposed) return [[file, turned(tensor)]];
  if (swapped) return [[file, joinedRows(rowParts(tensor, 2).reverse())]];
  const names = [file, ...then];
  return rowParts(tensor, names.length).map((part, i) => [names[i]!, part]);
}

function rowParts({ dtype, shape, data }: TinyTensor, count: number): TinyTensor[] {
  const [height = 1, ...inner] = shape;
  const stride = data.length / count;
  return Array.from({ length: count }, (_, i) => {
    return { dtype, shape: [height / count, ...inner], data: data.subarray(i * stride, (i + 1) * stride) };
  });
}

function joinedRows(parts: readonly TinyTensor[]): TinyTensor {
  const [{ dtype, shape }] = parts as [TinyTensor];
  const height = parts.reduce((sum, part) => sum + part.shape[0]!, 0);
  return { dtype, shape: [height, ...shape.slice(1)], data: Buffer.concat(parts.map(({ data }) => data)) };
}

function turned({ dtype, shape, data }: TinyTensor): TinyTensor {
  const [rows, columns] = shape as [number, number];
  const bytes = data.length / (rows * columns);
  const out = new Uint8Array(data.length);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const from = (row * columns + column) * bytes;
      out.set(data.subarray(from, from + bytes), (column * rows + row) * bytes);
    }
  return { dtype, shape: [columns, rows], data: out };
}
