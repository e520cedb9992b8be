/**
 * Which tensors the image models of the benches hold: a Flux.1 [schnell] transformer as city96's GGUF files have it, and
 * its autoencoder as ae.safetensors has it. Values keep every block's share of the residual stream small but felt.
 */
import {
  norm,
  small,
  sortedByName,
  type Distribution,
  type PlannedTensor,
  type StoredType,
} from './model_layout.js';

export interface FluxDims {
  readonly hidden: number;
  readonly heads: number;
  readonly depth: number;
  readonly depthSingle: number;
  /** Width of T5's states. */
  readonly context: number;
  /** Width of CLIP's pooled state. */
  readonly vector: number;
}

export interface VaeDims {
  readonly ch: number;
  readonly multiples: readonly number[];
  readonly blocks: number;
}

export type FluxType = 'Q4_0' | 'Q8_0' | 'Q4_K' | 'F16';

/** Values in a 2 × 2 patch of 16 latent channels. */
const patchWidth = 64;
const sinusoids = 256;
const mlpRatio = 4;
/** city96's K-quant files keep a matrix that they do not quantise in F32 up to this many weights. */
const mostF32Weights = 5_000_000;

/** A matrix whose output has the deviation `gain` for an input of deviation 1. */
const gained = (fanIn: number, gain: number): Distribution => ({ mean: 0, std: gain / Math.sqrt(fanIn) });

/** SiLU of a unit normal has this root mean square; GELU's is much the same. */
const siluRms = 0.6;
/** Of modulations, shifts, scales and gates alike: 57 gated blocks then grow the stream about 2.5-fold. */
const modulation = 0.3;

/** @param type  of the blocks' matrices; the others are F32 or F16, as in the public file of this type */
export function fluxTensors(dims: FluxDims, type: FluxType): PlannedTensor[] {
  const { hidden, heads, depth, depthSingle, context, vector } = dims;
  const mlp = mlpRatio * hidden;
  const tensors: PlannedTensor[] = [];
  const add = (name: string, shape: number[], stored: StoredType, values: Distribution) =>
    tensors.push({ name, shape, type: stored, values });
  const linear = (at: string, shape: [number, number], stored: StoredType, values: Distribution) => {
    add(`${at}.weight`, shape, stored, values);
    add(`${at}.bias`, [shape[0]], type === 'Q4_K' ? 'F32' : 'F16', small);
  };
  const outer = (at: string, out: number, fanIn: number, gain = 1) =>
    linear(at, [out, fanIn], outerType(type, out * fanIn), gained(fanIn, gain));
  const inner = (at: string, out: number, fanIn: number, gain = 1) =>
    linear(at, [out, fanIn], type, gained(fanIn, gain));
  const headNorms = (at: string) => {
    for (const part of ['key_norm', 'query_norm'])
      add(`${at}.${part}.scale`, [hidden / heads], type === 'Q4_K' ? 'F32' : 'F16', norm);
  };
  for (let i = 0; i < depth; i++)
    for (const side of ['img', 'txt']) {
      const at = `double_blocks.${i}.${side}`;
      headNorms(`${at}_attn.norm`);
      inner(`${at}_attn.qkv`, 3 * hidden, hidden);
      inner(`${at}_attn.proj`, hidden, hidden);
      inner(`${at}_mlp.0`, mlp, hidden);
      inner(`${at}_mlp.2`, hidden, mlp, 1 / siluRms);
      inner(`${at}_mod.lin`, 6 * hidden, hidden, modulation / siluRms);
    }
  for (let i = 0; i < depthSingle; i++) {
    const at = `single_blocks.${i}`;
    headNorms(`${at}.norm`);
    inner(`${at}.linear1`, 3 * hidden + mlp, hidden);
    inner(`${at}.linear2`, hidden, hidden + mlp, 1 / siluRms);
    inner(`${at}.modulation.lin`, 3 * hidden, hidden, modulation / siluRms);
  }
  for (const [at, inputs] of [
    ['time_in', sinusoids],
    ['vector_in', vector],
  ] as const) {
    outer(`${at}.in_layer`, hidden, inputs);
    outer(`${at}.out_layer`, hidden, hidden, 1 / siluRms);
  }
  outer('img_in', hidden, patchWidth);
  outer('txt_in', hidden, context);
  outer('final_layer.adaLN_modulation.1', 2 * hidden, hidden, modulation / siluRms);
  outer('final_layer.linear', patchWidth, hidden);
  return sortedByName(tensors);
}

function outerType(type: FluxType, weights: number): StoredType {
  return type === 'Q4_K' && weights < mostF32Weights ? 'F32' : 'F16';
}

/** llama.cpp's numbers of the file types. */
const fileTypes: Record<FluxType, number> = { F16: 1, Q4_0: 2, Q8_0: 7, Q4_K: 14 };

/** All that city96's files tell. */
export function fluxMetadata(type: FluxType): Record<string, string | number> {
  return {
    'general.architecture': 'flux',
    'general.quantization_version': 2,
    'general.file_type': fileTypes[type],
  };
}

export interface VaeLatents {
  readonly latentChannels: number;
  /** Of 1×1 convolutions between moments and latents, where the model has them. */
  readonly latentGain?: number;
  readonly type: StoredType;
}

const fluxLatents: VaeLatents = { latentChannels: 16, type: 'F32' };

/** An autoencoder in the LDM's naming, Flux's unless told; tensors in the order of safetensors' own writer. */
export function vaeTensors(
  { ch, multiples, blocks }: VaeDims,
  { latentChannels, latentGain, type }: VaeLatents = fluxLatents,
): PlannedTensor[] {
  const tensors: PlannedTensor[] = [];
  const add = (name: string, shape: number[], values: Distribution) =>
    tensors.push({ name, shape, type, values });
  const conv = (at: string, out: number, fanIn: number, side: 1 | 3, gain = 1) => {
    add(`${at}.weight`, [out, fanIn, side, side], gained(fanIn * side * side, gain));
    add(`${at}.bias`, [out], small);
  };
  const addNorm = (at: string, width: number) => {
    add(`${at}.weight`, [width], norm);
    add(`${at}.bias`, [width], small);
  };
  const resnet = (at: string, inputs: number, outputs: number) => {
    addNorm(`${at}.norm1`, inputs);
    conv(`${at}.conv1`, outputs, inputs, 3);
    addNorm(`${at}.norm2`, outputs);
    conv(`${at}.conv2`, outputs, outputs, 3);
    if (inputs !== outputs) conv(`${at}.nin_shortcut`, outputs, inputs, 1);
  };
  const middle = (at: string, width: number) => {
    resnet(`${at}.block_1`, width, width);
    addNorm(`${at}.attn_1.norm`, width);
    for (const part of ['q', 'k', 'v', 'proj_out']) conv(`${at}.attn_1.${part}`, width, width, 1);
    resnet(`${at}.block_2`, width, width);
  };
  const widths = multiples.map((multiple) => ch * multiple);
  const top = widths.at(-1)!;

  conv('encoder.conv_in', ch, 3, 3);
  for (const [level, width] of widths.entries()) {
    const at = `encoder.down.${level}`;
    const inputs = widths[level - 1] ?? ch;
    for (let i = 0; i < blocks; i++) resnet(`${at}.block.${i}`, i === 0 ? inputs : width, width);
    if (level + 1 < widths.length) conv(`${at}.downsample.conv`, width, width, 3);
  }
  middle('encoder.mid', top);
  addNorm('encoder.norm_out', top);
  conv('encoder.conv_out', 2 * latentChannels, top, 3);
  if (latentGain !== undefined) {
    conv('quant_conv', 2 * latentChannels, 2 * latentChannels, 1);
    conv('post_quant_conv', latentChannels, latentChannels, 1, latentGain);
  }

  conv('decoder.conv_in', top, latentChannels, 3);
  middle('decoder.mid', top);
  for (const [level, width] of widths.entries()) {
    const at = `decoder.up.${level}`;
    const inputs = widths[level + 1] ?? top;
    for (let i = 0; i <= blocks; i++) resnet(`${at}.block.${i}`, i === 0 ? inputs : width, width);
    if (level > 0) conv(`${at}.upsample.conv`, width, width, 3);
  }
  addNorm('decoder.norm_out', ch);
  // Most pixels then lie inside -1 … 1, where a picture shows differences.
  conv('decoder.conv_out', 3, ch, 3, 0.4 / siluRms);
  return sortedByName(tensors);
}
