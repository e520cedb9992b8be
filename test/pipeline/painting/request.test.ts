/** Options of a request: defaults, and every value that is refused. */
import { describe, expect, test } from 'vitest';
import type { DenoiserPart, GenerateOptions } from '../../../src/pipeline/image_types.js';
import { resolveRequest, type RequestModel } from '../../../src/pipeline/painting/request.js';

/** A model that a request may be for: of a file name, with an autoencoder of eight pixels a latent. */
function model(
  family: DenoiserPart['family'],
  config: object,
  { path = 'model.safetensors', resolution }: { path?: string; resolution?: number } = {},
): RequestModel {
  const isUnet = family !== 'flux' && family !== 'sd3';
  const denoiser = { family, path, config, slot: isUnet ? 'unet' : 'transformer', description: family };
  const vae = { config: { ch_mult: [1, 2, 4, 4], ...(resolution && { resolution }) } };
  return { denoiser, vae } as unknown as RequestModel;
}

const schnell = model('flux', { guidance_embed: false });
const dev = model('flux', { guidance_embed: true });
const unet = { widths: [320, 640, 1280, 1280], prediction: 'eps' };
const sd1 = model('sd1', unet);
const medium = model('sd3', { depth: 24 });
const picture = { width: 4, height: 4, rgb: new Uint8Array(48) };

describe('defaults', () => {
  test('schnell: 4 even steps, no guidance', () => {
    const request = resolveRequest({}, schnell);
    expect(request).toMatchObject({ width: 1024, height: 1024, steps: 4, sampler: 'euler', cfg: 1 });
    expect(request.sigmas).toEqual([1, 0.75, 0.5, 0.25, 0]);
    expect(request.guidance).toBeUndefined();
    expect(request.seeds).toHaveLength(1);
  });

  test('dev: 28 steps shifted by the size of the picture, guidance 3.5', () => {
    const large = resolveRequest({}, dev);
    const small = resolveRequest({ width: 256, height: 256 }, dev);
    expect(large).toMatchObject({ steps: 28, guidance: 3.5 });
    expect(large.sigmas[14]).toBeGreaterThan(small.sigmas[14]!);
  });

  test.each<[string, RequestModel, object]>([
    ['SD1', sd1, { width: 512, steps: 25, sampler: 'dpmpp_2m', schedule: 'karras', cfg: 7 }],
    ['SDXL', model('sdxl', unet), { width: 1024, cfg: 7 }],
    ['SD2 at 768', model('sd2', { ...unet, prediction: 'v' }), { width: 768 }],
    ['SD3', medium, { width: 1024, steps: 28, sampler: 'dpmpp_2m', schedule: 'normal', cfg: 4.5 }],
    ['what its autoencoder says', model('sdxl', unet, { resolution: 768 }), { width: 768 }],
  ])('%s', (_, which, expected) => {
    expect(resolveRequest({}, which)).toMatchObject({ preset: 'base', profile: 'comfy', ...expected });
  });

  test.each<[string, DenoiserPart['family'], object]>([
    ['sd_xl_turbo_1.0_fp16.safetensors', 'sdxl', { preset: 'turbo', steps: 4, cfg: 1, width: 512 }],
    ['sdxl_lightning_8step.safetensors', 'sdxl', { preset: 'lightning', steps: 8, cfg: 1, width: 1024 }],
    ['sd3.5_large_turbo.safetensors', 'sd3', { preset: 'turbo', steps: 4, cfg: 1, sampler: 'euler' }],
    ['LCM_Dreamshaper_v7.safetensors', 'sd1', { preset: 'lcm', sampler: 'lcm', width: 512 }],
    ['turbo/realisticVision.safetensors', 'sd1', { preset: 'base', cfg: 7 }],
    ['welcome.safetensors', 'sd1', { preset: 'base' }],
  ])('%s is sampled as it was distilled', (path, family, expected) => {
    expect(resolveRequest({}, model(family, { ...unet, depth: 38 }, { path }))).toMatchObject(expected);
  });

  test('a preset by name, single settings of it replaced', () => {
    const request = resolveRequest({ preset: 'lightning', steps: 2 }, sd1);
    expect(request).toMatchObject({ preset: 'lightning', steps: 2, schedule: 'sgm_uniform', cfg: 1 });
    expect(resolveRequest({ preset: 'turbo' }, model('sdxl', unet)).sigmas).toHaveLength(5);
  });

  test('profiles: whose noise, how it is scaled, which timesteps, what steps count', () => {
    expect(resolveRequest({}, sd1)).toMatchObject({
      noise: 'torch',
      noiseScale: 'unit',
      timesteps: 'nearest',
    });
    expect(resolveRequest({ profile: 'a1111' }, sd1)).toMatchObject({
      ...{ noise: 'philox', noiseScale: 'sigma', timesteps: 'fractional' },
    });
    const half = { image: picture, strength: 0.5, steps: 10 };
    expect(resolveRequest(half, sd1)).toMatchObject({ steps: 10, noiseScale: 'sigma' });
    expect(resolveRequest({ ...half, profile: 'a1111' }, sd1)).toMatchObject({ steps: 5 });
  });

  test('zero terminal SNR and v-prediction are the model’s', () => {
    const plain = resolveRequest({}, model('sdxl', { ...unet, prediction: 'v' }));
    const zero = resolveRequest({}, model('sdxl', { ...unet, prediction: 'v', zero_terminal_snr: true }));
    expect(zero.levels.prediction).toBe('v');
    expect(zero.sigmas[0]).toBeGreaterThan(100 * plain.sigmas[0]!);
  });

  test('skip-layer guidance: between shares of the sampling', () => {
    const { skipLayers, levels } = resolveRequest({ skipLayers: {} }, medium);
    expect(skipLayers).toMatchObject({ scale: 2.5, layers: [7, 8, 9] });
    const active = [0.005, 0.02, 0.19, 0.21].map((at) => skipLayers!.isActive(levels.percentToSigma(at)));
    expect(active).toEqual([false, true, true, false]);
    expect(resolveRequest({ skipLayers: { scale: 0 } }, sd1).skipLayers).toBeUndefined();
  });

  test('shift: more time at high noise', () => {
    const middle = (shift?: number) => resolveRequest({ shift, steps: 4 }, medium).sigmas[2]!;
    expect(middle(6)).toBeGreaterThan(middle());
    expect(middle(3)).toBe(middle());
  });

  test('random seeds differ', () => {
    const seeds = Array.from({ length: 4 }, () => resolveRequest({}, schnell).seeds[0]);
    expect(new Set(seeds).size).toBeGreaterThan(1);
  });

  test('picture i has seed + i, wrapping at 2^64', () => {
    expect(resolveRequest({ seed: 2n ** 64n - 1n, count: 2 }, schnell).seeds).toEqual([2n ** 64n - 1n, 0n]);
  });

  test('strength leaves out the first steps', () => {
    const { sigmas } = resolveRequest({ image: picture, strength: 0.5 }, schnell);
    expect(sigmas).toEqual([0.5, 0.25, 0]);
  });
});

test.each<[GenerateOptions, RegExp]>([
  [{ width: 100 }, /width.*multiple of 16.*96 and 112/],
  [{ height: 0 }, /height/],
  [{ width: 1e9 }, /width.*16384/],
  [{ width: NaN }, /width/],
  [{ steps: 0 }, /steps/],
  [{ steps: 1.5 }, /steps/],
  [{ seed: -1 }, /seed/],
  [{ seed: 0.5 }, /seed/],
  [{ seed: 2n ** 64n }, /seed/],
  [{ count: 0 }, /count/],
  [{ sampler: 'eulr' }, /eulr.*euler/],
  [{ schedule: 'karas' }, /karas.*karras/],
  [{ guidance: NaN }, /guidance/],
  [{ cfg: -1 }, /cfg/],
  [{ negativePrompt: 'blurry' }, /negativePrompt.*cfg/],
  [{ strength: 0.5 }, /strength.*image/],
  [{ image: picture, strength: 0 }, /strength/],
  [{ image: picture, strength: 2 }, /strength/],
  [{ noise: 'cuda' as 'torch' }, /noise.*torch or philox/],
  [{ tile: 3 }, /tile/],
])('refused: %o', (options, message) => {
  expect(() => resolveRequest(options, dev)).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) as string }),
  );
});

test.each<[string, RequestModel, GenerateOptions, RegExp]>([
  ['a side that a UNet cannot halve', sd1, { width: 520 }, /width.*multiple of 64.*512 and 576/],
  ['a schedule of other models', sd1, { schedule: 'flux' }, /flux.*karras/],
  ['a schedule of other models', medium, { schedule: 'vp' }, /vp.*simple/],
  ['a preset that the family does not have', sd1, { preset: 'turbo' }, /preset.*base, lightning, lcm/],
  ['a profile that nobody has', sd1, { profile: 'forge' as 'comfy' }, /profile.*comfy/],
  ['layers of a UNet', sd1, { skipLayers: {} }, /skipLayers.*SD3/],
  ['layers that are not there', medium, { skipLayers: { layers: [24] } }, /skipLayers.layers.*0 to 23.*24/],
  ['layers at shares that cross', medium, { skipLayers: { start: 0.5, end: 0.1 } }, /skipLayers.end/],
  ['a shift of a UNet', sd1, { shift: 3 }, /shift/],
  [
    'too many steps for adversarial distillation',
    model('sdxl', unet),
    { preset: 'turbo', steps: 11 },
    /at most 10/,
  ],
])('%s is refused', (_, which, options, message) => {
  expect(() => resolveRequest(options, which)).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) as string }),
  );
});
