/** Floating-point operations of a picture, counted from the shapes: 2 for every weight that meets a row of input. */
import { SINUSOID_WIDTH } from '../src/diffusion/flux_model.js';
import { unetPlan, type FluxConfig, type UnetConfig, type VaeConfig } from '../src/formats/index.js';
import type { DenoiserPart } from '../src/pipeline/image_types.js';

/** Tokens of text; sides of the latents. */
export interface EvaluationSize {
  readonly text: number;
  readonly height: number;
  readonly width: number;
}

/** One evaluation of a denoiser that the benches have files of. */
export function denoiserFlops({ slot, family, config }: DenoiserPart, size: EvaluationSize): number {
  const { text, height, width } = size;
  if (slot === 'unet') return unetFlops(config, size);
  if (family === 'flux') return fluxFlops(config, text, (height / 2) * (width / 2));
  throw new RangeError(`no count of operations for ${family}`);
}

/** One evaluation of a UNet for one picture. */
export function unetFlops(config: UnetConfig, { text, height, width }: EvaluationSize): number {
  const { widths, model_channels: model, context_dim: context, layout } = config;
  const plan = unetPlan(layout);
  let pixels = height * width;
  const kernel = 3 * 3;
  const time = 4 * model;
  const resnet = (inputs: number, outputs: number): number =>
    pixels * (kernel * outputs * (inputs + outputs) + (inputs === outputs ? 0 : inputs * outputs)) +
    time * outputs;
  const transformer = (channels: number, depth: number): number => {
    const toPixels = 4 * channels * channels + 2 * pixels * channels;
    const toText = 2 * channels * channels + 2 * text * channels;
    const block = pixels * (toPixels + toText + 12 * channels * channels) + 2 * text * context * channels;
    return depth === 0 ? 0 : depth * block + 2 * pixels * channels * channels;
  };
  let total = pixels * kernel * config.in_channels * model + (model + time) * time;
  total += config.adm_in_channels > 0 ? (config.adm_in_channels + time) * time : 0;
  let channels = model;
  const skips = [model];
  for (const [level, { blocks, resample }] of plan.down.entries()) {
    for (const { depth } of blocks) {
      total += resnet(channels, widths[level]!) + transformer(widths[level]!, depth);
      skips.push((channels = widths[level]!));
    }
    if (!resample) continue;
    pixels /= 4;
    total += pixels * kernel * channels * channels;
    skips.push(channels);
  }
  total += 2 * resnet(channels, channels) + transformer(channels, layout.middle);
  for (const [i, { blocks, resample }] of plan.up.entries()) {
    const outputs = widths.at(-1 - i)!;
    for (const { depth } of blocks) {
      total += resnet(channels + skips.pop()!, outputs) + transformer(outputs, depth);
      channels = outputs;
    }
    if (!resample) continue;
    pixels *= 4;
    total += pixels * kernel * channels * channels;
  }
  return 2 * (total + pixels * kernel * channels * config.out_channels);
}

/** One evaluation of the transformer for one picture: matrices, attention's two products, modulations. */
export function fluxFlops(config: FluxConfig, textTokens: number, imageTokens: number): number {
  const { hidden_size: h, in_channels, out_channels, context_in_dim, vec_in_dim, guidance_embed } = config;
  const { depth, depth_single_blocks } = config;
  const mlp = h * config.mlp_ratio;
  const tokens = textTokens + imageTokens;
  // A single block keeps the same matrices in two: linear1 is qkv and the MLP's first, linear2 proj and its second.
  const block = 4 * h * h + 2 * h * mlp;
  const perImageToken = in_channels * h + depth * block + h * out_channels;
  const perTextToken = context_in_dim * h + depth * block;
  const perToken = depth_single_blocks * block;
  const vectorMlp = (inputs: number): number => (inputs + h) * h;
  const embeddings = (guidance_embed ? 2 : 1) * vectorMlp(SINUSOID_WIDTH) + vectorMlp(vec_in_dim);
  const modulations = (12 * depth + 3 * depth_single_blocks + 2) * h * h;
  const attention = 2 * tokens * tokens * h * (depth + depth_single_blocks);
  const weights = perImageToken * imageTokens + perTextToken * textTokens + perToken * tokens;
  return 2 * (weights + embeddings + modulations + attention);
}

/** Decoding latents of height × width in one tile: convolutions, and the one attention over all latents. */
export function decodeFlops(config: VaeConfig, height: number, width: number): number {
  const { ch, ch_mult, num_res_blocks, z_channels, out_ch } = config;
  const widths = ch_mult.map((multiple) => ch * multiple);
  const top = widths.at(-1)!;
  const kernel = 3 * 3;
  let pixels = height * width;
  const resnet = (inputs: number, outputs: number): number =>
    pixels * (kernel * outputs * (inputs + outputs) + (inputs === outputs ? 0 : inputs * outputs));
  let total = pixels * (kernel * z_channels * top + (config.quant_conv ? z_channels ** 2 : 0));
  total += 2 * resnet(top, top) + pixels * 4 * top * top + 2 * pixels * pixels * top;
  for (let level = widths.length - 1; level >= 0; level--) {
    const [inputs, outputs] = [widths[level + 1] ?? top, widths[level]!];
    for (let i = 0; i <= num_res_blocks; i++) total += resnet(i === 0 ? inputs : outputs, outputs);
    if (level === 0) continue;
    pixels *= 4;
    total += pixels * kernel * outputs * outputs;
  }
  total += pixels * kernel * widths[0]! * out_ch;
  return 2 * total;
}
