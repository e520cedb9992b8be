/** A T5 encoder found in a file: its tensors under Hugging Face's names and its config. */
import { KotobaError } from '../errors.js';
import type { ConfigFamily, ConfigSource, ConfigValue } from './config.js';
import { foundConfigs, settleConfig } from './config.js';
import { describeDTypes } from './describe.js';
import type { ModelFile } from './model_file.js';
import { namingOf } from './names/prefixes.js';
import type { EncoderScheme, NameEntry } from './names/scheme.js';
import { ungated } from './names/t5.js';
import { usedTensors } from './part.js';
import type { T5Config, T5Part, TensorSource } from './part.js';
import { checkShapes, countLayers, dimension, folderOf, resolveEntries } from './resolve.js';
import type { Resolved } from './resolve.js';

export const t5Family: ConfigFamily = {
  title: 'T5',
  keys: [
    { name: 'vocab_size', type: 'count' },
    { name: 'd_model', type: 'count' },
    { name: 'd_kv', type: 'count' },
    { name: 'd_ff', type: 'count' },
    { name: 'num_layers', type: 'count' },
    { name: 'num_heads', type: 'count' },
    { name: 'relative_attention_num_buckets', type: 'count' },
    { name: 'relative_attention_max_distance', type: 'count' },
    { name: 'layer_norm_epsilon', type: 'number' },
    { name: 'is_gated_act', type: 'boolean' },
    { name: 'dense_act_fn', type: 'string' },
    { name: 'feed_forward_proj', type: 'string' },
  ],
  telling: ['d_model', 'd_kv', 'd_ff', 'relative_attention_num_buckets'],
  implied: (values) => {
    const { feed_forward_proj: projection } = values;
    if (typeof projection !== 'string' || Object.hasOwn(values, 'dense_act_fn')) return values;
    // "gated-gelu" is gelu_new for historical reasons; "relu" is itself.
    return {
      ...values,
      dense_act_fn: projection === 'gated-gelu' ? 'gelu_new' : projection.replace(/^gated-/, ''),
    };
  },
};

const kMaxDistance = 128;
const kMostDistance = 2 ** 31;
/** A half for each direction, and in each half exact and logarithmic ones. */
const kFewestBuckets = 4;
const kActivations = ['gelu_new', 'relu'];
const kSizeNames: Readonly<Record<number, string>> = {
  512: 'T5-Small',
  768: 'T5-Base',
  1024: 'T5-Large',
  2048: 'T5-XL',
  4096: 'T5-XXL',
};

/** `attention` = heads · d_kv, the width of q, k and v. */
interface Sizes {
  readonly vocab: number;
  readonly model: number;
  readonly ff: number;
  readonly attention: number;
  readonly heads: number;
  readonly buckets: number;
}

export function buildT5(
  model: ModelFile,
  scheme: EncoderScheme,
  prefix: string,
  given?: ConfigSource,
): T5Part {
  const layers = countLayers(model.tensors.keys(), prefix + scheme.layers);
  const { resolved, isGated } = resolveT5(model, prefix, scheme.entries(Math.max(layers, 1)));
  const sizes = sizesOf(resolved.tensors);
  checkShapes(resolved, (canonical) => expectedShape(canonical, sizes));
  resolved.wrong.push(...otherProblems(model, prefix, sizes));
  const anchor = resolved.tensors.values().next().value!.tensor;
  const sources = [given, ggufConfig(model, folderOf(prefix)), ...foundConfigs(model, t5Family, anchor)];
  const { values, notes } = settleConfig(
    anchor.path,
    t5Family,
    sources.filter((source) => source !== undefined),
    {
      vocab_size: sizes.vocab,
      d_model: sizes.model,
      d_kv: sizes.attention % sizes.heads === 0 ? sizes.attention / sizes.heads : 0,
      d_ff: sizes.ff,
      num_layers: layers,
      num_heads: sizes.heads,
      relative_attention_num_buckets: sizes.buckets,
      is_gated_act: isGated,
    },
  );
  const config = t5Config(anchor.path, values);
  const used = [...usedTensors(resolved.tensors)];
  const naming = namingOf(scheme.title, prefix);
  return {
    family: 't5',
    slot: 't5',
    fits: ['t5'],
    naming,
    description: `${title(model, prefix, config)}, ${naming}, ${describeDTypes(resolved.tensors)}`,
    prefix,
    path: anchor.path,
    config,
    undecided: [],
    notes,
    ...resolved,
    unexpected: [],
    bytesRead: used.reduce((sum, { bytes }) => sum + bytes, 0),
    tensorCount: used.length,
  };
}

/** Gated unless the file has the single `wi` of v1.0. */
function resolveT5(
  model: ModelFile,
  prefix: string,
  gated: readonly NameEntry[],
): { resolved: Resolved; isGated: boolean } {
  const resolved = resolveEntries(model, prefix, gated);
  if (resolved.tensors.has('encoder.block.0.layer.1.DenseReluDense.wi_0.weight'))
    return { resolved, isGated: true };
  const plain = resolveEntries(model, prefix, ungated(gated));
  const isGated = !plain.tensors.has('encoder.block.0.layer.1.DenseReluDense.wi.weight');
  return { resolved: isGated ? resolved : plain, isGated };
}

function otherProblems(model: ModelFile, prefix: string, { attention, heads, buckets }: Sizes): string[] {
  const problems: string[] = [];
  if (buckets > 0 && buckets < kFewestBuckets)
    problems.push(`relative_attention_bias has ${buckets} buckets, expected at least ${kFewestBuckets}`);
  if (heads > 0 && attention % heads !== 0)
    problems.push(
      `the ${heads} heads of relative_attention_bias do not divide the attention's width ${attention}`,
    );
  const second = [
    'encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight',
    'enc.blk.1.attn_rel_b.weight',
  ];
  if (second.some((name) => model.tensors.has(prefix + name)))
    problems.push('every block has its own relative_attention_bias, as in UMT5, which is not supported');
  return problems;
}

function sizesOf(tensors: ReadonlyMap<string, TensorSource>): Sizes {
  return {
    vocab: dimension(tensors, /^shared/, 0, 2),
    model: dimension(tensors, /layer_norm/, 0, 1) || dimension(tensors, /^shared/, 1, 2),
    ff: dimension(tensors, /\.wi/, 0, 2),
    attention: dimension(tensors, /SelfAttention\.[qkv]\./, 0, 2),
    heads: dimension(tensors, /relative_attention_bias/, 1, 2),
    buckets: dimension(tensors, /relative_attention_bias/, 0, 2),
  };
}

function expectedShape(canonical: string, sizes: Sizes): readonly number[] {
  const { model, ff, attention } = sizes;
  if (canonical === 'shared.weight') return [sizes.vocab, model];
  if (canonical.endsWith('relative_attention_bias.weight')) return [sizes.buckets, sizes.heads];
  if (/SelfAttention\.[qkv]\./.test(canonical)) return [attention, model];
  if (canonical.endsWith('SelfAttention.o.weight')) return [model, attention];
  if (/\.wi(_[01])?\.weight$/.test(canonical)) return [ff, model];
  return canonical.endsWith('.wo.weight') ? [model, ff] : [model];
}

function t5Config(path: string, values: ReadonlyMap<string, ConfigValue>): T5Config {
  const number = (key: string, otherwise = 0): number => (values.get(key) as number | undefined) ?? otherwise;
  const isGated = values.get('is_gated_act') === true;
  const projection = values.get('feed_forward_proj');
  const fail = (what: string): never => {
    throw new KotobaError('ERR_MODEL_CONFIG', `${path}: ${what}`);
  };
  if (typeof projection === 'string' && projection.startsWith('gated-') !== isGated)
    fail(
      `feed_forward_proj is ${JSON.stringify(projection)}, but the tensors are ${isGated ? '' : 'not '}gated`,
    );
  const activation = values.get('dense_act_fn') ?? (isGated ? 'gelu_new' : 'relu');
  if (!kActivations.includes(activation as string))
    fail(
      `dense_act_fn ${JSON.stringify(activation)} is not supported, expected ${kActivations.join(' or ')}`,
    );
  const config: T5Config = {
    vocab_size: number('vocab_size'),
    d_model: number('d_model'),
    d_kv: number('d_kv'),
    d_ff: number('d_ff'),
    num_layers: number('num_layers'),
    num_heads: number('num_heads'),
    relative_attention_num_buckets: number('relative_attention_num_buckets'),
    relative_attention_max_distance: number('relative_attention_max_distance', kMaxDistance),
    layer_norm_epsilon: number('layer_norm_epsilon', 1e-6),
    is_gated_act: isGated,
    dense_act_fn: activation as string,
  };
  const { relative_attention_max_distance: distance, relative_attention_num_buckets: buckets } = config;
  if (distance <= buckets / 4 || distance > kMostDistance)
    fail(
      `relative_attention_max_distance ${distance} is too ${distance > kMostDistance ? 'large' : 'small'}`,
    );
  return config;
}

/** What llama.cpp writes about a T5, under Hugging Face's keys. */
function ggufConfig({ metadata }: ModelFile, folder: string): ConfigSource | undefined {
  const arch = metadata.get(`${folder}general.architecture`);
  if (arch !== 't5' && arch !== 't5encoder') return undefined;
  const get = (key: string): unknown => metadata.get(`${folder}${arch}.${key}`);
  const epsilon = get('attention.layer_norm_rms_epsilon') ?? get('attention.layer_norm_epsilon');
  return {
    title: 'the GGUF metadata',
    values: {
      d_model: get('embedding_length'),
      d_ff: get('feed_forward_length'),
      num_layers: get('block_count'),
      num_heads: get('attention.head_count'),
      d_kv: get('attention.key_length'),
      relative_attention_num_buckets: get('attention.relative_buckets_count'),
      // stored as float32: 1e-6 comes back as 9.99999997e-7
      layer_norm_epsilon: typeof epsilon === 'number' ? Number(epsilon.toPrecision(7)) : epsilon,
    },
  };
}

function title(model: ModelFile, prefix: string, config: T5Config): string {
  const size = kSizeNames[config.d_model] ?? `T5 of width ${config.d_model}`;
  const version = config.is_gated_act ? 'v1.1 or Flan' : 'v1.0';
  const decoders = ['decoder.block.0.layer.0.layer_norm.weight', 'dec.blk.0.attn_norm.weight'];
  const isFull = decoders.some((name) => model.tensors.has(prefix + name));
  return `${size} (${version}) encoder${isFull ? ' of a full encoder-decoder' : ''}`;
}
