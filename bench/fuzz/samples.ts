/** The whole files that the fuzzer damages: encoders of each container and naming from test/golden, and image_samples.ts. */
import { readFileSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { memorySource, parseGguf, parseSafetensors, type ParsedFile } from '../../src/formats/index.js';
import { readImageSamples } from './image_samples.js';
import type { Sample } from './sample.js';
import { readT5Vocabulary } from '../../src/text/find_tokenizer.js';
import type { UnigramVocabulary } from '../../src/text/unigram_vocabulary.js';

const kGolden = resolve(fileURLToPath(import.meta.url), '../../../test/golden/encoders');

const kClip = { num_attention_heads: 2, hidden_act: 'quick_gelu' };

/** folder/file or folder → config; `beside` copies the folder's own config.json next to the weights. */
const kModels: readonly (readonly [path: string, extra: { config?: object; beside?: true }])[] = [
  ['clip_naming/clip_l_hf.safetensors', { config: kClip }],
  ['clip_naming/clip_l_openai.safetensors', { config: kClip }],
  ['clip_naming/clip_g_openclip.safetensors', { config: kClip }],
  ['clip_naming/sd1_checkpoint.safetensors', { config: kClip }],
  ['clip_naming/sd2_style_checkpoint.safetensors', { config: kClip }],
  ['clip_naming/sdxl_checkpoint.safetensors', { config: kClip }],
  ['clip_naming/sd3_checkpoint.safetensors', { config: kClip }],
  ['long_clip_tiny/openai_naming_res.safetensors', { beside: true }],
  ['t5_overflow_tiny/model.safetensors', { beside: true }],
  ['t5_tiny_containers/model.fp16.safetensors', {}],
  ['t5_tiny_containers/model.fp8_e4m3fn.safetensors', {}],
  ['t5_tiny_containers/model.fp8_scaled_legacy.safetensors', {}],
  ['t5_tiny_containers/model.fp8_scaled_comfy_quant.safetensors', {}],
  ['t5_tiny_containers/sharded', {}],
  ['t5_tiny_gguf/model.f16.gguf', {}],
  ['t5_tiny_gguf/model.f32.gguf', {}],
  ['t5_quant_gguf/model.q4_k.gguf', {}],
];

export const SAMPLE_SETS = ['all', 'encoders', 'images'] as const;
export type SampleSet = (typeof SAMPLE_SETS)[number];

export async function readSamples(set: SampleSet): Promise<Sample[]> {
  return [
    ...(set === 'images' ? [] : await readEncoderSamples()),
    ...(set === 'encoders' ? [] : await readImageSamples()),
  ];
}

async function readEncoderSamples(): Promise<Sample[]> {
  const models = kModels.map(([path, { config, beside }]): Sample => {
    const [folder, name] = path.split('/') as [string, string];
    const isFolder = !name.includes('.');
    const dir = join(kGolden, folder, isFolder ? name : '');
    const names = isFolder ? readdirSync(dir) : [name, ...(beside ? ['config.json'] : [])];
    const files = new Map(names.map((file) => [file, readFileSync(join(dir, file))]));
    const common = { name: path, kind: 'model', open: isFolder ? '' : name, files } as const;
    return config ? { ...common, config: config as Record<string, unknown> } : common;
  });
  const spiece = join(kGolden, 't5_tiny_gguf/spiece.model');
  const json = tokenizerJson(await readT5Vocabulary(spiece));
  const tokenizer = (name: string, bytes: Buffer): Sample => ({
    name,
    kind: 'tokenizer',
    open: name,
    files: new Map([[name, bytes]]),
  });
  return [
    ...models,
    tokenizer('spiece.model', readFileSync(spiece)),
    tokenizer('tokenizer.json', Buffer.from(json)),
  ];
}

/** The same vocabulary as Hugging Face writes it. */
export function tokenizerJson(vocabulary: UnigramVocabulary): string {
  const { pieces, scores, kinds, unknownId, specials, normalizer } = vocabulary;
  const charsmap = normalizer.charsmap && Buffer.from(normalizer.charsmap).toString('base64');
  const controls = pieces.flatMap((content, id) => (kinds[id] === 'control' ? [{ id, content }] : []));
  return JSON.stringify({
    added_tokens: [...controls, ...[...specials].map(([content, id]) => ({ id, content }))],
    normalizer: { type: 'Precompiled', precompiled_charsmap: charsmap },
    pre_tokenizer: { type: 'Metaspace', replacement: '▁' },
    model: { type: 'Unigram', unk_id: unknownId, vocab: pieces.map((piece, id) => [piece, scores[id]]) },
  });
}

/** Bytes before the first tensor: the part of a file that has structure. What is no model is all structure. */
export function headerBytes(bytes: Buffer, name: string): number {
  if (!/\.(safetensors|gguf)$/.test(name)) return bytes.length;
  const { tensors } = parse(bytes);
  return Math.min(...[...tensors.values()].map(({ offset }) => offset));
}

export function parse(bytes: Buffer): ParsedFile {
  const source = memorySource(bytes);
  return bytes.toString('latin1', 0, 4) === 'GGUF' ? parseGguf(source) : parseSafetensors(source);
}
