/** The table of profiles, and which is the default. */
import { describe, expect, test } from 'vitest';
import { PROFILES, type Profile } from '../../../src/pipeline/image_types.js';
import { PROFILE_RULES, profileFor } from '../../../src/pipeline/conditioning/profiles.js';
import { t5Lengths, trainedTokens } from '../../../src/pipeline/conditioning/prompt_layout.js';
import { textFamily } from '../../../src/pipeline/conditioning/text_rules.js';
import { fluxPart, refinerPart, sd1Part, sd2Part, sd3Part, sdxlPart } from '../../support/denoiser_parts.js';

const PARTS = [sd1Part(768), sd2Part(1024), sdxlPart(2048, 1280), refinerPart(1280), sd3Part(4096, 2048)];

test('the default: bfl for Flux.1, comfy for all others', () => {
  expect(profileFor(fluxPart(4096, 768)).name).toBe('bfl');
  for (const part of PARTS) expect(profileFor(part).name).toBe('comfy');
  for (const name of PROFILES)
    expect(profileFor(PARTS[0]!, name)).toEqual({ name, rules: PROFILE_RULES[name] });
});

test('an unknown name', () => {
  for (const name of ['sd', '', 'toString'])
    expect(() => profileFor(PARTS[0]!, name as Profile)).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringContaining(`got "${name}"`) }),
    );
});

test('families by shape, with the widths of the public models', () => {
  expect(PARTS.map(textFamily)).toEqual(['sd1', 'sd2', 'sdxl', 'sdxl_refiner', 'sd3']);
  expect(textFamily(fluxPart(4096, 768))).toBe('flux');
});

describe('what issue 5 and the programs say', () => {
  const column = <K extends keyof (typeof PROFILE_RULES)['bfl']>(key: K) =>
    Object.fromEntries(PROFILES.map((name) => [name, PROFILE_RULES[name][key]]));

  test('weights, chunks, noise', () => {
    expect(column('dialect')).toEqual({ bfl: 'plain', comfy: 'comfyui', a1111: 'a1111', diffusers: 'plain' });
    expect(column('overflow')).toEqual({
      bfl: 'truncate',
      comfy: 'chunk',
      a1111: 'chunk',
      diffusers: 'truncate',
    });
    expect(column('noise')).toEqual({ bfl: 'torch', comfy: 'torch', a1111: 'philox', diffusers: 'torch' });
    expect(column('noiseScale')).toEqual({ bfl: 'unit', comfy: 'unit', a1111: 'sigma', diffusers: 'unit' });
    expect(column('timesteps')).toEqual({
      bfl: 'nearest',
      comfy: 'nearest',
      a1111: 'fractional',
      diffusers: 'fractional',
    });
  });

  test('T5 lengths', () => {
    const dev = fluxPart(4096, 768);
    const schnell = fluxPart(4096, 768, { guidance_embed: false });
    const sd3 = sd3Part(4096, 2048);
    const lengths = (name: Profile) =>
      [dev, schnell, sd3].map((denoiser) =>
        t5Lengths(PROFILE_RULES[name].t5[denoiser === sd3 ? 'sd3' : 'flux'], {
          trained: trainedTokens(denoiser),
          clipRows: 154,
        }),
      );
    expect(lengths('bfl')).toEqual([
      [512, 512],
      [256, 256],
      [77, Infinity],
    ]);
    expect(lengths('comfy')).toEqual([
      [256, Infinity],
      [256, Infinity],
      [77, Infinity],
    ]);
    expect(lengths('a1111')).toEqual([
      [256, Infinity],
      [256, Infinity],
      [154, 154],
    ]);
    expect(lengths('diffusers')).toEqual([
      [512, 512],
      [512, 512],
      [256, 256],
    ]);
  });
});
