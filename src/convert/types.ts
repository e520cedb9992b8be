/** Which type each tensor of a converted file gets. */
import { KotobaError } from '../errors.js';
import { blockWeights, isFp8, type DType, type TensorSource } from '../formats/index.js';

/** Types that are written. */
export const WRITTEN_TYPES = [
  'F32',
  'F16',
  'BF16',
  'Q8_0',
  'Q6_K',
  'Q5_K',
  'Q5_1',
  'Q5_0',
  'Q4_K',
  'Q4_1',
  'Q4_0',
  'IQ4_NL',
  'IQ4_XS',
  'Q3_K',
  'Q2_K',
] as const satisfies readonly DType[];
export type WrittenType = (typeof WRITTEN_TYPES)[number];

/** `--tensor-type`: tensors whose names match take this type, whatever the others get. */
export interface TypeRule {
  readonly pattern: RegExp;
  readonly type: WrittenType;
}

/** Where rows are no whole blocks of 256: the type of blocks of 32 that is nearest in size, none smaller. */
const SMALLER_BLOCKS: Readonly<Partial<Record<WrittenType, WrittenType>>> = {
  Q2_K: 'IQ4_NL',
  Q3_K: 'IQ4_NL',
  IQ4_XS: 'IQ4_NL',
  Q4_K: 'Q5_0',
  Q5_K: 'Q5_1',
  Q6_K: 'Q8_0',
};

/**
 * Small, and felt in every value that leaves the network: what it meets first and last, times, positions, modulation of
 * the last layer, and autoencoders. Kept in 16 bits. The originals' names, then diffusers'.
 */
const KEPT = [
  /(^|[./])(img_in|txt_in|time_in|vector_in|guidance_in|final_layer|[xty]_embedder|context_embedder|pos_embed)\b/,
  /(^|[./])(time_embed|label_emb|input_blocks\.0\.0|out\.2|position(al)?_embedding|text_projection)\b/,
  /(^|[./])(time_text_embed|(time|add|class)_embedding|norm_out|conv_in|conv_out)\b|(^|\/)proj_out\b/,
  /^(first_stage_model|vae)[./]/,
];

/**
 * @param wanted what the user asked for; absent: every tensor keeps its type
 * @param name   as the file will call it
 * @param container safetensors know no quantised types: such weights become F16 there
 * @throws KotobaError ERR_ARGUMENT for a rule that asks for what the tensor's rows cannot hold
 */
export function typeOf(
  name: string,
  source: TensorSource,
  wanted: WrittenType | undefined,
  rules: readonly TypeRule[],
  container: 'safetensors' | 'gguf',
): DType {
  const { shape, tensor } = source;
  if (/^(I|U)\d+$|^BOOL$/.test(tensor.dtype)) return tensor.dtype;
  const rule = rules.find(({ pattern }) => pattern.test(name));
  if (rule) {
    if (shape.at(-1)! % blockWeights(rule.type) !== 0)
      throw new KotobaError(
        'ERR_ARGUMENT',
        `--tensor-type: ${name} [${shape.join(', ')}] cannot be ${rule.type}: expected rows of whole ` +
          `${blockWeights(rule.type)}-weight blocks`,
      );
    return rule.type;
  }
  if (wanted === undefined) {
    const kept = keptType(source);
    // F16 holds every FP8 value.
    const isForeign = container === 'gguf' ? isFp8(kept) : blockWeights(kept) > 1;
    return isForeign ? 'F16' : kept;
  }
  // ggml's programs expect vectors in F32 beside matrices of any type.
  if (blockWeights(wanted) === 1) return container === 'gguf' && shape.length < 2 ? 'F32' : wanted;
  // Norms and biases are few; a table of buckets, and kernels of a convolution, have short rows.
  if (shape.length < 2 || name.includes('relative_attention_bias') || name.includes('attn_rel_b'))
    return 'F32';
  if (shape.length > 2 || KEPT.some((pattern) => pattern.test(name))) return 'F16';
  const fitting = [wanted, SMALLER_BLOCKS[wanted]].find(
    (type) => type !== undefined && shape.at(-1)! % blockWeights(type) === 0,
  );
  return fitting ?? 'F16';
}

/** What is put together of pieces of several types, scaled or turned round cannot stay as it is. */
function keptType({ tensor, append, scale, transposed }: TensorSource): DType {
  const isMixed = append?.some((piece) => piece.tensor.dtype !== tensor.dtype) ?? false;
  if (scale || append?.some((piece) => piece.scale)) return 'BF16';
  if (isMixed || (transposed && blockWeights(tensor.dtype) > 1)) return 'F16';
  if (transposed && !['F32', 'F16', 'BF16'].includes(tensor.dtype)) return 'F32';
  return tensor.dtype;
}
