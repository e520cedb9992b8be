/** A CLIP text tower found in a file: its tensors under Hugging Face's names, its config, which CLIP it is. */
import { KotobaError } from '../errors.js';
import type { ConfigFamily, ConfigSource, ConfigValue } from './config.js';
import { foundConfigs, settleConfig } from './config.js';
import { describeDTypes } from './describe.js';
import type { ModelFile } from './model_file.js';
import { namingOf, placeOf } from './names/prefixes.js';
import type { EncoderScheme } from './names/scheme.js';
import { usedTensors } from './part.js';
import type { ClipConfig, ClipPart, ClipSlot, Slot, TensorSource } from './part.js';
import { checkShapes, countLayers, dimension, resolveEntries } from './resolve.js';

export const clipFamily: ConfigFamily = {
  title: 'CLIP text',
  keys: [
    { name: 'vocab_size', type: 'count' },
    { name: 'hidden_size', type: 'count' },
    { name: 'intermediate_size', type: 'count' },
    { name: 'num_hidden_layers', type: 'count' },
    { name: 'num_attention_heads', type: 'count' },
    { name: 'max_position_embeddings', type: 'count' },
    { name: 'hidden_act', type: 'string' },
    { name: 'layer_norm_eps', type: 'number' },
    { name: 'bos_token_id', type: 'count', aliases: ['bos'] },
    { name: 'eos_token_id', type: 'count', aliases: ['eos'] },
  ],
  telling: ['num_attention_heads', 'num_hidden_layers', 'hidden_act'],
};

interface KnownClip {
  readonly slot: ClipSlot;
  readonly title: string;
  readonly heads: number;
  readonly activation: string;
}

/** By hidden size. OpenAI's towers use quick_gelu, LAION's H and bigG the exact one. */
const kKnown: Readonly<Record<number, KnownClip>> = {
  512: { slot: 'clip_b', title: 'CLIP-B', heads: 8, activation: 'quick_gelu' },
  768: { slot: 'clip_l', title: 'CLIP-L', heads: 12, activation: 'quick_gelu' },
  1024: { slot: 'clip_h', title: 'CLIP-H', heads: 16, activation: 'gelu' },
  1280: { slot: 'clip_g', title: 'CLIP-G', heads: 20, activation: 'gelu' },
};

const kClipSlots: readonly ClipSlot[] = ['clip_l', 'clip_g', 'clip_b', 'clip_h'];
const kActivations = ['quick_gelu', 'gelu'];
/** positions of every CLIP but the long ones */
const kPositions = 77;
/** Old Hugging Face configs all say 2; their code then takes the highest id, the true end of text. */
const kLegacyEos = 2;

type Sizes = Readonly<
  Record<
    'vocab_size' | 'hidden_size' | 'intermediate_size' | 'max_position_embeddings' | 'projection_dim',
    number
  >
>;

export function buildClip(
  model: ModelFile,
  scheme: EncoderScheme,
  prefix: string,
  given?: ConfigSource,
  wanted?: Slot,
): ClipPart {
  const layers = countLayers(model.tensors.keys(), prefix + scheme.layers);
  const resolved = resolveEntries(model, prefix, scheme.entries(Math.max(layers, 1)));
  const sizes = sizesOf(resolved.tensors);
  checkShapes(resolved, (canonical) => expectedShape(canonical, sizes));
  const anchor = resolved.tensors.values().next().value!.tensor;
  const sources = [...(given === undefined ? [] : [given]), ...foundConfigs(model, clipFamily, anchor)];
  const { values, notes } = settleConfig(anchor.path, clipFamily, sources, {
    ...sizes,
    num_hidden_layers: layers,
  });
  const place = placeOf(prefix).slot ?? wanted;
  const { config, undecided } = clipConfig(anchor.path, values, resolved.tensors, place);
  const which = whichClip(config, prefix);
  const used = [...usedTensors(resolved.tensors)];
  const projection = resolved.tensors.has('text_projection.weight') ? 'with' : 'without';
  const naming = namingOf(scheme.title, prefix);
  const title = `${which.title}${patchSize(model, prefix, which.slot)} text encoder`;
  return {
    family: 'clip',
    slot: which.slot,
    fits: which.fits,
    naming,
    description: `${title}, ${naming}, ${projection} projection, ${describeDTypes(resolved.tensors)}`,
    prefix,
    path: anchor.path,
    config,
    undecided,
    notes,
    ...resolved,
    unexpected: [],
    bytesRead: used.reduce((sum, { bytes }) => sum + bytes, 0),
    tensorCount: used.length,
  };
}

function sizesOf(tensors: ReadonlyMap<string, TensorSource>): Sizes {
  return {
    vocab_size: dimension(tensors, /token_embedding/, 0, 2),
    hidden_size: dimension(tensors, /layer_norm/, 0, 1) || dimension(tensors, /embedding/, 1, 2),
    intermediate_size: dimension(tensors, /fc1\.weight$/, 0, 2),
    max_position_embeddings: dimension(tensors, /position_embedding/, 0, 2),
    projection_dim: dimension(tensors, /^text_projection/, 0, 2),
  };
}

function expectedShape(canonical: string, sizes: Sizes): readonly number[] {
  const { hidden_size: hidden, intermediate_size: inner } = sizes;
  if (canonical.endsWith('token_embedding.weight')) return [sizes.vocab_size, hidden];
  if (canonical.endsWith('position_embedding.weight')) return [sizes.max_position_embeddings, hidden];
  if (canonical.endsWith('fc1.weight')) return [inner, hidden];
  if (canonical.endsWith('fc1.bias')) return [inner];
  if (canonical.endsWith('fc2.weight')) return [hidden, inner];
  if (canonical.endsWith('_proj.weight')) return [hidden, hidden];
  return canonical === 'text_projection.weight' ? [sizes.projection_dim, hidden] : [hidden];
}

function clipConfig(
  path: string,
  values: ReadonlyMap<string, ConfigValue>,
  tensors: ReadonlyMap<string, TensorSource>,
  place: Slot | undefined,
): { config: ClipConfig; undecided: string[] } {
  const number = (key: string, otherwise = 0): number => (values.get(key) as number | undefined) ?? otherwise;
  const hidden = number('hidden_size');
  const known = kKnown[hidden];
  const activation = known?.activation ?? activationOf(place);
  const undecided = [
    ...(known || values.has('num_attention_heads') ? [] : ['num_attention_heads']),
    ...(activation || values.has('hidden_act') ? [] : ['hidden_act']),
  ];
  const vocab = number('vocab_size');
  const legacy = number('eos_token_id', kLegacyEos) === kLegacyEos;
  const projection = tensors.get('text_projection.weight')?.shape;
  const config: ClipConfig = {
    vocab_size: vocab,
    hidden_size: hidden,
    intermediate_size: number('intermediate_size'),
    num_hidden_layers: number('num_hidden_layers'),
    num_attention_heads: number('num_attention_heads', known?.heads),
    max_position_embeddings: number('max_position_embeddings'),
    hidden_act: (values.get('hidden_act') as string | undefined) ?? activation ?? '',
    layer_norm_eps: number('layer_norm_eps', 1e-5),
    bos_token_id: legacy ? vocab - 2 : number('bos_token_id', vocab - 2),
    eos_token_id: legacy ? vocab - 1 : number('eos_token_id'),
    ...(projection === undefined ? {} : { projection_dim: projection[0]! }),
  };
  validate(path, config, undecided);
  return { config, undecided };
}

/** An unknown size in a known place: there the activation is that of the CLIP which belongs there. */
function activationOf(place: Slot | undefined): string | undefined {
  return Object.values(kKnown).find(({ slot }) => slot === place)?.activation;
}

function validate(path: string, config: ClipConfig, undecided: readonly string[]): void {
  const fail = (what: string): never => {
    throw new KotobaError('ERR_MODEL_CONFIG', `${path}: ${what}`);
  };
  const { hidden_size: hidden, num_attention_heads: heads, hidden_act: activation } = config;
  if (!undecided.includes('num_attention_heads') && (heads === 0 || hidden % heads !== 0))
    fail(`num_attention_heads ${heads} does not divide the hidden size ${hidden}`);
  if (!undecided.includes('hidden_act') && !kActivations.includes(activation))
    fail(`hidden_act ${JSON.stringify(activation)} is not supported, expected ${kActivations.join(' or ')}`);
  if (config.vocab_size > 0 && Math.max(config.eos_token_id, config.bos_token_id) >= config.vocab_size)
    fail(
      `eos_token_id ${config.eos_token_id} or bos_token_id ${config.bos_token_id} lies outside the vocabulary of ${config.vocab_size}`,
    );
}

function whichClip(
  config: ClipConfig,
  prefix: string,
): { slot: ClipSlot; fits: readonly ClipSlot[]; title: string } {
  const known = kKnown[config.hidden_size];
  const isLong = config.max_position_embeddings > kPositions;
  if (known !== undefined) {
    if (isLong && known.slot === 'clip_l')
      return {
        slot: 'longclip_l',
        fits: ['longclip_l', 'clip_l'],
        title: `Long-CLIP-L (${config.max_position_embeddings} tokens)`,
      };
    return { slot: known.slot, fits: [known.slot], title: known.title };
  }
  const likely = placeOf(prefix).slot ?? (config.hidden_act === 'gelu' ? 'clip_g' : 'clip_l');
  const slot = isLong && likely === 'clip_l' ? 'longclip_l' : likely;
  const fits = [...new Set<ClipSlot>([slot, likely, ...kClipSlots])];
  return { slot, fits, title: `${isLong ? 'Long-CLIP' : 'CLIP'} of hidden size ${config.hidden_size}` };
}

/** "/32": B/32 and B/16 have the same text tower, but their vision tower tells them apart where it is there. */
function patchSize(model: ModelFile, prefix: string, slot: Slot): string {
  const names = ['visual.conv1.weight', 'vision_model.embeddings.patch_embedding.weight'];
  const patch = names
    .map((name) => model.tensors.get(prefix + name)?.shape.at(-1))
    .find((size) => size !== undefined);
  return patch === undefined || slot === 'longclip_l' ? '' : `/${patch}`;
}
