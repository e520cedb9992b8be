/**
 * Which tensors a Stable Diffusion 1 checkpoint holds, as v1-5-pruned-emaonly has them, but for the constants of its
 * training: UNet, CLIP-L and autoencoder in one file, under the LDM's names. Values keep every block's share of the
 * stream small but felt, and the picture inside of what can be shown.
 */
import { unetPlan } from '../src/formats/index.js';
import { vaeTensors, type VaeDims } from './image_layout.js';
import {
  clipTensors,
  norm,
  small,
  sortedByName,
  type ClipDims,
  type Distribution,
  type PlannedTensor,
} from './model_layout.js';

export interface UnetDims {
  /** Channels of the first convolution; the levels' are multiples of it. */
  readonly model: number;
  readonly multiples: readonly number[];
  /** Residual blocks of a level on the way down. */
  readonly blocks: number;
  /** How many of the levels, from the finest, have transformers. */
  readonly attending: number;
  /** Width of the text encoder's states. */
  readonly context: number;
}

export interface Sd1Dims {
  readonly unet: UnetDims;
  readonly vae: VaeDims;
  readonly clip: ClipDims;
}

export type Sd1Type = 'F32' | 'F16';

const latentChannels = 4;
/** Root mean square of the SiLU of a unit normal; GELU's is much the same. */
const siluRms = 0.6;
/** Of a block's branch beside the stream of deviation 1. */
const share = 0.4;
/**
 * What some steps of a UNet that has learnt nothing leave is 15 to 25 times, and 1 / scale_factor again, as large as what
 * the autoencoder is made for.
 */
const latentGain = 1 / 100;

const gained = (fanIn: number, gain: number): Distribution => ({ mean: 0, std: gain / Math.sqrt(fanIn) });

/** All tensors, in the order of safetensors' own writer. */
export function sd1Tensors({ unet, vae, clip }: Sd1Dims, type: Sd1Type): PlannedTensor[] {
  const under = (prefix: string, tensors: readonly PlannedTensor[]): PlannedTensor[] =>
    tensors.map((tensor) => ({ ...tensor, name: `${prefix}.${tensor.name}` }));
  return sortedByName([
    ...under('cond_stage_model.transformer', clipTensors(clip, type)),
    ...under('first_stage_model', vaeTensors(vae, { latentChannels, latentGain, type })),
    ...under('model.diffusion_model', unetTensors(unet, type)),
  ]);
}

type Add = (at: string, shape: number[], gain: number, hasBias?: boolean) => void;

function unetTensors(dims: UnetDims, type: Sd1Type): PlannedTensor[] {
  const tensors: PlannedTensor[] = [];
  const put = (name: string, shape: number[], values: Distribution) =>
    tensors.push({ name, shape, type, values });
  const add: Add = (at, shape, gain, hasBias = true) => {
    put(
      `${at}.weight`,
      shape,
      gained(
        shape.slice(1).reduce((a, b) => a * b, 1),
        gain,
      ),
    );
    if (hasBias) put(`${at}.bias`, [shape[0]!], small);
  };
  const addNorm = (at: string, width: number) => {
    put(`${at}.weight`, [width], norm);
    put(`${at}.bias`, [width], small);
  };
  addUnet(dims, add, addNorm);
  return tensors;
}

function addUnet(dims: UnetDims, add: Add, addNorm: (at: string, width: number) => void): void {
  const { model, multiples, blocks, attending, context } = dims;
  const time = 4 * model;
  const widths = multiples.map((multiple) => multiple * model);
  const levels = widths.map((width, level) => ({ width, depth: level < attending ? 1 : 0 }));
  const resnet = (at: string, inputs: number, outputs: number) => {
    addNorm(`${at}.in_layers.0`, inputs);
    add(`${at}.in_layers.2`, [outputs, inputs, 3, 3], 1 / siluRms);
    add(`${at}.emb_layers.1`, [outputs, time], share / siluRms);
    addNorm(`${at}.out_layers.0`, outputs);
    add(`${at}.out_layers.3`, [outputs, outputs, 3, 3], share / siluRms);
    if (inputs !== outputs) add(`${at}.skip_connection`, [outputs, inputs, 1, 1], 1);
  };
  const transformer = (at: string, width: number) => {
    addNorm(`${at}.norm`, width);
    add(`${at}.proj_in`, [width, width, 1, 1], 1);
    addTransformerBlock(`${at}.transformer_blocks.0`, width, context, add, addNorm);
    add(`${at}.proj_out`, [width, width, 1, 1], share);
  };
  const plan = unetPlan({
    down: levels.map(({ depth }) => new Array<number>(blocks).fill(depth)),
    middle: 1,
    up: levels.toReversed().map(({ depth }) => new Array<number>(blocks + 1).fill(depth)),
    hasVector: false,
  });

  const skips = [model];
  let width = model;
  for (const [level, stage] of plan.down.entries()) {
    for (const block of stage.blocks) {
      resnet(block.ldm, width, widths[level]!);
      width = widths[level]!;
      if (block.depth) transformer(block.transformer.ldm, width);
      skips.push(width);
    }
    if (!stage.resample) continue;
    add(stage.resample.ldm, [width, width, 3, 3], 1);
    skips.push(width);
  }
  resnet(plan.middle.first.ldm, width, width);
  transformer(plan.middle.transformer.ldm, width);
  resnet(plan.middle.second.ldm, width, width);
  for (const [i, stage] of plan.up.entries()) {
    const outputs = widths.at(-1 - i)!;
    for (const block of stage.blocks) {
      resnet(block.ldm, width + skips.pop()!, outputs);
      width = outputs;
      if (block.depth) transformer(block.transformer.ldm, width);
    }
    if (stage.resample) add(stage.resample.ldm, [width, width, 3, 3], 1);
  }
  add('input_blocks.0.0', [model, latentChannels, 3, 3], 1);
  add('time_embed.0', [time, model], 1);
  add('time_embed.2', [time, time], 1 / siluRms);
  addNorm('out.0', width);
  add('out.2', [latentChannels, width, 3, 3], 1 / siluRms);
}

function addTransformerBlock(
  at: string,
  width: number,
  context: number,
  add: Add,
  addNorm: (at: string, width: number) => void,
): void {
  for (const part of ['norm1', 'norm2', 'norm3']) addNorm(`${at}.${part}`, width);
  for (const [attention, tokens] of [
    ['attn1', width],
    ['attn2', context],
  ] as const) {
    add(`${at}.${attention}.to_q`, [width, width], 1, false);
    add(`${at}.${attention}.to_k`, [width, tokens], 1, false);
    add(`${at}.${attention}.to_v`, [width, tokens], 1, false);
    add(`${at}.${attention}.to_out.0`, [width, width], 1); // an average over many tokens is small already
  }
  add(`${at}.ff.net.0.proj`, [8 * width, width], 1);
  add(`${at}.ff.net.2`, [width, 4 * width], share / siluRms);
}
