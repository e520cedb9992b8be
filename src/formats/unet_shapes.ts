/** The shape of every tensor of a UNet, from how its blocks follow one another. */
import { unetPlan, type UnetLayout } from './names/unet.js';

export interface UnetSizes {
  readonly inputs: number;
  readonly outputs: number;
  /** channels of the first convolution, and width of the time's sinusoids */
  readonly model: number;
  /** width of the time embedding */
  readonly time: number;
  /** width of the vector that joins it; 0: none */
  readonly vector: number;
  /** width of the tokens that are attended to */
  readonly context: number;
  /** whether a transformer's projections are matrices (SDXL, SD2) or 1×1 convolutions (SD1) */
  readonly isMatrixProjection: boolean;
  /** channels of each level, finest first */
  readonly widths: readonly number[];
}

/** Canonical name → shape. A residual block's skip_connection is there only where its channels change. */
export function unetShapes(layout: UnetLayout, sizes: UnetSizes): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>();
  const put = (module: string, weight: readonly number[], hasBias = true): void => {
    shapes.set(`${module}.weight`, weight);
    if (hasBias) shapes.set(`${module}.bias`, [weight[0]!]);
  };
  const residual = (at: string, inputs: number, outputs: number): void => {
    put(`${at}.in_layers.0`, [inputs]);
    put(`${at}.in_layers.2`, [outputs, inputs, 3, 3]);
    put(`${at}.emb_layers.1`, [outputs, sizes.time]);
    put(`${at}.out_layers.0`, [outputs]);
    put(`${at}.out_layers.3`, [outputs, outputs, 3, 3]);
    if (inputs !== outputs) put(`${at}.skip_connection`, [outputs, inputs, 1, 1]);
  };
  const transformer = (at: string, width: number, depth: number): void => {
    if (depth === 0) return;
    const projection = sizes.isMatrixProjection ? [width, width] : [width, width, 1, 1];
    put(`${at}.norm`, [width]);
    put(`${at}.proj_in`, projection);
    put(`${at}.proj_out`, projection);
    for (let i = 0; i < depth; i++) {
      const block = `${at}.transformer_blocks.${i}`;
      for (const norm of ['norm1', 'norm2', 'norm3']) put(`${block}.${norm}`, [width]);
      for (const [attention, context] of [
        ['attn1', width],
        ['attn2', sizes.context],
      ] as const) {
        put(`${block}.${attention}.to_q`, [width, width], false);
        put(`${block}.${attention}.to_k`, [width, context], false);
        put(`${block}.${attention}.to_v`, [width, context], false);
        put(`${block}.${attention}.to_out.0`, [width, width]);
      }
      put(`${block}.ff.net.0.proj`, [8 * width, width]);
      put(`${block}.ff.net.2`, [width, 4 * width]);
    }
  };

  const { widths, model } = sizes;
  const plan = unetPlan(layout);
  const skips = [model];
  let width = model;
  put('input_blocks.0.0', [model, sizes.inputs, 3, 3]);
  for (const [level, { blocks, resample }] of plan.down.entries()) {
    for (const block of blocks) {
      residual(block.ldm, width, widths[level]!);
      transformer(block.transformer.ldm, widths[level]!, block.depth);
      width = widths[level]!;
      skips.push(width);
    }
    if (!resample) continue;
    put(resample.ldm, [width, width, 3, 3]);
    skips.push(width);
  }
  residual(plan.middle.first.ldm, width, width);
  transformer(plan.middle.transformer.ldm, width, layout.middle);
  residual(plan.middle.second.ldm, width, width);
  for (const [i, { blocks, resample }] of plan.up.entries()) {
    const outputs = widths[widths.length - 1 - i] ?? 0;
    for (const block of blocks) {
      residual(block.ldm, width + (skips.pop() ?? 0), outputs);
      transformer(block.transformer.ldm, outputs, block.depth);
      width = outputs;
    }
    if (resample) put(resample.ldm, [width, width, 3, 3]);
  }
  put('time_embed.0', [sizes.time, model]);
  put('time_embed.2', [sizes.time, sizes.time]);
  if (layout.hasVector) {
    put('label_emb.0.0', [sizes.time, sizes.vector]);
    put('label_emb.0.2', [sizes.time, sizes.time]);
  }
  put('out.0', [width]);
  put('out.2', [sizes.outputs, width, 3, 3]);
  return shapes;
}
