/**
 * Image models for the benches: full-size files with random weights, made once like those of files.ts and beside them,
 * and the small trained model that ships. The prompt of the random ones is fixed, so that a vocabulary of its few
 * pieces, at the ids that every T5 has them under, gives the same tokens as the public one.
 */
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pid } from 'node:process';
import type { ImageModel } from '../src/pipeline/image_types.js';
import { shippedModel } from '../src/pipeline/shipped_model.js';
import { ggufLayout, safetensorsLayout } from './file_headers.js';
import {
  benchDirectory,
  contentsSeed,
  makeBenchFile,
  writeOnce,
  type BenchFileName,
  type FileSize,
} from './files.js';
import {
  fluxMetadata,
  fluxTensors,
  vaeTensors,
  type FluxDims,
  type FluxType,
  type VaeDims,
} from './image_layout.js';
import { makeSd1File, sd1FileNames, type Sd1FileName } from './sd1_files.js';

/** `mini`: few narrow blocks between full-size CLIP and autoencoder, which other programs take at no other size. */
export type ImageFileSize = FileSize | 'mini';

interface SetDims {
  readonly flux: FluxDims;
  readonly vae: VaeDims;
  readonly clip: FileSize;
  readonly t5: FileSize;
}

const fullVae: VaeDims = { ch: 128, multiples: [1, 2, 4, 4], blocks: 2 };

export const imageDims: Readonly<Record<ImageFileSize, SetDims>> = {
  full: {
    flux: { hidden: 3072, heads: 24, depth: 19, depthSingle: 38, context: 4096, vector: 768 },
    vae: fullVae,
    clip: 'full',
    t5: 'full',
  },
  mini: {
    flux: { hidden: 512, heads: 4, depth: 2, depthSingle: 4, context: 256, vector: 768 },
    vae: fullVae,
    clip: 'full',
    t5: 'tiny',
  },
  tiny: {
    flux: { hidden: 256, heads: 2, depth: 1, depthSingle: 2, context: 256, vector: 128 },
    vae: { ch: 32, multiples: [1, 1, 2, 2], blocks: 1 },
    clip: 'tiny',
    t5: 'tiny',
  },
};

/** Transformer and T5 of one type; CLIP-L in F16 and the autoencoder in F32, as they are published. */
const randomModels = {
  flux_q4_0: { type: 'Q4_0', t5: 't5_q4_0' },
  flux_q8_0: { type: 'Q8_0', t5: 't5_q8_0' },
  flux_q4_k: { type: 'Q4_K', t5: 't5_q4_k' },
  flux_f16: { type: 'F16', t5: 't5_f16' },
} as const satisfies Record<string, { type: FluxType; t5: BenchFileName }>;

type RandomModelName = keyof typeof randomModels;
export type ImageModelName = RandomModelName | Sd1FileName | 'small';

export const imageModelNames: readonly ImageModelName[] = [
  ...(Object.keys(randomModels) as RandomModelName[]),
  ...sd1FileNames,
  'small',
];

export interface MadeImageModel {
  readonly name: ImageModelName;
  readonly family: 'flux' | 'sd1';
  readonly model: ImageModel;
  readonly prompt: string;
  /** Pixels, unless another size is asked for. */
  readonly side: number;
}

export interface ImageFileOptions {
  /** Default 'full'; the model that ships has one size. */
  readonly size?: ImageFileSize;
  /** Default KOTOBA_BENCH_DIR. */
  readonly directory?: string;
}

/** A prompt as T5's vocabulary has it. */
const promptPieces = [
  [71, '▁A'],
  [1712, '▁cat'],
  [17915, '▁asleep'],
  [30, '▁on'],
  [3, '▁'],
  [9, 'a'],
  [1131, '▁red'],
  [3533, '▁chair'],
] as const;
const prompt = promptPieces
  .map(([, piece]) => piece)
  .join('')
  .replaceAll('▁', ' ')
  .trim();

/** Part of the names: raise it when the contents change. */
const contentsVersion = 1;

/** Makes what is missing of a model. */
export function makeImageModel(name: ImageModelName, options: ImageFileOptions = {}): MadeImageModel {
  if (name === 'small')
    return { name, family: 'flux', model: shippedModel(), prompt: 'a red circle', side: 64 };
  return isSd1(name) ? makeSd1Model(name, options) : makeFluxModel(name, options);
}

const isSd1 = (name: ImageModelName): name is Sd1FileName =>
  (sd1FileNames as readonly string[]).includes(name);

/** One checkpoint with all parts; there is no `mini` one. */
function makeSd1Model(name: Sd1FileName, { size = 'full', directory }: ImageFileOptions): MadeImageModel {
  const path = makeSd1File(name, { size: size === 'mini' ? 'tiny' : size, ...(directory && { directory }) });
  const model = { denoiser: path, vae: path, encoders: { clip_l: { path } } };
  return { name, family: 'sd1', model, prompt, side: 256 };
}

function makeFluxModel(name: RandomModelName, options: ImageFileOptions): MadeImageModel {
  const { size = 'full', directory = benchDirectory() } = options;
  const { type, t5 } = randomModels[name];
  const dims = imageDims[size];
  const fluxPath = join(directory, `${name}-${size}-v${contentsVersion}.gguf`);
  const vaePath = join(
    directory,
    `ae-${dims.vae === fullVae ? 'full' : size}-v${contentsVersion}.safetensors`,
  );
  writeOnce(fluxPath, ggufLayout(fluxTensors(dims.flux, type), fluxMetadata(type), contentsSeed));
  writeOnce(vaePath, safetensorsLayout(vaeTensors(dims.vae), contentsSeed));
  const clipL = makeBenchFile('clip_l_f16', { size: dims.clip, directory });
  const t5File = makeBenchFile(t5, { size: dims.t5, directory });
  return {
    name,
    family: 'flux',
    model: {
      denoiser: fluxPath,
      vae: vaePath,
      encoders: {
        clip_l: { path: clipL.path },
        t5: { path: t5File.path, tokenizer: makePromptVocabulary(directory) },
      },
    },
    prompt,
    side: 256,
  };
}

const specialPieces = ['<pad>', '</s>', '<unk>'] as const;
const vocabularySize = 32_100;

/** Writes a tokenizer.json that knows the prompt's pieces and no others. @returns its path */
function makePromptVocabulary(directory: string): string {
  const path = join(directory, `t5_prompt-v${contentsVersion}.tokenizer.json`);
  if (existsSync(path)) return path;
  const pieces = new Map<number, string>(promptPieces);
  const vocab = Array.from({ length: vocabularySize }, (_, id): [string, number] => {
    if (id < specialPieces.length) return [specialPieces[id]!, -0.5];
    const piece = pieces.get(id);
    return piece === undefined ? [`<unused_${id}>`, -99.5] : [piece, -1.5];
  });
  const metaspace = { type: 'Metaspace', replacement: '▁', add_prefix_space: true };
  const json = {
    version: '1.0',
    added_tokens: specialPieces.map((content, id) => ({ id, content, special: true })),
    normalizer: null,
    pre_tokenizer: metaspace,
    decoder: metaspace,
    model: { type: 'Unigram', unk_id: 2, vocab },
  };
  mkdirSync(directory, { recursive: true });
  const temporary = `${path}.${pid}.part`;
  writeFileSync(temporary, JSON.stringify(json));
  renameSync(temporary, path);
  return path;
}
