/** Damaged checkpoints of SD1, SDXL and SD3: an error that names network and place, never a picture. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { tinyModel, writeCheckpoint, type TinyKind } from '../../bench/tiny/checkpoints.js';
import { Device, ImagePipeline } from '../../src/index.js';
import { modelOf } from '../support/tiny_bench.js';
import { plant } from './image_scratch.js';
import { outcomeOf, useScratch } from './scratch.js';

const scratch = useScratch();
const kinds = ['sd1', 'sdxl', 'sd35_medium'] as const;
const whole = new Map<TinyKind, Buffer>();
let device: Device;
beforeAll(async () => {
  device = Device.open('cpu', { threads: 2 });
  for (const kind of kinds)
    whole.set(
      kind,
      readFileSync(await writeCheckpoint(`${scratch.dir}/${kind}.safetensors`, tinyModel(kind))),
    );
});
afterAll(() => device.close());

/** A whole one, under its name. */
const restored = (kind: TinyKind): string => scratch.put(`${kind}.safetensors`, whole.get(kind)!);

const SIZE = { width: 32, height: 32, steps: 2, seed: 1 };
async function draw(path: string): Promise<void> {
  await using pipeline = await ImagePipeline.load(modelOf(path), { device, precision: 'fp32' });
  await pipeline.generate('a sparrow', SIZE);
}

describe('one weight that is not finite', () => {
  test.each<[(typeof kinds)[number], string, RegExp]>([
    ['sd1', 'model.diffusion_model.input_blocks.0.0.weight', /^UNet: input_blocks\.0: /],
    ['sd1', 'model.diffusion_model.time_embed.2.bias', /^UNet: input_blocks\.1: /],
    ['sd1', 'model.diffusion_model.input_blocks.1.1.proj_in.weight', /^UNet: input_blocks\.1: /],
    ['sd1', 'model.diffusion_model.input_blocks.2.0.op.bias', /^UNet: input_blocks\.2: /],
    ['sd1', 'model.diffusion_model.middle_block.2.out_layers.3.weight', /^UNet: middle_block: /],
    ['sd1', 'model.diffusion_model.output_blocks.1.2.conv.weight', /^UNet: output_blocks\.1: /],
    ['sd1', 'model.diffusion_model.out.2.bias', /^UNet: final layer: /],
    ['sdxl', 'model.diffusion_model.label_emb.0.2.weight', /^UNet: input_blocks\.1: /],
    ['sdxl', 'conditioner.embedders.1.model.text_projection', /^clip_g: .*projection/],
    ['sdxl', 'first_stage_model.post_quant_conv.bias', /safetensors: decoder /],
    ['sd35_medium', 'model.diffusion_model.x_embedder.proj.weight', /^MMDiT: joint_blocks\.0: /],
    ['sd35_medium', 'model.diffusion_model.y_embedder.mlp.2.bias', /^MMDiT: joint_blocks\.0: /],
    [
      'sd35_medium',
      'model.diffusion_model.joint_blocks.0.x_block.attn2.ln_q.weight',
      /^MMDiT: joint_blocks\.0: /,
    ],
    [
      'sd35_medium',
      'model.diffusion_model.joint_blocks.1.context_block.attn.ln_k.weight',
      /^MMDiT: joint_blocks\.1: /,
    ],
    ['sd35_medium', 'model.diffusion_model.final_layer.linear.weight', /^MMDiT: final layer: /],
  ])('%s: %s', async (kind, tensor, message) => {
    for (const what of ['nan', 'inf'] as const) {
      const path = restored(kind);
      plant(path, tensor, what, 'first');
      const outcome = await outcomeOf(() => draw(path));
      expect(outcome.code, `${what}: ${outcome.message}`).toBe('ERR_NON_FINITE');
      expect(outcome.message).toMatch(message);
    }
  });
});

describe.each(kinds)('%s: a checkpoint that is cut', (kind) => {
  test('anywhere: a coded error', async () => {
    const bytes = whole.get(kind)!;
    for (let i = 0; i < 40; i++) {
      const length = Math.floor((bytes.length * i) / 40);
      const outcome = await outcomeOf(() => draw(scratch.put('cut.safetensors', bytes.subarray(0, length))));
      expect(outcome.code, `${length} bytes: ${outcome.message}`).toMatch(
        /^ERR_(SAFETENSORS|FILE|FORMAT|MODEL)/,
      );
    }
  });

  test('while a pipeline has it: that request fails, the next one too, a new pipeline works', async () => {
    const path = restored(kind);
    for (const residency of ['lean', 'keep'] as const) {
      writeFileSync(path, whole.get(kind)!);
      await using pipeline = await ImagePipeline.load(modelOf(path), { device, residency });
      await pipeline.generate('a sparrow', SIZE);
      truncateSync(path, whole.get(kind)!.length / 2);
      for (const prompt of ['a cat', 'a dog'])
        expect(await outcomeOf(() => pipeline.generate(prompt, SIZE)), residency).toMatchObject({
          code: expect.stringMatching(/^ERR_(FILE|SAFETENSORS)_/) as string,
        });
      writeFileSync(path, whole.get(kind)!);
      await draw(path);
    }
  });
});
