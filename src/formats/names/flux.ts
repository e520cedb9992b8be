/**
 * Flux transformers: Black Forest Labs' names, which are the canonical ones, and diffusers', which split the fused
 * matrices (q, k, v and a single block's MLP) and exchange shift and scale of the final layer.
 */
import type { NameEntry, StoredAs } from './scheme.js';

/** Which of a Flux's optional tensors to expect. */
export interface FluxLayout {
  readonly depth: number;
  readonly depthSingle: number;
  readonly hasGuidance: boolean;
  readonly hasQkvBias: boolean;
}

type Kind = 'weight' | 'bias' | 'scale';

/** A module's stored names for one of its parameters. */
type Stored = (kind: Kind) => StoredAs;

const linear =
  (file: string): Stored =>
  (kind) => ({ file: `${file}.${kind}` });

const joined =
  (first: string, ...then: string[]): Stored =>
  (kind) => ({ file: `${first}.${kind}`, then: then.map((file) => `${file}.${kind}`) });

/** canonical module → diffusers' */
const kOutside: readonly (readonly [canonical: string, diffusers: Stored])[] = [
  ['img_in', linear('x_embedder')],
  ['txt_in', linear('context_embedder')],
  ['time_in.in_layer', linear('time_text_embed.timestep_embedder.linear_1')],
  ['time_in.out_layer', linear('time_text_embed.timestep_embedder.linear_2')],
  ['vector_in.in_layer', linear('time_text_embed.text_embedder.linear_1')],
  ['vector_in.out_layer', linear('time_text_embed.text_embedder.linear_2')],
  ['guidance_in.in_layer', linear('time_text_embed.guidance_embedder.linear_1')],
  ['guidance_in.out_layer', linear('time_text_embed.guidance_embedder.linear_2')],
  ['final_layer.linear', linear('proj_out')],
  ['final_layer.adaLN_modulation.1', (kind) => ({ file: `norm_out.linear.${kind}`, swapped: true })],
];

const kDouble: readonly (readonly [canonical: string, diffusers: Stored])[] = [
  ['img_mod.lin', linear('norm1.linear')],
  ['img_attn.qkv', joined('attn.to_q', 'attn.to_k', 'attn.to_v')],
  ['img_attn.norm.query_norm', () => ({ file: 'attn.norm_q.weight' })],
  ['img_attn.norm.key_norm', () => ({ file: 'attn.norm_k.weight' })],
  ['img_attn.proj', linear('attn.to_out.0')],
  ['img_mlp.0', linear('ff.net.0.proj')],
  ['img_mlp.2', linear('ff.net.2')],
  ['txt_mod.lin', linear('norm1_context.linear')],
  ['txt_attn.qkv', joined('attn.add_q_proj', 'attn.add_k_proj', 'attn.add_v_proj')],
  ['txt_attn.norm.query_norm', () => ({ file: 'attn.norm_added_q.weight' })],
  ['txt_attn.norm.key_norm', () => ({ file: 'attn.norm_added_k.weight' })],
  ['txt_attn.proj', linear('attn.to_add_out')],
  ['txt_mlp.0', linear('ff_context.net.0.proj')],
  ['txt_mlp.2', linear('ff_context.net.2')],
];

const kSingle: readonly (readonly [canonical: string, diffusers: Stored])[] = [
  ['modulation.lin', linear('norm.linear')],
  ['linear1', joined('attn.to_q', 'attn.to_k', 'attn.to_v', 'proj_mlp')],
  ['linear2', linear('proj_out')],
  ['norm.query_norm', () => ({ file: 'attn.norm_q.weight' })],
  ['norm.key_norm', () => ({ file: 'attn.norm_k.weight' })],
];

const within = (block: string, { file, then, ...how }: StoredAs): StoredAs => ({
  ...how,
  file: block + file,
  ...(then !== undefined && { then: then.map((name) => block + name) }),
});

/** Every tensor of such a Flux, as Black Forest Labs or diffusers name it. */
export function fluxEntries(layout: FluxLayout, naming: 'flux' | 'diffusers'): NameEntry[] {
  const entries: NameEntry[] = [];
  const add = (block: string, diffusersBlock: string, module: string, stored: Stored): void => {
    const kinds: Kind[] = module.endsWith('_norm') ? ['scale'] : ['weight', 'bias'];
    for (const kind of kinds) {
      if (kind === 'bias' && module.endsWith('qkv') && !layout.hasQkvBias) continue;
      const canonical = `${block}${module}.${kind}`;
      const way = naming === 'flux' ? { file: canonical } : within(diffusersBlock, stored(kind));
      entries.push({ canonical, storedAs: [way] });
    }
  };
  for (const [module, stored] of kOutside)
    if (layout.hasGuidance || !module.startsWith('guidance_in')) add('', '', module, stored);
  for (let i = 0; i < layout.depth; i++)
    for (const [module, stored] of kDouble)
      add(`double_blocks.${i}.`, `transformer_blocks.${i}.`, module, stored);
  for (let i = 0; i < layout.depthSingle; i++)
    for (const [module, stored] of kSingle)
      add(`single_blocks.${i}.`, `single_transformer_blocks.${i}.`, module, stored);
  return entries;
}
