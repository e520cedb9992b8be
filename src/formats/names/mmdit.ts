/**
 * SD3's transformers (MMDiT, arXiv:2403.03206): Stability AI's names, which are the canonical ones, and diffusers',
 * which split q, k and v and exchange shift and scale of the final layer and of the last context block.
 */
import type { NameEntry, StoredAs } from './scheme.js';

/** Which of an MMDiT's tensors to expect. */
export interface MmditLayout {
  readonly depth: number;
  readonly hasQkNorm: boolean;
  /** blocks whose image tokens also attend to themselves alone (SD3.5 Medium) */
  readonly dual: readonly number[];
}

type Stored = (kind: 'weight' | 'bias') => StoredAs;

const same =
  (file: string): Stored =>
  (kind) => ({ file: `${file}.${kind}` });
const joined =
  (...files: readonly [string, ...string[]]): Stored =>
  (kind) => ({ file: `${files[0]}.${kind}`, then: files.slice(1).map((file) => `${file}.${kind}`) });
const swapped =
  (file: string): Stored =>
  (kind) => ({ file: `${file}.${kind}`, swapped: true });

/** canonical module → diffusers' */
const kOutside: readonly (readonly [canonical: string, diffusers: Stored])[] = [
  ['x_embedder.proj', same('pos_embed.proj')],
  ['context_embedder', same('context_embedder')],
  ['t_embedder.mlp.0', same('time_text_embed.timestep_embedder.linear_1')],
  ['t_embedder.mlp.2', same('time_text_embed.timestep_embedder.linear_2')],
  ['y_embedder.mlp.0', same('time_text_embed.text_embedder.linear_1')],
  ['y_embedder.mlp.2', same('time_text_embed.text_embedder.linear_2')],
  ['final_layer.adaLN_modulation.1', swapped('norm_out.linear')],
  ['final_layer.linear', same('proj_out')],
];

interface Part {
  readonly canonical: string;
  readonly stored: Stored;
  readonly only?: 'weight';
}

/** One side of a block. The last block's context side ends with its keys and values. */
function side(of: 'context_block' | 'x_block', isLast: boolean, { hasQkNorm }: MmditLayout): Part[] {
  const isContext = of === 'context_block';
  const ends = isContext && isLast;
  const qkv = isContext
    ? joined('attn.add_q_proj', 'attn.add_k_proj', 'attn.add_v_proj')
    : joined('attn.to_q', 'attn.to_k', 'attn.to_v');
  const norm = isContext ? 'norm1_context.linear' : 'norm1.linear';
  const [q, k] = isContext ? ['attn.norm_added_q', 'attn.norm_added_k'] : ['attn.norm_q', 'attn.norm_k'];
  const ff = isContext ? 'ff_context' : 'ff';
  const parts: Part[] = [
    { canonical: 'adaLN_modulation.1', stored: ends ? swapped(norm) : same(norm) },
    { canonical: 'attn.qkv', stored: qkv },
  ];
  if (hasQkNorm)
    parts.push(
      { canonical: 'attn.ln_q', stored: same(q), only: 'weight' },
      { canonical: 'attn.ln_k', stored: same(k), only: 'weight' },
    );
  if (!ends)
    parts.push(
      { canonical: 'attn.proj', stored: same(isContext ? 'attn.to_add_out' : 'attn.to_out.0') },
      { canonical: 'mlp.fc1', stored: same(`${ff}.net.0.proj`) },
      { canonical: 'mlp.fc2', stored: same(`${ff}.net.2`) },
    );
  return parts;
}

function dualAttention({ hasQkNorm }: MmditLayout): Part[] {
  const parts: Part[] = [
    { canonical: 'attn2.qkv', stored: joined('attn2.to_q', 'attn2.to_k', 'attn2.to_v') },
    { canonical: 'attn2.proj', stored: same('attn2.to_out.0') },
  ];
  if (!hasQkNorm) return parts;
  return [
    ...parts,
    { canonical: 'attn2.ln_q', stored: same('attn2.norm_q'), only: 'weight' },
    { canonical: 'attn2.ln_k', stored: same('attn2.norm_k'), only: 'weight' },
  ];
}

const within = (block: string, { file, then, ...how }: StoredAs): StoredAs => ({
  ...how,
  file: block + file,
  ...(then !== undefined && { then: then.map((name) => block + name) }),
});

/** Every tensor of such an MMDiT. */
export function mmditEntries(layout: MmditLayout, naming: 'original' | 'diffusers'): NameEntry[] {
  const positions = naming === 'original' ? 'pos_embed' : 'pos_embed.pos_embed';
  const entries: NameEntry[] = [{ canonical: 'pos_embed', storedAs: [{ file: positions }] }];
  const add = (at: string, diffusersAt: string, { canonical, stored, only }: Part): void => {
    for (const kind of only ? [only] : (['weight', 'bias'] as const)) {
      const name = `${at}${canonical}.${kind}`;
      const way = naming === 'original' ? { file: name } : within(diffusersAt, stored(kind));
      entries.push({ canonical: name, storedAs: [way] });
    }
  };
  for (const [canonical, stored] of kOutside) add('', '', { canonical, stored });
  for (let i = 0; i < layout.depth; i++) {
    const [at, diffusers] = [`joint_blocks.${i}.`, `transformer_blocks.${i}.`];
    const isLast = i === layout.depth - 1;
    for (const of of ['context_block', 'x_block'] as const)
      for (const part of side(of, isLast, layout)) add(`${at}${of}.`, diffusers, part);
    if (layout.dual.includes(i))
      for (const part of dualAttention(layout)) add(`${at}x_block.`, diffusers, part);
  }
  return entries;
}
