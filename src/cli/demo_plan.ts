/** What `kotoba demo` makes: prompts, grids, and the commands that would make each of them by hand. */
import { readdirSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { CompareColumn } from '../pipeline/compare.js';
import { SHIPPED_T5, shippedModel } from '../pipeline/shipped_model.js';
import type { Device } from '../runtime/device.js';
import { compareColumns, type EncoderFile } from './compare_columns.js';
import { imageModelFiles } from './image_models.js';

export const DEMO_SEED = 1n;

/** The two T5s that ship, by the names that --t5 knows them by. */
const ORDINARY = basename(SHIPPED_T5.t5().path);
const BETTER = basename(SHIPPED_T5['flan-t5']().path);
const shippedFolder = (): string => dirname(shippedModel().denoiser);

/** One and two shapes; pairs of prompts that differ in nothing but what belongs to what. */
export const DEMO_PROMPTS: readonly string[] = [
  'a red circle on a blue background',
  'a white ring on a purple background',
  'a small yellow star in the top right corner on a black background',
  'a green cross on a white background',
  'a green triangle to the left of a red circle on a white background',
  'a red triangle to the left of a green circle on a white background',
  'a purple star above an orange square on a black background',
  'an orange star above a purple square on a black background',
];

export interface DemoGrid {
  /** file name without extension */
  readonly name: string;
  readonly title: string;
  /** what to see in it */
  readonly text: string;
  readonly prompts: readonly string[];
  readonly seeds: readonly bigint[];
  readonly columns: readonly CompareColumn[];
  /** makes the same grid */
  readonly command: string;
}

/** One shape, which both T5s know; then words that say what belongs to what; then synonyms. */
const ENCODER_PROMPTS: readonly string[] = [
  'a red star',
  'a red star above a blue ring',
  'a green triangle to the left of a red circle on a white background',
  'a tiny emerald hoop beneath a crimson box',
];
const PRECISION_PROMPTS: readonly string[] = [
  'a green triangle to the left of a red circle on a white background',
  'a small yellow star in the top right corner on a black background',
];

/** @param device the precision grid has what it can do */
export function demoGrids(device: Device): DemoGrid[] {
  const encoders = grid({
    name: 'encoders',
    title: 'The same seed, a better text encoder',
    text:
      'Only the T5 differs: t5 learned single shapes and plain words, flan_t5 also pairs, places and synonyms. Flux, ' +
      'CLIP-L, autoencoder, seed and noise are the same. Where both understand the prompt, the difference is smaller ' +
      'than what another seed makes (grey); where only one does, it decides the picture. This is the experiment that ' +
      'Kotoba grew from.',
    prompts: ENCODER_PROMPTS,
    seeds: [1n, 2n],
    t5: [{ name: ORDINARY }, { name: BETTER }],
    device,
  });
  const fewer = device.isGpu ? ({ precision: 'bf16', activations: '16-bit' } as const) : EIGHT_BITS;
  const precision = grid({
    name: 'precision',
    title: 'The same T5 in fewer bits',
    text:
      `The better T5 exactly as trained, with ${fewer.activations} activations, and with its weights in the GGUF types ` +
      'that ship beside it. A cell is grey where it differs by no more than another seed makes it.',
    prompts: PRECISION_PROMPTS,
    seeds: [1n],
    t5: [
      { name: BETTER, precision: 'fp32' },
      { name: BETTER, precision: fewer.precision },
      ...quantisedT5s(),
    ],
    device,
  });
  return [encoders, precision];
}

const EIGHT_BITS = { precision: 'int8', activations: '8-bit' } as const;

/** Files of the better T5 that ship beside it, most bits first. */
function quantisedT5s(): EncoderFile[] {
  const bits = (name: string): number => Number(/Q(\d)/i.exec(name)?.[1] ?? 0);
  return readdirSync(shippedFolder())
    .filter((name) => name.startsWith(BETTER) && name.endsWith('.gguf'))
    .sort((a, b) => bits(b) - bits(a) || (a < b ? -1 : 1))
    .map((name) => ({ name: basename(name, '.gguf') }));
}

/** The columns are what the command means, so that both make the same grid. */
function grid(
  options: Omit<DemoGrid, 'columns' | 'command'> & {
    readonly t5: readonly EncoderFile[];
    readonly device: Device;
  },
): DemoGrid {
  const { t5, device, ...rest } = options;
  const own = imageModelFiles({}, []);
  const prompts = rest.prompts.map(quoted).join(' ');
  const t5s = t5.map(({ name, precision }) => `--t5 ${name}${precision ? `@${precision}` : ''}`);
  return {
    ...rest,
    columns: compareColumns({ t5 }, own, [shippedFolder()], device),
    command: `npx kotoba compare ${prompts} --seeds ${rest.seeds.join(',')} ${t5s.join(' ')} -o ${rest.name}.png`,
  };
}

export const generateCommandFor = (prompt: string, file: string): string =>
  `npx kotoba generate ${quoted(prompt)} --seed ${DEMO_SEED} -o ${file}`;

const quoted = (text: string): string => `"${text}"`;

/** What to type after the demo. */
export const NEXT_COMMANDS: readonly string[] = [
  'npx kotoba generate "a small blue star below a large orange ring" --seed 7',
  'npx kotoba compare "a red square on the left and a blue circle on the right" --seeds 1,2,3',
  `npx kotoba generate "a sparrow on a girl's hand" --model flux1-schnell.safetensors --vae ae.safetensors ` +
    '--clip-l clip_l.safetensors --t5 t5xxl-Q8_0.gguf',
];
