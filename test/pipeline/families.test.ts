/** Every family of image models from words to a picture, from every container, with small random networks. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { Picture } from '../../src/image/index.js';
import type { PartFiles } from '../../src/cli/image_models.js';
import { openModel, type UnetPart } from '../../src/formats/index.js';
import { openDenoiser } from '../../src/pipeline/image_parts.js';
import type { GenerateOptions } from '../../src/pipeline/image_types.js';
import { generated, pictureOf, tinyBench } from '../support/tiny_bench.js';
import { tinyUnet } from '../../bench/tiny/networks.js';
import {
  TINY,
  TINY_KINDS,
  tinyModel,
  writeDiffusers,
  writeGgufs,
  writeNetwork,
  writeSplit,
} from '../../bench/tiny/checkpoints.js';

const bench = tinyBench();

async function picture(files: string | PartFiles, options: GenerateOptions = {}): Promise<Picture> {
  const pipeline = await bench.pipeline(files);
  const made = await pictureOf(pipeline, options);
  await pipeline[Symbol.asyncDispose]();
  return made;
}

describe.each(TINY_KINDS)('%s', (kind) => {
  test('the same picture from a checkpoint, split files, a diffusers folder and GGUF files', async () => {
    const networks = tinyModel(kind);
    const split = await writeSplit(bench.path(kind, 'split'), networks);
    const expected = await picture(split);
    expect(await picture(await bench.checkpoint(kind, { model: networks }))).toEqual(expected);
    expect(await picture(await writeDiffusers(bench.path(kind, 'diffusers'), networks))).toEqual(expected);
    expect(await picture(await writeGgufs(bench.path(kind, 'gguf'), split, bench.cpu))).toEqual(expected);
    for (const made of ['split', 'diffusers', 'gguf']) rmSync(bench.path(kind, made), { recursive: true });
    const distinct = new Set(expected.rgb);
    expect(distinct.size, 'neither flat nor clipped everywhere').toBeGreaterThan(50);
  });
});

test('diffusers exchange shift and scale of an MMDiT’s last layer and last context block, nowhere else', async () => {
  const model = tinyModel('sd35_large');
  const { tensors } = openModel(`${await writeDiffusers(bench.path('exchanged'), model)}/transformer`);
  const halves = (data: Uint8Array) => [data.subarray(0, data.length / 2), data.subarray(data.length / 2)];
  for (const [stored, canonical, isExchanged] of [
    ['norm_out.linear.weight', 'final_layer.adaLN_modulation.1.weight', true],
    ['norm_out.linear.bias', 'final_layer.adaLN_modulation.1.bias', true],
    [
      'transformer_blocks.1.norm1_context.linear.weight',
      'joint_blocks.1.context_block.adaLN_modulation.1.weight',
      true,
    ],
    [
      'transformer_blocks.0.norm1_context.linear.weight',
      'joint_blocks.0.context_block.adaLN_modulation.1.weight',
      false,
    ],
    ['transformer_blocks.1.norm1.linear.weight', 'joint_blocks.1.x_block.adaLN_modulation.1.weight', false],
  ] as const) {
    const { path, offset, bytes } = tensors.get(stored)!;
    const [first, second] = halves(model.denoiser.tensors.get(canonical)!.data);
    const expected = Buffer.concat(isExchanged ? [second!, first!] : [first!, second!]);
    expect(
      readFileSync(path)
        .subarray(offset, offset + bytes)
        .equals(expected),
      stored,
    ).toBe(true);
  }
});

describe('what a UNet predicts', () => {
  const told = async (name: string, markers: readonly string[]) =>
    await generated(await bench.pipeline(await bench.checkpoint('sd1', { name, markers })));

  test('markers in the file tell velocities and a last step of pure noise', async () => {
    const [eps, v, zsnr] = [
      await told('eps.safetensors', []),
      await told('v.safetensors', ['v_pred']),
      await told('z.safetensors', ['v_pred', 'ztsnr']),
    ];
    expect(v.sigmas).toEqual(eps.sigmas);
    expect(v.pictures[0]!.picture).not.toEqual(eps.pictures[0]!.picture);
    expect(zsnr.sigmas[0]).toBeGreaterThan(1000);
    expect(zsnr.pictures[0]!.picture).not.toEqual(v.pictures[0]!.picture);
    // The same as a caller says it.
    const given = await bench.pipeline(await bench.checkpoint('sd1'), {
      config: { prediction_type: 'v_prediction' },
    });
    expect(await pictureOf(given)).toEqual(v.pictures[0]!.picture);
  });

  test('in SD2’s checkpoints, which have none, the spread of a norm’s biases does', async () => {
    const full = { widths: [32, 32, 32, 32], blocks: 2, isMatrixProjection: true };
    const norm = 'output_blocks.11.1.transformer_blocks.0.norm1.bias';
    const predicted = async (spread: number, inputs = 4, context: number = TINY.clip_h) => {
      const unet = tinyUnet({ ...full, context, inputs });
      const biases = Float32Array.from({ length: 32 }, (_, i) => (i % 2 === 0 ? spread : -spread));
      const tensors = new Map(unet.tensors);
      tensors.set(norm, { dtype: 'F32', shape: [32], data: new Uint8Array(biases.buffer) });
      const path = await writeNetwork(bench.path('sd2.safetensors'), { ...unet, tensors });
      const { config, notes } = openDenoiser(path) as UnetPart;
      return [config.prediction, notes.length];
    };
    expect(await predicted(0.08)).toEqual(['eps', 0]);
    expect(await predicted(0.1)).toEqual(['v', 1]);
    expect(await predicted(0.1, 9), 'for inpainting').toEqual(['eps', 0]);
    expect(await predicted(0.1, 4, 768), 'SD1').toEqual(['eps', 0]);
    expect(await predicted(NaN)).toEqual(['eps', 0]);
  });

  test('or the scheduler of a diffusers folder does', async () => {
    const folder = await writeDiffusers(bench.path('scheduled'), tinyModel('sd1'));
    mkdirSync(`${folder}/scheduler`);
    const scheduler = { prediction_type: 'v_prediction', rescale_betas_zero_snr: true };
    writeFileSync(`${folder}/scheduler/scheduler_config.json`, JSON.stringify(scheduler));
    const { denoiser } = await bench.pipeline(folder);
    expect(denoiser.config).toMatchObject({ prediction: 'v', zero_terminal_snr: true });
  });
});
