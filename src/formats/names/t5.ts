/**
 * T5 encoders: Hugging Face and llama.cpp's GGUF. Canonical names are Hugging Face's.
 * Gated feed-forwards (v1.1, Flan) have wi_0 and wi_1, T5 v1.0 has wi.
 */
import type { EncoderScheme, NameEntry } from './scheme.js';

/** The tied embedding goes by any of three names, often by two at once: one is read. */
export const kEmbeddingNames = [
  'shared.weight',
  'encoder.embed_tokens.weight',
  'decoder.embed_tokens.weight',
];

/** canonical within a block → llama.cpp within a block */
const kBlock: readonly (readonly [canonical: string, gguf: string])[] = [
  ['layer.0.layer_norm', 'attn_norm'],
  ['layer.0.SelfAttention.q', 'attn_q'],
  ['layer.0.SelfAttention.k', 'attn_k'],
  ['layer.0.SelfAttention.v', 'attn_v'],
  ['layer.0.SelfAttention.o', 'attn_o'],
  ['layer.1.layer_norm', 'ffn_norm'],
  ['layer.1.DenseReluDense.wi_0', 'ffn_gate'],
  ['layer.1.DenseReluDense.wi_1', 'ffn_up'],
  ['layer.1.DenseReluDense.wo', 'ffn_down'],
];

/** Only block 0 has the table of relative positions; all blocks use it. */
const kRelativeBias: readonly [canonical: string, gguf: string] = [
  'layer.0.SelfAttention.relative_attention_bias',
  'attn_rel_b',
];

function t5Entries(
  layers: number,
  embedding: readonly string[],
  block: (layer: number, name: number) => string,
  rest: { bias: string; norm: string },
): NameEntry[] {
  const entries: NameEntry[] = [
    { canonical: 'shared.weight', storedAs: embedding.map((file) => ({ file })) },
    { canonical: `encoder.block.0.${kRelativeBias[0]}.weight`, storedAs: [{ file: rest.bias }] },
  ];
  for (let layer = 0; layer < layers; layer++)
    for (const [i, [canonical]] of kBlock.entries())
      entries.push({
        canonical: `encoder.block.${layer}.${canonical}.weight`,
        storedAs: [{ file: block(layer, i) }],
      });
  entries.push({ canonical: 'encoder.final_layer_norm.weight', storedAs: [{ file: rest.norm }] });
  return entries;
}

const huggingFace: EncoderScheme = {
  family: 't5',
  title: 'Hugging Face names',
  anchors: ['encoder.block.0.layer.0.SelfAttention.q.weight', 'encoder.block.0.layer.0.layer_norm.weight'],
  accepts: () => true,
  layers: 'encoder.block.',
  entries: (layers) =>
    t5Entries(layers, kEmbeddingNames, (layer, i) => `encoder.block.${layer}.${kBlock[i]![0]}.weight`, {
      bias: `encoder.block.0.${kRelativeBias[0]}.weight`,
      norm: 'encoder.final_layer_norm.weight',
    }),
};

const llamaCpp: EncoderScheme = {
  family: 't5',
  title: 'llama.cpp names',
  anchors: ['enc.blk.0.attn_q.weight', 'enc.blk.0.attn_norm.weight'],
  accepts: () => true,
  layers: 'enc.blk.',
  entries: (layers) =>
    t5Entries(layers, ['token_embd.weight'], (layer, i) => `enc.blk.${layer}.${kBlock[i]![1]}.weight`, {
      bias: `enc.blk.0.${kRelativeBias[1]}.weight`,
      norm: 'enc.output_norm.weight',
    }),
};

/** T5 v1.0 has one matrix, `wi` (llama.cpp: ffn_up), where v1.1 has the gated pair. */
export function ungated(entries: readonly NameEntry[]): NameEntry[] {
  return entries.flatMap((entry) => {
    if (entry.canonical.endsWith('wi_0.weight')) return [];
    if (!entry.canonical.endsWith('wi_1.weight')) return [entry];
    const storedAs = entry.storedAs.map(({ file }) => ({ file: file.replace('.wi_1.', '.wi.') }));
    return [{ canonical: entry.canonical.replace('.wi_1.', '.wi.'), storedAs }];
  });
}

export const t5Schemes: readonly EncoderScheme[] = [huggingFace, llamaCpp];

/** canonical name → llama.cpp's, of an encoder of so many layers */
export function llamaCppNames(layers: number, isGated: boolean): Map<string, string> {
  const gated = llamaCpp.entries(layers);
  const entries = isGated ? gated : ungated(gated);
  return new Map(entries.map(({ canonical, storedAs }) => [canonical, storedAs[0]!.file]));
}
