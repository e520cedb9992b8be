/** What a request's options change in each family, and what they leave as it is. */
import { beforeAll, describe, expect, test } from 'vitest';
import { pictureDistance, type Picture } from '../../src/image/index.js';
import type { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import { PROFILES, type GenerateProgress } from '../../src/pipeline/image_types.js';
import { PROFILE_RULES } from '../../src/pipeline/conditioning/profiles.js';
import { generated, pictureOf, PROMPT, SMALL, tinyBench } from '../support/tiny_bench.js';

const bench = tinyBench();
const LONG = Array.from({ length: 100 }, (_, i) => `word${i}`).join(' ');

describe.each(['sd1', 'sdxl', 'sd35_medium'] as const)('%s', (kind) => {
  let path: string;
  let pipeline: ImagePipeline;
  beforeAll(async () => {
    path = await bench.checkpoint(kind);
    pipeline = await bench.pipeline(path);
  });
  const picture = (options: Parameters<typeof generated>[1] = {}) => pictureOf(pipeline, options);
  const isSd3 = kind === 'sd35_medium';

  test('a seed is a picture, whatever is made beside it', async () => {
    // Matmuls of up to four rows and of more add up in different orders: the coarsest level has more here, alone too.
    const size = { width: 64, height: 64 };
    for (const sampler of ['dpmpp_2m', 'euler_ancestral', 'dpmpp_2m_sde']) {
      const { pictures } = await generated(pipeline, { sampler, count: 6, ...size });
      expect(pictures.map(({ seed }) => seed)).toEqual([5n, 6n, 7n, 8n, 9n, 10n]);
      for (const { seed, picture: one } of pictures)
        expect(one).toEqual(await picture({ sampler, seed, ...size }));
      expect(pictures[0]!.picture).not.toEqual(pictures[1]!.picture);
    }
  });

  test('a negative prompt counts with guidance only', async () => {
    const plain = await picture();
    expect(await picture({ negativePrompt: '' })).toEqual(plain);
    expect(await picture({ negativePrompt: 'a cat' })).not.toEqual(plain);
    await expect(generated(pipeline, { cfg: 1, negativePrompt: 'a cat' })).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
    });
    // Guidance away from the prompt itself leads nowhere.
    const towards = await picture({ negativePrompt: PROMPT });
    expect(pictureDistance(towards, await picture({ cfg: 1 })).mae).toBeLessThan(0.1);
    expect(await picture({ cfg: 2 })).not.toEqual(plain);
  });

  test('clip skip: the default is the family’s', async () => {
    const [usual, other] = kind === 'sd1' ? [1, 2] : [2, 1];
    expect(await picture({ clipSkip: usual })).toEqual(await picture());
    expect(await picture({ clipSkip: other })).not.toEqual(await picture());
    await expect(generated(pipeline, { clipSkip: 9 })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });

  test('a weight counts where the dialect reads it', async () => {
    const prompt = 'a (sparrow:1.5) on a branch';
    const plain = await picture();
    for (const dialect of ['comfyui', 'a1111'] as const) {
      expect(await picture({ dialect })).toEqual(plain);
      expect(await picture({ dialect, prompt })).not.toEqual(plain);
      expect(await picture({ dialect, prompt: prompt.replace('1.5', '1.0') })).toEqual(plain);
    }
    expect(await picture({ dialect: 'plain', prompt })).not.toEqual(
      await picture({ dialect: 'comfyui', prompt }),
    );
  });

  test('profiles differ in nothing but their rules', async () => {
    expect(await picture({ profile: 'comfy' })).toEqual(await picture());
    for (const profile of PROFILES) {
      const result = await generated(pipeline, { profile });
      const { noise, dialect } = PROFILE_RULES[profile];
      expect(noise).toBe(profile === 'a1111' ? 'philox' : 'torch');
      expect(result).toMatchObject({ profile, noise });
      // What the profile stands for, said piece by piece.
      expect(await picture({ profile, noise, dialect })).toEqual(result.pictures[0]!.picture);
    }
    const philox = await picture({ noise: 'philox' });
    expect(philox).not.toEqual(await picture());
    expect(await picture({ profile: 'comfy', noise: 'philox' })).toEqual(philox);
  });

  test('a long prompt is read in chunks, or cut and told', async () => {
    const chunked = await generated(pipeline, { prompt: LONG });
    expect(chunked.conditioning.truncated ?? {}).toEqual({});
    const cut = await generated(pipeline, { prompt: LONG, profile: 'bfl' });
    expect(cut.conditioning.truncated).toHaveProperty('clip_l');
    expect(cut.conditioning.tokens).toBeLessThan(chunked.conditioning.tokens);
  });

  test('residency and replay change nothing', async () => {
    const plain = await picture({ count: 2 });
    for (const options of [
      { residency: 'lean' },
      { residency: 'keep' },
      { replay: 'always' },
      { replay: 'never' },
    ] as const) {
      const own = await bench.pipeline(path, options);
      for (let i = 0; i < 2; i++)
        expect(await pictureOf(own, { count: 2 }), JSON.stringify(options)).toEqual(plain);
      await own[Symbol.asyncDispose]();
    }
  });

  test('from a picture: the less strength, the nearer', async () => {
    const image = await picture({ seed: 9 });
    const from = (strength: number) => picture({ image, strength, steps: 20 });
    const nearest = await from(0.05);
    const { mae: near } = pictureDistance(await from(0.2), nearest);
    expect(near).toBeLessThan(pictureDistance(await from(0.9), nearest).mae);
    const size = { image, strength: 0.5, width: 64, height: 64 };
    const twice = await generated(pipeline, { ...size, count: 2 });
    expect(twice.pictures[1]!.picture).toEqual(await picture({ ...size, seed: 6 }));
  });

  test('progress never goes back, and names encoders and steps', async () => {
    const seen: GenerateProgress[] = [];
    const job = pipeline.generate('told', { ...SMALL, preview: true, count: 6 });
    for await (const progress of job.progress()) seen.push(progress);
    await job;
    for (const phase of ['encode', 'sample', 'decode'] as const) {
      const own = seen.filter((one) => one.phase === phase && one.preview === undefined);
      expect(own.length, phase).toBeGreaterThan(0);
      expect(own.at(-1)!.done).toBe(own.at(-1)!.total);
      if (phase === 'encode') continue; // encoder by encoder
      const shares = own.map(({ done, total }) => done / total);
      expect(shares, phase).toEqual(shares.toSorted((a, b) => a - b));
      expect(shares.at(-1)).toBe(1);
    }
    const encoders = new Set(seen.filter(({ phase }) => phase === 'encode').map(({ detail }) => detail));
    expect([...encoders]).toEqual(
      kind === 'sd1' ? ['clip_l'] : isSd3 ? ['clip_l', 'clip_g', 't5'] : ['clip_l', 'clip_g'],
    );
    expect(seen.some(({ preview }) => preview?.width === 32)).toBe(true);
  });

  test('cancelled at any time, the next request is unharmed', async () => {
    const before = await picture();
    for (const delay of [0, 20, 60]) {
      const controller = new AbortController();
      const job = generated(pipeline, {
        prompt: `cancelled ${delay}`,
        steps: 100,
        signal: controller.signal,
      });
      setTimeout(() => controller.abort(), delay);
      await expect(job).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
      expect(await picture()).toEqual(before);
    }
  });

  test('read ahead, a prompt is in the cache', async () => {
    const options = { ...SMALL, negativePrompt: 'mist' };
    const { encodes } = await pipeline.encode('ahead', options);
    const encoders = kind === 'sd1' ? 1 : isSd3 ? 3 : 2;
    expect(encodes).toBe(2 * encoders);
    expect((await pipeline.encode('alone', { ...SMALL, cfg: 1 })).encodes).toBe(encoders);
    expect((await pipeline.generate('ahead', options)).encodes).toBe(0);
  });
});

describe.each(['sd1', 'sd1_inpainting', 'sdxl', 'sd35_medium'] as const)(
  '%s: painting in a picture',
  (kind) => {
    /** White above, black below: the upper half is painted anew. */
    const mask = {
      width: 64,
      height: 64,
      rgb: Uint8Array.from({ length: 3 * 64 * 64 }, (_, i) => (i < 3 * 32 * 64 ? 255 : 0)),
    };
    const size = { width: 64, height: 64 };
    const half = ({ rgb, ...rest }: Picture, first: number): Picture => {
      return { ...rest, height: 16, rgb: rgb.slice(3 * 64 * first, 3 * 64 * (first + 16)) };
    };

    test('where the mask is white', async () => {
      const pipeline = await bench.pipeline(await bench.checkpoint(kind));
      const image = await pictureOf(pipeline, { ...size, seed: 9 });
      const through = await pictureOf(pipeline, {
        ...size,
        image,
        mask: { ...mask, rgb: new Uint8Array(3 * 64 * 64) },
        strength: 1,
      });
      const painted = await pictureOf(pipeline, { ...size, image, mask, strength: 1 });
      const { mae: above } = pictureDistance(half(painted, 0), half(through, 0));
      const { mae: below } = pictureDistance(half(painted, 48), half(through, 48));
      // The decoder's attention and norms see the whole picture, and random ones mix it well.
      expect(below).toBeLessThan(above);
    });

    test('as much in a batch as alone', async () => {
      const pipeline = await bench.pipeline(await bench.checkpoint(kind));
      const image = await pictureOf(pipeline, { ...size, seed: 9 });
      const { pictures } = await generated(pipeline, { ...size, image, mask, count: 2 });
      expect(pictures[1]!.picture).toEqual(await pictureOf(pipeline, { ...size, image, mask, seed: 6 }));
    });
  },
);

describe('presets', () => {
  test.each([
    ['sd1', 'Some-LCM_merge.safetensors', { preset: 'lcm', steps: 4, sampler: 'lcm', cfg: 1 }],
    ['sd1', 'dreamshaper.safetensors', { preset: 'base', steps: 25, sampler: 'dpmpp_2m', cfg: 7 }],
    ['sdxl', 'sdxl_lightning_8step.safetensors', { preset: 'lightning', steps: 8, sampler: 'euler' }],
    [
      'sdxl',
      'sd_xl_turbo_1.0.safetensors',
      { preset: 'turbo', steps: 4, sampler: 'euler_ancestral', cfg: 1 },
    ],
    ['sd35_large', 'sd3.5_large_turbo.safetensors', { preset: 'turbo', steps: 4, cfg: 1 }],
  ] as const)('%s called %s', async (kind, name, expected) => {
    const pipeline = await bench.pipeline(await bench.checkpoint(kind, { name }));
    expect(await pipeline.generate(PROMPT, { width: 32, height: 32, seed: 1 })).toMatchObject(expected);
    const steps = { ...SMALL, steps: 2, cfg: 3 };
    expect(await pipeline.generate(PROMPT, steps)).toMatchObject({ ...expected, steps: 2, cfg: 3 });
    expect(await pipeline.generate(PROMPT, { ...SMALL, preset: 'base' })).toMatchObject({ preset: 'base' });
  });

  test('one that the family does not have', async () => {
    const pipeline = await bench.pipeline(await bench.checkpoint('sd35_medium'));
    await expect(generated(pipeline, { preset: 'lcm' })).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(/preset: expected base, turbo .*got "lcm"/) as string,
    });
  });
});
