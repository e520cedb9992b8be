/**
 * Autoencoders of latent diffusion (arXiv:2112.10752): the LDM's names, which Stability AI and Black Forest Labs keep
 * and which are the canonical ones, and diffusers', which number the decoder's levels from the coarsest.
 */
import type { VaeHalf } from '../part.js';
import type { NameEntry, StoredAs } from './scheme.js';

/** Which tensors to expect. Levels count from the finest. */
export interface VaeLayout {
  readonly halves: readonly VaeHalf[];
  readonly levels: number;
  /** residual blocks of a level of the encoder; the decoder has one more */
  readonly blocks: number;
  readonly hasQuantConv: boolean;
}

const kResnet = ['norm1', 'conv1', 'norm2', 'conv2'] as const;
const kAttention = ['norm', 'q', 'k', 'v', 'proj_out'] as const;

/** A canonical module name and whether it may be absent. */
type Module = readonly [name: string, optional?: true];

/** Every module of such a VAE under its canonical name. */
function vaeModules({ halves, levels, blocks, hasQuantConv }: VaeLayout): Module[] {
  const modules: Module[] = [];
  const add = (stem: string, names: readonly string[]): void => {
    for (const name of names) modules.push([stem + name]);
  };
  for (const half of halves) {
    add(`${half}.`, ['conv_in', 'norm_out', 'conv_out']);
    add(`${half}.mid.block_1.`, kResnet);
    add(`${half}.mid.attn_1.`, kAttention);
    add(`${half}.mid.block_2.`, kResnet);
    const [way, resize] = half === 'encoder' ? ['down', 'downsample'] : ['up', 'upsample'];
    for (let level = 0; level < levels; level++) {
      const stem = `${half}.${way}.${level}.`;
      for (let block = 0; block < (half === 'encoder' ? blocks : blocks + 1); block++) {
        add(`${stem}block.${block}.`, kResnet);
        modules.push([`${stem}block.${block}.nin_shortcut`, true]); // only where the channels change
      }
      if (half === 'encoder' ? level < levels - 1 : level > 0) add(stem, [`${resize}.conv`]);
    }
    if (hasQuantConv) add('', [half === 'encoder' ? 'quant_conv' : 'post_quant_conv']);
  }
  return modules;
}

/** Old diffusers called the attention's matrices otherwise; both are in use. */
const kDiffusersAttention: Readonly<Record<string, readonly string[]>> = {
  norm: ['group_norm'],
  q: ['query', 'to_q'],
  k: ['key', 'to_k'],
  v: ['value', 'to_v'],
  proj_out: ['proj_attn', 'to_out.0'],
};

/** @returns all names diffusers may store a canonical module under, today's last */
function diffusersNames(module: string, levels: number): string[] {
  const attention = /^(.*)\.mid\.attn_1\.(\w+)$/.exec(module);
  if (attention !== null)
    return kDiffusersAttention[attention[2]!]!.map(
      (name) => `${attention[1]}.mid_block.attentions.0.${name}`,
    );
  return [
    module
      .replace('.norm_out', '.conv_norm_out')
      .replace(/\.mid\.block_([12])\./, (_, n: string) => `.mid_block.resnets.${Number(n) - 1}.`)
      .replace(/\.down\.(\d+)\.block\./, '.down_blocks.$1.resnets.')
      .replace(/\.down\.(\d+)\.downsample\./, '.down_blocks.$1.downsamplers.0.')
      .replace(/\.up\.(\d+)\.block\./, (_, n: string) => `.up_blocks.${levels - 1 - Number(n)}.resnets.`)
      .replace(
        /\.up\.(\d+)\.upsample\./,
        (_, n: string) => `.up_blocks.${levels - 1 - Number(n)}.upsamplers.0.`,
      )
      .replace('.nin_shortcut', '.conv_shortcut'),
  ];
}

export function vaeEntries(layout: VaeLayout, naming: 'ldm' | 'diffusers'): NameEntry[] {
  return vaeModules(layout).flatMap(([module, optional]) =>
    ['weight', 'bias'].map((kind) => {
      const names = naming === 'ldm' ? [module] : diffusersNames(module, layout.levels);
      const storedAs: StoredAs[] = names.map((name) => ({ file: `${name}.${kind}` }));
      return { canonical: `${module}.${kind}`, storedAs, ...(optional && { optional }) };
    }),
  );
}
