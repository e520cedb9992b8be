/**
 * CLIP text towers: Hugging Face, OpenAI / open_clip, and what stable-diffusion.cpp writes.
 * Canonical names are Hugging Face's `text_model.*` and `text_projection.weight` [out, in].
 */
import type { EncoderScheme, NameEntry, StoredAs } from './scheme.js';

const kBlock = [
  'layer_norm1.weight',
  'layer_norm1.bias',
  'self_attn.q_proj.weight',
  'self_attn.q_proj.bias',
  'self_attn.k_proj.weight',
  'self_attn.k_proj.bias',
  'self_attn.v_proj.weight',
  'self_attn.v_proj.bias',
  'self_attn.out_proj.weight',
  'self_attn.out_proj.bias',
  'layer_norm2.weight',
  'layer_norm2.bias',
  'mlp.fc1.weight',
  'mlp.fc1.bias',
  'mlp.fc2.weight',
  'mlp.fc2.bias',
] as const;

/** Rows 0..19 of Long-CLIP's positions are CLIP's own; later ones were stretched and trained. arXiv:2403.15378 */
const kLongClipKeptRows = 20;

type StoredName = (canonical: string) => StoredAs[];

function clipEntries(layers: number, stored: StoredName, projection: StoredAs[]): NameEntry[] {
  const names = ['embeddings.token_embedding.weight', 'embeddings.position_embedding.weight'];
  for (let layer = 0; layer < layers; layer++)
    names.push(...kBlock.map((name) => `encoder.layers.${layer}.${name}`));
  names.push('final_layer_norm.weight', 'final_layer_norm.bias');
  const entries: NameEntry[] = names.map((name) => ({
    canonical: `text_model.${name}`,
    storedAs: stored(name),
  }));
  entries.push({ canonical: 'text_projection.weight', storedAs: projection, optional: true });
  return entries;
}

/** `.weight` is a Linear's, [out, in]; a bare name is OpenAI's parameter, [in, out]: the shapes are often square. */
const kProjection: readonly StoredAs[] = [
  { file: 'text_projection.weight' },
  { file: 'text_projection', transposed: true },
];

/** q, k, v thirds of a fused tensor. */
function fused(name: string, weight: (suffix: string) => string): StoredAs[] | undefined {
  const match = /^(.*)self_attn\.([qkv])_proj\.(weight|bias)$/.exec(name);
  if (match === null) return undefined;
  return [{ file: match[1] + weight(match[3]!), third: 'qkv'.indexOf(match[2]!) as 0 | 1 | 2 }];
}

const notVision = (prefix: string): boolean => !/vision_model\.$|visual\.$/.test(prefix);

const huggingFace: EncoderScheme = {
  family: 'clip',
  title: 'Hugging Face names',
  anchors: [
    'text_model.embeddings.token_embedding.weight',
    'text_model.encoder.layers.0.self_attn.q_proj.weight',
    'text_model.encoder.layers.0.layer_norm1.weight',
  ],
  accepts: (prefix, has) => notVision(prefix) && !has('text_model.encoder.layers.0.self_attn.in_proj.weight'),
  layers: 'text_model.encoder.layers.',
  entries: (layers) =>
    clipEntries(layers, (name) => [{ file: `text_model.${name}` }], [
      ...kProjection,
      { file: 'text_model.text_projection' },
    ]),
};

/** Checkpoints of early merging tools: Hugging Face names without `text_model.`. */
const huggingFaceFlat: EncoderScheme = {
  family: 'clip',
  title: 'Hugging Face names without text_model',
  anchors: ['embeddings.token_embedding.weight'],
  accepts: (prefix, has) =>
    notVision(prefix) && !prefix.endsWith('text_model.') && has('encoder.layers.0.self_attn.q_proj.weight'),
  layers: 'encoder.layers.',
  entries: (layers) => clipEntries(layers, (name) => [{ file: name }], [...kProjection]),
};

/** stable-diffusion.cpp renames open_clip towers but keeps their fused rows and their projection's orientation. */
const stableDiffusionCpp: EncoderScheme = {
  family: 'clip',
  title: 'stable-diffusion.cpp names',
  anchors: ['text_model.encoder.layers.0.self_attn.in_proj.weight'],
  accepts: notVision,
  layers: 'text_model.encoder.layers.',
  entries: (layers) =>
    clipEntries(
      layers,
      (name) =>
        fused(`text_model.${name}`, (kind) => `self_attn.in_proj.${kind}`) ?? [
          { file: `text_model.${name}` },
        ],
      [{ file: 'text_model.text_projection', transposed: true }, ...kProjection],
    ),
};

const kOpenAiNames: readonly (readonly [RegExp, string])[] = [
  [/^embeddings\.token_embedding\./, 'token_embedding.'],
  [/^final_layer_norm\./, 'ln_final.'],
  [/^encoder\.layers\./, 'transformer.resblocks.'],
  [/\.layer_norm([12])\./, '.ln_$1.'],
  [/\.mlp\.fc1\./, '.mlp.c_fc.'],
  [/\.mlp\.fc2\./, '.mlp.c_proj.'],
  [/\.self_attn\.out_proj\./, '.attn.out_proj.'],
];

function openAiName(name: string): StoredAs[] {
  if (name === 'embeddings.position_embedding.weight')
    return [
      { file: 'positional_embedding', later: { file: 'positional_embedding_res', rows: kLongClipKeptRows } },
      { file: 'positional_embedding' },
    ];
  const renamed = (text: string): string => kOpenAiNames.reduce((t, [from, to]) => t.replace(from, to), text);
  const thirds = fused(name, (kind) => `attn.in_proj_${kind}`);
  return thirds?.map((stored) => ({ ...stored, file: renamed(stored.file) })) ?? [{ file: renamed(name) }];
}

/** OpenAI's CLIP, Long-CLIP and open_clip: text tower at the root, beside `visual.*`. */
const openAi: EncoderScheme = {
  family: 'clip',
  title: 'OpenAI / open_clip names',
  anchors: [
    'transformer.resblocks.0.attn.in_proj_weight',
    'transformer.resblocks.0.ln_1.weight',
    'ln_final.weight',
  ],
  accepts: notVision,
  layers: 'transformer.resblocks.',
  entries: (layers) => clipEntries(layers, openAiName, [...kProjection]),
};

/** Names of the last way of each entry are those that open_clip itself writes. */
export const openAiClipEntries = (layers: number): NameEntry[] => openAi.entries(layers);

export const clipSchemes: readonly EncoderScheme[] = [
  huggingFace,
  huggingFaceFlat,
  stableDiffusionCpp,
  openAi,
];
