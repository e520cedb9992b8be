/**
 * Which tensors the benched model files hold: names, shapes and stored types, as the public files have them,
 * and how their values are distributed. Standard deviations keep activations finite through every layer.
 */
export type StoredType = 'F32' | 'F16' | 'Q8_0' | 'Q4_0' | 'Q4_K' | 'Q6_K';

/** Values are independent, about N(mean, std²). */
export interface Distribution {
  readonly mean: number;
  readonly std: number;
}

export interface PlannedTensor {
  readonly name: string;
  /** Outermost first, as torch prints it. */
  readonly shape: readonly number[];
  readonly type: StoredType;
  readonly values: Distribution;
  /** Holds the same bytes as the tensor of this name (a tied embedding stored twice). */
  readonly sameAs?: string;
}

export interface ClipDims {
  readonly hidden: number;
  readonly intermediate: number;
  readonly layers: number;
  readonly projection?: number;
}

export interface T5Dims {
  readonly dModel: number;
  readonly dFf: number;
  readonly heads: number;
  readonly layers: number;
}

export const clipVocabulary = 49408;
export const clipPositions = 77;
export const t5Vocabulary = 32128;
export const t5Buckets = 32;
export const t5HeadDim = 64;

export const norm: Distribution = { mean: 1, std: 0.1 };
export const small: Distribution = { mean: 0, std: 0.02 };
const unit: Distribution = { mean: 0, std: 1 };

/** A matrix [out, in] that keeps the size of its input: variance 1/in. */
const keepsSize = (fanIn: number): Distribution => ({ mean: 0, std: 1 / Math.sqrt(fanIn) });

/** A CLIP text tower in Hugging Face's naming; tensors in the order of safetensors' own writer. */
export function clipTensors(dims: ClipDims, type: 'F32' | 'F16'): PlannedTensor[] {
  const { hidden, intermediate, layers, projection } = dims;
  const tensors: PlannedTensor[] = [];
  const add = (name: string, shape: number[], values: Distribution) =>
    tensors.push({ name, shape, type, values });
  const addNorm = (name: string) => {
    add(`${name}.weight`, [hidden], norm);
    add(`${name}.bias`, [hidden], small);
  };
  const addLinear = (name: string, out: number, fanIn: number) => {
    add(`${name}.weight`, [out, fanIn], keepsSize(fanIn));
    add(`${name}.bias`, [out], small);
  };
  add('text_model.embeddings.token_embedding.weight', [clipVocabulary, hidden], small);
  add('text_model.embeddings.position_embedding.weight', [clipPositions, hidden], small);
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `text_model.encoder.layers.${layer}`;
    for (const part of ['q_proj', 'k_proj', 'v_proj', 'out_proj'])
      addLinear(`${prefix}.self_attn.${part}`, hidden, hidden);
    addNorm(`${prefix}.layer_norm1`);
    addLinear(`${prefix}.mlp.fc1`, intermediate, hidden);
    addLinear(`${prefix}.mlp.fc2`, hidden, intermediate);
    addNorm(`${prefix}.layer_norm2`);
  }
  addNorm('text_model.final_layer_norm');
  if (projection !== undefined) add('text_projection.weight', [projection, hidden], keepsSize(hidden));
  return sortedByName(tensors);
}

interface T5Values {
  readonly q: Distribution;
  readonly attention: Distribution;
  readonly o: Distribution;
  readonly ffnIn: Distribution;
  readonly ffnOut: Distribution;
}

/** T5 does not scale its scores, so q carries the 1/sqrt(headDim). */
function t5Values(dims: T5Dims): T5Values {
  const inner = dims.heads * t5HeadDim;
  return {
    q: { mean: 0, std: 1 / Math.sqrt(dims.dModel * t5HeadDim) },
    attention: keepsSize(dims.dModel),
    o: keepsSize(inner),
    ffnIn: keepsSize(dims.dModel),
    ffnOut: keepsSize(dims.dFf),
  };
}

/**
 * A T5 encoder in llama.cpp's naming: every matrix in `matrix`, the token table in `tokenTable`,
 * norms in F32, the relative bias in F16 in an F16 file and in F32 otherwise.
 */
export function t5GgufTensors(dims: T5Dims, matrix: StoredType, tokenTable: StoredType): PlannedTensor[] {
  const { dModel, dFf, heads, layers } = dims;
  const inner = heads * t5HeadDim;
  const std = t5Values(dims);
  const tensors: PlannedTensor[] = [
    { name: 'token_embd.weight', shape: [t5Vocabulary, dModel], type: tokenTable, values: unit },
  ];
  const add = (name: string, shape: number[], type: StoredType, values: Distribution) =>
    tensors.push({ name: `enc.${name}.weight`, shape, type, values });
  for (let layer = 0; layer < layers; layer++) {
    const block = `blk.${layer}`;
    add(`${block}.attn_q`, [inner, dModel], matrix, std.q);
    add(`${block}.attn_k`, [inner, dModel], matrix, std.attention);
    add(`${block}.attn_v`, [inner, dModel], matrix, std.attention);
    add(`${block}.attn_o`, [dModel, inner], matrix, std.o);
    if (layer === 0) add(`${block}.attn_rel_b`, [t5Buckets, heads], matrix === 'F16' ? 'F16' : 'F32', unit);
    add(`${block}.attn_norm`, [dModel], 'F32', norm);
    add(`${block}.ffn_gate`, [dFf, dModel], matrix, std.ffnIn);
    add(`${block}.ffn_up`, [dFf, dModel], matrix, std.ffnIn);
    add(`${block}.ffn_down`, [dModel, dFf], matrix, std.ffnOut);
    add(`${block}.ffn_norm`, [dModel], 'F32', norm);
  }
  add('output_norm', [dModel], 'F32', norm);
  return tensors;
}

/** A T5 encoder in Hugging Face's naming, the tied embedding stored under both of its names, as in t5xxl_fp16. */
export function t5SafetensorsTensors(dims: T5Dims, type: 'F32' | 'F16'): PlannedTensor[] {
  const { dModel, dFf, heads, layers } = dims;
  const inner = heads * t5HeadDim;
  const std = t5Values(dims);
  const table = { shape: [t5Vocabulary, dModel], type, values: unit };
  const tensors: PlannedTensor[] = [
    { ...table, name: 'encoder.embed_tokens.weight', sameAs: 'shared.weight' },
    { ...table, name: 'shared.weight' },
  ];
  const add = (name: string, shape: number[], values: Distribution) =>
    tensors.push({ name: `encoder.${name}.weight`, shape, type, values });
  for (let layer = 0; layer < layers; layer++) {
    const attention = `block.${layer}.layer.0.SelfAttention`;
    const feedForward = `block.${layer}.layer.1.DenseReluDense`;
    add(`${attention}.q`, [inner, dModel], std.q);
    add(`${attention}.k`, [inner, dModel], std.attention);
    add(`${attention}.v`, [inner, dModel], std.attention);
    add(`${attention}.o`, [dModel, inner], std.o);
    if (layer === 0) add(`${attention}.relative_attention_bias`, [t5Buckets, heads], unit);
    add(`block.${layer}.layer.0.layer_norm`, [dModel], norm);
    add(`${feedForward}.wi_0`, [dFf, dModel], std.ffnIn);
    add(`${feedForward}.wi_1`, [dFf, dModel], std.ffnIn);
    add(`${feedForward}.wo`, [dModel, dFf], std.ffnOut);
    add(`block.${layer}.layer.1.layer_norm`, [dModel], norm);
  }
  add('final_layer_norm', [dModel], norm);
  return sortedByName(tensors);
}

/** llama.cpp's metadata for such a file; no tokenizer: the bench feeds token ids. */
export function t5Metadata(dims: T5Dims, fileType: number): Record<string, string | number> {
  return {
    'general.architecture': 't5encoder',
    'general.file_type': fileType,
    'general.quantization_version': 2,
    't5encoder.context_length': 512,
    't5encoder.embedding_length': dims.dModel,
    't5encoder.feed_forward_length': dims.dFf,
    't5encoder.block_count': dims.layers,
    't5encoder.attention.head_count': dims.heads,
    't5encoder.attention.key_length': t5HeadDim,
    't5encoder.attention.value_length': t5HeadDim,
    't5encoder.attention.layer_norm_epsilon': 1e-6,
    't5encoder.attention.relative_buckets_count': t5Buckets,
    't5encoder.attention.layer_norm_rms_epsilon': 1e-6,
  };
}

/** By code unit, as Python and Rust sort ASCII names. */
export function sortedByName(tensors: PlannedTensor[]): PlannedTensor[] {
  return tensors.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}
