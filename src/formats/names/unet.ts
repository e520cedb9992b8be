/**
 * UNets of latent diffusion (arXiv:2112.10752): the LDM's names, which Stability AI keeps and which are the canonical
 * ones, and diffusers', which number levels, residual blocks and transformers apart.
 */
import type { NameEntry } from './scheme.js';

/** Transformer blocks beside every residual block (0: no attention there), level by level, in running order. */
export interface UnetLayout {
  /** finest level first */
  readonly down: readonly (readonly number[])[];
  readonly middle: number;
  /** coarsest level first; one residual block more than on the way down */
  readonly up: readonly (readonly number[])[];
  /** whether a vector (sizes and a pooled text) joins the time embedding */
  readonly hasVector: boolean;
}

/** A residual block or a resampling, by both namings, and what stands beside it. */
interface Place {
  readonly ldm: string;
  readonly diffusers: string;
}
export interface UnetBlock extends Place {
  readonly depth: number;
  readonly transformer: Place;
}
export interface UnetLevel {
  readonly blocks: readonly UnetBlock[];
  /** the convolution to the next level's size; absent at the end */
  readonly resample?: Place;
}
export interface UnetPlan {
  readonly down: readonly UnetLevel[];
  readonly up: readonly UnetLevel[];
  readonly middle: { readonly first: Place; readonly second: Place; readonly transformer: Place };
}

/** Where everything of such a UNet stands: the LDM counts blocks through all levels, diffusers level by level. */
export function unetPlan({ down, up }: UnetLayout): UnetPlan {
  let input = 1;
  const downLevels = down.map((depths, level): UnetLevel => {
    const blocks = depths.map((depth, i): UnetBlock => {
      const ldm = `input_blocks.${input++}`;
      return {
        ldm: `${ldm}.0`,
        diffusers: `down_blocks.${level}.resnets.${i}`,
        depth,
        transformer: { ldm: `${ldm}.1`, diffusers: `down_blocks.${level}.attentions.${i}` },
      };
    });
    if (level === down.length - 1) return { blocks };
    const resample = {
      ldm: `input_blocks.${input++}.0.op`,
      diffusers: `down_blocks.${level}.downsamplers.0.conv`,
    };
    return { blocks, resample };
  });
  let output = 0;
  const upLevels = up.map((depths, level): UnetLevel => {
    const blocks = depths.map((depth, i): UnetBlock => {
      const ldm = `output_blocks.${output++}`;
      return {
        ldm: `${ldm}.0`,
        diffusers: `up_blocks.${level}.resnets.${i}`,
        depth,
        transformer: { ldm: `${ldm}.1`, diffusers: `up_blocks.${level}.attentions.${i}` },
      };
    });
    if (level === up.length - 1) return { blocks };
    const resample = {
      ldm: `output_blocks.${output - 1}.${depths.at(-1)! > 0 ? 2 : 1}.conv`,
      diffusers: `up_blocks.${level}.upsamplers.0.conv`,
    };
    return { blocks, resample };
  });
  return {
    down: downLevels,
    up: upLevels,
    middle: {
      first: { ldm: 'middle_block.0', diffusers: 'mid_block.resnets.0' },
      transformer: { ldm: 'middle_block.1', diffusers: 'mid_block.attentions.0' },
      second: { ldm: 'middle_block.2', diffusers: 'mid_block.resnets.1' },
    },
  };
}

type Module = readonly [ldm: string, diffusers: string];

const kOutside: readonly Module[] = [
  ['input_blocks.0.0', 'conv_in'],
  ['time_embed.0', 'time_embedding.linear_1'],
  ['time_embed.2', 'time_embedding.linear_2'],
  ['out.0', 'conv_norm_out'],
  ['out.2', 'conv_out'],
];
const kVector: readonly Module[] = [
  ['label_emb.0.0', 'add_embedding.linear_1'],
  ['label_emb.0.2', 'add_embedding.linear_2'],
];
const kResidual: readonly Module[] = [
  ['in_layers.0', 'norm1'],
  ['in_layers.2', 'conv1'],
  ['emb_layers.1', 'time_emb_proj'],
  ['out_layers.0', 'norm2'],
  ['out_layers.3', 'conv2'],
];
const kShortcut: Module = ['skip_connection', 'conv_shortcut'];
const kTransformer = ['norm', 'proj_in', 'proj_out'] as const;
/** The same in both namings. */
const kBlock = ['norm1', 'norm2', 'norm3', 'ff.net.0.proj', 'ff.net.2'] as const;
const kAttention = ['to_q', 'to_k', 'to_v'] as const;

/** Every tensor of such a UNet. */
export function unetEntries(layout: UnetLayout, naming: 'ldm' | 'diffusers'): NameEntry[] {
  const entries: NameEntry[] = [];
  const add = (ldm: string, diffusers: string, hasBias = true, optional?: true): void => {
    for (const kind of hasBias ? ['weight', 'bias'] : ['weight'])
      entries.push({
        canonical: `${ldm}.${kind}`,
        storedAs: [{ file: `${naming === 'ldm' ? ldm : diffusers}.${kind}` }],
        ...(optional && { optional }),
      });
  };
  const residual = (at: Place): void => {
    for (const [ldm, diffusers] of kResidual) add(`${at.ldm}.${ldm}`, `${at.diffusers}.${diffusers}`);
    add(`${at.ldm}.${kShortcut[0]}`, `${at.diffusers}.${kShortcut[1]}`, true, true);
  };
  const transformer = (at: Place, depth: number): void => {
    if (depth === 0) return;
    const same = (name: string, hasBias?: boolean): void =>
      add(`${at.ldm}.${name}`, `${at.diffusers}.${name}`, hasBias);
    for (const name of kTransformer) same(name);
    for (let i = 0; i < depth; i++) {
      for (const name of kBlock) same(`transformer_blocks.${i}.${name}`);
      for (const attention of ['attn1', 'attn2']) {
        for (const name of kAttention) same(`transformer_blocks.${i}.${attention}.${name}`, false);
        same(`transformer_blocks.${i}.${attention}.to_out.0`);
      }
    }
  };
  for (const module of [...kOutside, ...(layout.hasVector ? kVector : [])]) add(...module);
  const plan = unetPlan(layout);
  for (const { blocks, resample } of [...plan.down, ...plan.up]) {
    for (const block of blocks) {
      residual(block);
      transformer(block.transformer, block.depth);
    }
    if (resample) add(resample.ldm, resample.diffusers);
  }
  residual(plan.middle.first);
  transformer(plan.middle.transformer, layout.middle);
  residual(plan.middle.second);
  return entries;
}

/** More levels, blocks or transformers no UNet has: a number far out of line is none. */
const kMost = 64;

/** @param has whether the file has a tensor of this name, @param count layers under a stem; both after the prefix */
export function unetLayout(
  naming: 'ldm' | 'diffusers',
  has: (name: string) => boolean,
  count: (stem: string) => number,
): UnetLayout {
  const most = (stem: string): number => Math.min(kMost, count(stem));
  if (naming === 'diffusers') {
    const side = (way: 'down' | 'up'): number[][] =>
      Array.from({ length: most(`${way}_blocks.`) }, (_, level) =>
        Array.from({ length: most(`${way}_blocks.${level}.resnets.`) }, (_, i) =>
          most(`${way}_blocks.${level}.attentions.${i}.transformer_blocks.`),
        ),
      );
    return {
      down: side('down'),
      middle: most('mid_block.attentions.0.transformer_blocks.'),
      up: side('up'),
      hasVector: has('add_embedding.linear_1.weight'),
    };
  }
  const down: number[][] = [[]];
  for (let i = 1; i < most('input_blocks.'); i++)
    if (has(`input_blocks.${i}.0.op.weight`)) down.push([]);
    else down.at(-1)!.push(most(`input_blocks.${i}.1.transformer_blocks.`));
  const up: number[][] = [[]];
  const outputs = most('output_blocks.');
  for (let i = 0; i < outputs; i++) {
    up.at(-1)!.push(most(`output_blocks.${i}.1.transformer_blocks.`));
    const isLast = [1, 2].some((place) => has(`output_blocks.${i}.${place}.conv.weight`));
    if (isLast && i + 1 < outputs) up.push([]);
  }
  return {
    down,
    middle: most('middle_block.1.transformer_blocks.'),
    up,
    hasVector: has('label_emb.0.0.weight'),
  };
}
