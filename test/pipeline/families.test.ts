/** Every family of image models from words to a picture, from every container, with small random networks. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { Picture } from '../../src/image/index.js';
import type { PartFiles } from '../../src/cli/image_models.js';
import type { GenerateOptions } from '../../src/pipeline/image_types.js';
import { generated, pictureOf, tinyBench } from '../support/tiny_bench.js';
import {
  TINY_KINDS,
  tinyModel,
  writeDiffusers,
  writeGgufs,
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

  test('or the scheduler of a diffusers folder does', async () => {
    const folder = await writeDiffusers(bench.path('scheduled'), tinyModel('sd1'));
    mkdirSync(`${folder}/scheduler`);
    const scheduler = { prediction_type: 'v_prediction', rescale_betas_zero_snr: true };
    writeFileSync(`${folder}/scheduler/scheduler_config.json`, JSON.stringify(scheduler));
    const { denoiser } = await bench.pipeline(folder);
    expect(denoiser.config).toMatchObject({ prediction: 'v', zero_terminal_snr: true });
  });
});
