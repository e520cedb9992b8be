/** The whole way from words to a picture, with the small model that ships. */
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openModel } from '../../src/formats/index.js';
import { readNumbers } from '../../src/formats/read.js';
import { pictureDistance, type Picture } from '../../src/image/index.js';
import {
  decoderActivations,
  denoiserActivations,
  requireMemory,
} from '../../src/pipeline/painting/activation_memory.js';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import type { DenoiserPart, GenerateOptions, GenerateProgress } from '../../src/pipeline/image_types.js';
import { SHIPPED_T5, shippedModel } from '../../src/pipeline/shipped_model.js';
import { isCpu, openTarget, TARGETS } from '../support/devices.js';
import { golden } from '../support/golden.js';
import { relativeL2 } from '../support/reference.js';

const PROMPT = 'a red circle to the left of a small blue square on a yellow background';
const PARITY = resolve(dirname(fileURLToPath(import.meta.url)), '../pictures/parity.safetensors');

let pipeline: ImagePipeline;
beforeAll(async () => {
  pipeline = await ImagePipeline.load(shippedModel());
});
afterAll(async () => {
  await pipeline[Symbol.asyncDispose]();
});

async function picture(options: GenerateOptions = {}, prompt = PROMPT): Promise<Picture> {
  return (await pipeline.generate(prompt, { seed: 1, ...options })).pictures[0]!.picture;
}

describe('parity with the PyTorch code that trained it', () => {
  const tensors = openModel(PARITY).tensors;
  const expected = (name: string) => readNumbers(tensors.get(name)!);

  test('text states, picture', async () => {
    const { conditioning, pictures } = await pipeline.generate(PROMPT, { seed: 42 }); // its noise is torch.randn of this seed
    expect(relativeL2(conditioning.hidden, expected('t5_hidden'))).toBeLessThan(2e-5);
    expect(relativeL2(conditioning.pooled!, expected('clip_pooled'))).toBeLessThan(2e-5);
    const bytes = pictures[0]!.picture.rgb;
    const image = expected('image'); // [1, 3, 64, 64], −1 … 1
    const worst = bytes.reduce((most, byte, i) => {
      const value = image[(i % 3) * 4096 + Math.floor(i / 3)]!;
      return Math.max(most, Math.abs(byte - Math.min(255, Math.max(0, (value + 1) * 127.5))));
    }, 0);
    expect(worst).toBeLessThan(1.1); // truncated, and float32 on both sides
  });
});

describe('the same seed', () => {
  test('gives the same picture, bit for bit', async () => {
    expect(await picture()).toEqual(await picture());
    expect(await picture({ seed: 2 })).not.toEqual(await picture());
  });

  test('whatever else is made beside it', async () => {
    const { pictures } = await pipeline.generate(PROMPT, { seed: 0, count: 3 });
    expect(pictures.map(({ seed }) => seed)).toEqual([0n, 1n, 2n]);
    expect(pictures[1]!.picture).toEqual(await picture());
  });

  test(
    'at any number of threads, within rounding on every instruction set and device',
    { timeout: 300_000 },
    async () => {
      const reference = await picture();
      for (const target of TARGETS)
        for (const threads of isCpu(target) ? [1, 2] : [1]) {
          await using device = openTarget(target, { threads });
          await using own = await ImagePipeline.load(shippedModel(), { device });
          const { pictures } = await own.generate(PROMPT, { seed: 1 });
          const { psnr, mae } = pictureDistance(pictures[0]!.picture, reference);
          expect(Math.min(psnr, 200), `${target}, ${threads} threads: mae ${mae}`).toBeGreaterThan(55);
        }
    },
  );

  test('whether parts stay loaded or not', async () => {
    await using lean = await ImagePipeline.load(shippedModel(), { residency: 'lean' });
    for (let i = 0; i < 2; i++)
      expect((await lean.generate(PROMPT, { seed: 1 })).pictures[0]!.picture).toEqual(await picture());
  });

  test('with philox another one, the same twice', async () => {
    expect(await picture({ noise: 'philox' })).toEqual(await picture({ noise: 'philox' }));
    expect(await picture({ noise: 'philox' })).not.toEqual(await picture());
  });
});

describe('encoders', () => {
  test('no prompt is encoded twice by one encoder', async () => {
    const prompt = 'a green ring above a black cross';
    expect((await pipeline.generate(prompt, { seed: 1 })).encodes).toBe(2);
    expect((await pipeline.generate(prompt, { seed: 2 })).encodes).toBe(0);
    const t5 = SHIPPED_T5.t5();
    expect((await pipeline.generate(prompt, { encoders: { t5 } })).encodes).toBe(1);
    expect((await pipeline.generate(prompt, { encoders: { t5 } })).encodes).toBe(0);
    expect((await pipeline.generate(prompt, { cfg: 2, negativePrompt: 'a circle' })).encodes).toBe(2);
  });

  test('one of another width is refused, with what would fit', async () => {
    const t5 = { path: golden('encoders/t5_tiny/model.safetensors') };
    await expect(pipeline.generate(PROMPT, { encoders: { t5 } })).rejects.toMatchObject({
      code: 'ERR_MODEL_SLOT',
      message: expect.stringMatching(/takes 128/) as string,
    });
  });

  test.each([
    ['a T5 as CLIP', { clip_l: SHIPPED_T5.t5() }],
    ['an autoencoder as T5', { t5: { path: shippedModel().vae } }],
    ['no file', { t5: { path: '/nowhere/t5.safetensors' } }],
  ])('%s', async (_, encoders) => {
    await expect(pipeline.generate(PROMPT, { encoders })).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_(MODEL_SLOT|FILE_NOT_FOUND)$/) as string,
    });
  });
});

describe('options', () => {
  test.each([
    [16, 16],
    [96, 64],
    [64, 160],
  ])('%i × %i', async (width, height) => {
    expect(await picture({ width, height })).toMatchObject({ width, height });
  });

  test('a size whose activations do not fit is refused before anything runs', async () => {
    const config = { ...pipeline.denoiser.config, hidden_size: 3072, mlp_ratio: 4 };
    const full = { ...pipeline.denoiser, config } as DenoiserPart;
    expect(denoiserActivations(full, 128 ** 2, 512, 'fp32')).toBeLessThan(2 ** 30); // 1024 × 1024
    const sampling = denoiserActivations(full, 2048 ** 2, 512, 'fp32');
    expect(denoiserActivations(full, 2048 ** 2, 512, 'bf16')).toBeLessThan(0.6 * sampling);
    expect(() => requireMemory({ sampling, decoding: 0 }, 24 * 2 ** 30)).toThrow(
      expect.objectContaining({
        code: 'ERR_OUT_OF_MEMORY',
        message: expect.stringMatching(/GiB.*24\.0 GiB.*smaller/) as string,
      }),
    );
    const decoding = decoderActivations(pipeline.autoencoder.part.config, 16384 ** 2, 'fp32');
    expect(() => requireMemory({ sampling: 0, decoding }, 24 * 2 ** 30)).toThrow(/--tile/);
  });

  test('in tiles', async () => {
    const whole = await picture({ width: 128, height: 128 });
    expect(pictureDistance(await picture({ width: 128, height: 128, tile: 96 }), whole).psnr).toBeGreaterThan(
      15,
    );
  });

  test('int8 is close to fp32', async () => {
    await using own = await ImagePipeline.load(shippedModel(), { precision: 'int8' });
    const { pictures } = await own.generate(PROMPT, { seed: 1 });
    expect(pictureDistance(pictures[0]!.picture, await picture()).psnr).toBeGreaterThan(25);
  });

  test('image to image: little strength changes little, all of it starts from nothing', async () => {
    const start = await picture();
    const prompt = 'a green star';
    const slightly = await picture({ image: start, strength: 0.2, steps: 10 }, prompt);
    const much = await picture({ image: start, strength: 0.9, steps: 10 }, prompt);
    expect(pictureDistance(slightly, start).mae).toBeLessThan(pictureDistance(much, start).mae);
    const all = await picture({ image: start, strength: 1 }, prompt);
    expect(all).toEqual(await picture({}, prompt));
  });
});

describe('under way', () => {
  test('every phase is reported, previews where asked for', async () => {
    const seen: GenerateProgress[] = [];
    const job = pipeline.generate('a purple triangle', { preview: true });
    for await (const progress of job.progress()) seen.push(progress);
    await job;
    for (const { done, total } of seen) expect(done).toBeLessThanOrEqual(total);
    expect(seen.some(({ preview }) => preview?.width === 64)).toBe(true);
    expect(new Set(seen.map(({ phase }) => phase)).has('sample')).toBe(true);
  });

  test('cancelled: nothing comes of it, and the next request works', async () => {
    const before = await picture();
    const controller = new AbortController();
    const job = pipeline.generate(PROMPT, { seed: 1, steps: 200, signal: controller.signal });
    setTimeout(() => controller.abort(), 30);
    await expect(job).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    expect(await picture()).toEqual(before);
  });

  test('requests at the same time take turns', async () => {
    const jobs = [1, 2, 1].map((seed) => pipeline.generate(PROMPT, { seed }));
    const [first, second, third] = (await Promise.all(jobs)).map(({ pictures }) => pictures[0]!.picture);
    expect(first).toEqual(third);
    expect(first).not.toEqual(second);
  });

  test('disposed', async () => {
    const own = await ImagePipeline.load(shippedModel());
    await own[Symbol.asyncDispose]();
    await own[Symbol.asyncDispose]();
    await expect(own.generate(PROMPT)).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
});

describe('files in the wrong place', () => {
  const model = shippedModel();
  test.each<[string, Partial<typeof model>]>([
    ['an autoencoder as transformer', { denoiser: model.vae }],
    ['a transformer as autoencoder', { vae: model.denoiser }],
    [
      'an autoencoder of other latents',
      { vae: golden('diffusion/flux_ae_tiny/flux_ae_tiny.weights.safetensors') },
    ],
    ['a T5 as transformer', { denoiser: model.encoders.t5.path }],
  ])('%s', async (_, wrong) => {
    await expect(ImagePipeline.load({ ...model, ...wrong })).rejects.toMatchObject({
      code: 'ERR_MODEL_SLOT',
    });
  });

  test('the shipped files are all there', () => {
    for (const path of [model.denoiser, model.vae, model.encoders.t5.path, model.encoders.clip_l.path])
      expect(existsSync(path), path).toBe(true);
  });
});
