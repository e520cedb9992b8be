/** SD3 and Flux.1 as each profile conditions them, and CLIPs of several chunk lengths. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { textTokens } from '../../../src/pipeline/conditioning/family_text.js';
import { PROFILES, type Profile } from '../../../src/pipeline/image_types.js';
import { Device } from '../../../src/runtime/device.js';
import { emphasizeKeepingMean } from '../../../src/text/index.js';
import { fluxPart, sd1Part, sd3Part, sdxlPart } from '../../support/denoiser_parts.js';
import { block, isZero, TextReader } from '../../support/family_texts.js';
import { golden } from '../../support/golden.js';
import { writeRandomClip } from '../../support/random_clip.js';

const L = 16;
const G = 24;
const T5 = 64;
const PROMPT = 'a photo of a cat';
const words = (count: number): string => new Array<string>(count).fill('cat').join(' ');

let root: string;
let device: Device;
let texts: TextReader;
let long: TextReader;
let withoutT5: TextReader;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'kotoba-family-'));
  device = Device.open('cpu'); // lengths and joints, the same on every device
  const clip = (name: string, width: number, more = {}) =>
    writeRandomClip(join(root, name), { width, layers: 3, projection: width, ...more });
  const config = { num_attention_heads: 4, hidden_act: 'gelu' };
  const clips = {
    clip_l: { path: await clip('l.safetensors', L) },
    clip_g: { path: await clip('g.safetensors', G, { seed: 2, config }) },
  };
  withoutT5 = new TextReader(device, clips);
  texts = withoutT5.with({ t5: { path: golden('encoders/t5_tiny_gguf/model.f32.gguf') } });
  long = texts.with({ clip_l: { path: await clip('long.safetensors', L, { positions: 248, seed: 3 }) } });
});
afterAll(() => {
  device.close();
  rmSync(root, { recursive: true });
});

const penultimate = { clipSkip: 2, norm: 'none' } as const;
const zeroPadded = { ...penultimate, layout: { padId: 0 } } as const;

describe('SD3', () => {
  const sd3 = sd3Part(T5, L + G);

  test('CLIP-L ⊕ CLIP-G ⊕ zeros, then T5; vectors of both', async () => {
    const given = await texts.read(PROMPT, sd3);
    const l = await texts.alone('clip_l', PROMPT, penultimate);
    const g = await texts.alone('clip_g', PROMPT, zeroPadded);
    const t5 = await texts.alone('t5', PROMPT, { layout: { minLength: 77 } });
    expect(given.tokens).toBe(77 + 77);
    expect(block(given, [0, L], [0, 77])).toEqual(l.hidden);
    expect(block(given, [L, L + G], [0, 77])).toEqual(g.hidden);
    expect(isZero(block(given, [L + G, T5], [0, 77]))).toBe(true);
    expect(block(given, [0, T5], [77, 154])).toEqual(t5.hidden);
    expect(given.pooled).toEqual(Float32Array.of(...l.pooled!, ...g.projected!));
    expect(given.states).toEqual({
      clip_l: { values: l.hidden, width: L },
      clip_g: { values: g.hidden, width: G },
      t5: { values: t5.hidden, width: T5 },
    });
  });

  test('CLIP-L’s vector is projected in diffusers only, and there only where the file can', async () => {
    const l = await texts.alone('clip_l', PROMPT, {});
    for (const profile of PROFILES) {
      const { pooled } = await texts.read(PROMPT, sd3, { profile });
      expect(pooled!.subarray(0, L)).toEqual(profile === 'diffusers' ? l.projected : l.pooled);
    }
    const path = await writeRandomClip(join(root, 'bare.safetensors'), { width: L });
    const { pooled } = await texts.with({ clip_l: { path } }).read(PROMPT, sd3, { profile: 'diffusers' });
    expect(pooled!.subarray(0, L)).toEqual(
      (await texts.with({ clip_l: { path } }).alone('clip_l', PROMPT, {})).pooled,
    );
  });

  // Rows of T5 for a short prompt and for 300 words, rows of zeros without a T5.
  test.each([
    ['comfy', 77, 301, 0],
    ['bfl', 77, 301, 77],
    ['diffusers', 256, 256, 77],
    ['a1111', 77, 308, 77],
  ] as const)(
    '%s: %i rows of T5 at least, %i for 300 words, %i zeros without',
    async (profile, short, most, zeros) => {
      const rows = (tokens: number, prompt: string) =>
        tokens - (['comfy', 'a1111'].includes(profile) && prompt !== PROMPT ? 308 : 77);
      const given = await texts.read(PROMPT, sd3, { profile });
      expect(rows(given.tokens, PROMPT)).toBe(short);
      const prompt = words(300);
      const { tokens, truncated } = await texts.read(prompt, sd3, { profile });
      const { prompt: split } = await texts.alone('t5', prompt, {});
      const fits = profile === 'diffusers' ? 256 : profile === 'a1111' ? 308 : Infinity;
      expect(rows(tokens, prompt)).toBe(Math.min(Math.max(most, split.tokenCount + 1), fits));
      const lost = Math.max(0, split.tokenCount + 1 - fits);
      expect(truncated!.t5 ?? 0).toBe(lost);
      expect(textTokens({ denoiser: sd3, options: { profile }, encoders: texts.encoders })).toBe(short);
      const bare = await withoutT5.read(PROMPT, sd3, { profile });
      expect(bare.tokens).toBe(77 + zeros);
      expect(isZero(bare.hidden.subarray(77 * T5))).toBe(true);
      expect(Object.keys(bare.states)).toEqual(['clip_l', 'clip_g']);
    },
  );

  test('a1111: one mean over both CLIPs, T5 without weights', async () => {
    const prompt = 'a (cat:1.6) here';
    const given = await texts.read(prompt, sd3, { profile: 'a1111' });
    const raw = { dialect: 'a1111', weighting: 'none' } as const;
    const l = await texts.alone('clip_l', prompt, { ...penultimate, ...raw });
    const g = await texts.alone('clip_g', prompt, { ...zeroPadded, ...raw });
    const joined = new Float32Array(77 * T5);
    for (let row = 0; row < 77; row++) {
      joined.set(l.hidden.subarray(row * L, (row + 1) * L), row * T5);
      joined.set(g.hidden.subarray(row * G, (row + 1) * G), row * T5 + L);
    }
    const expected = emphasizeKeepingMean(joined, l.prompt.chunks[0]!.weights);
    expect(given.hidden.subarray(0, 77 * T5)).toEqual(expected);
    const t5 = await texts.alone('t5', 'a cat here', { layout: { minLength: 77 } });
    expect(given.hidden.subarray(77 * T5)).toEqual(t5.hidden);
    const comfy = await texts.read(prompt, sd3, { profile: 'comfy' });
    const weighted = await texts.alone('t5', prompt, { dialect: 'comfyui', layout: { minLength: 77 } });
    expect(comfy.hidden.subarray(77 * T5)).toEqual(weighted.hidden);
  });

  test('an empty negative prompt is encoded, in every profile', async () => {
    for (const profile of PROFILES) {
      const { negative } = await texts.both(PROMPT, sd3, { profile, cfg: 4 });
      expect(negative).toEqual(await texts.read('', sd3, { profile }));
    }
  });
});

describe('Flux.1', () => {
  const dev = fluxPart(T5, L);
  const schnell = fluxPart(T5, L, { guidance_embed: false });

  test.each([
    ['bfl', 512, 256],
    ['comfy', 256, 256],
    ['diffusers', 512, 512],
    ['a1111', 256, 256],
  ] as const)('%s: %i tokens for dev, %i for schnell', async (profile, ofDev, ofSchnell) => {
    for (const [denoiser, expected] of [
      [dev, ofDev],
      [schnell, ofSchnell],
    ] as const) {
      const { tokens, pooled, hidden, states } = await texts.read(PROMPT, denoiser, { profile });
      expect([tokens, textTokens({ denoiser, options: { profile }, encoders: texts.encoders })]).toEqual([
        expected,
        expected,
      ]);
      const padId = profile === 'a1111' ? ('eos' as const) : 0;
      const t5 = await texts.alone('t5', PROMPT, { layout: { minLength: expected, padId } });
      expect(hidden).toEqual(t5.hidden);
      expect(pooled).toEqual((await texts.alone('clip_l', PROMPT, {})).pooled);
      expect(states.clip_l).toEqual({ values: pooled, width: L });
    }
  });

  test('the file may say how long; the caller has the last word', async () => {
    const short = fluxPart(T5, L, { max_sequence_length: 48 });
    expect((await texts.read(PROMPT, short)).tokens).toBe(48);
    const asked = async (t5Length: NonNullable<Parameters<TextReader['read']>[2]>['t5Length']) =>
      (await texts.read(words(90), short, { t5Length })).tokens;
    expect(await asked({ t5Length: 'sd3' })).toBe(77);
    const estimate = {
      denoiser: short,
      options: { t5Length: { t5Length: 'sd3' } },
      encoders: texts.encoders,
    } as const;
    expect(textTokens(estimate)).toBe(77);
    expect(await asked({ minLength: 20, maxLength: 20 })).toBe(20);
    expect(await asked({ minLength: 300 })).toBe(300);
    await expect(asked({ t5Length: 'none' as never })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });

  test('tokens that CLIP-L’s vector knows nothing of are told, whether cut or in later chunks', async () => {
    const lost = async (profile: Profile) => (await texts.read(words(100), schnell, { profile })).truncated;
    expect(await lost('comfy')).toEqual({ clip_l: 25 });
    expect(await lost('bfl')).toMatchObject({ clip_l: 25 });
    expect((await texts.read(PROMPT, schnell)).truncated).toEqual({});
    expect((await texts.read(words(300), schnell)).truncated!.t5).toBeGreaterThan(0);
  });

  test('a1111: BREAK begins another row of T5 tokens', async () => {
    expect((await texts.read('a BREAK b', schnell, { profile: 'a1111' })).tokens).toBe(512);
    expect((await texts.read('a BREAK b', schnell, { profile: 'comfy' })).tokens).toBe(256);
  });

  test('clipSkip would have no effect', async () => {
    await expect(texts.read(PROMPT, dev, { clipSkip: 2 })).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: expect.stringContaining('pooled vector only'),
    });
  });
});

describe('Long-CLIP-L beside CLIP-G', () => {
  const sdxl = sdxlPart(L + G, G);

  test.each([
    [10, 77],
    [100, 154],
    [300, 308],
  ])('%i words in both: %i rows, every token of both among them', async (count, rows) => {
    const prompt = words(count);
    const given = await long.read(prompt, sdxl);
    const l = await long.alone('clip_l', prompt, { ...penultimate, layout: { rules: 'comfyui' } });
    const g = await long.alone('clip_g', prompt, { ...zeroPadded, layout: { padId: 0, rules: 'comfyui' } });
    expect([given.tokens, given.truncated]).toEqual([rows, {}]);
    expect(block(given, [0, L])).toEqual(l.hidden.subarray(0, rows * L));
    expect(block(given, [L, L + G])).toEqual(g.hidden.subarray(0, rows * G));
    expect(given.pooled).toEqual(g.projected);
  });

  test('CLIP-G cut to 77: chunks of the empty prompt beside what Long-CLIP-L still has', async () => {
    const given = await long.read(words(200), sdxl, { profile: 'bfl' });
    const empty = await long.alone('clip_g', '', zeroPadded);
    const g = await long.alone('clip_g', words(75), zeroPadded);
    expect([given.tokens, given.truncated]).toEqual([231, { clip_g: 125 }]);
    const right = block(given, [L, L + G]);
    expect(right).toEqual(Float32Array.of(...g.hidden, ...empty.hidden, ...empty.hidden));
    expect(block(given, [0, L], [200, 202]).some((value) => value !== 0)).toBe(true);
  });

  test('SD1 takes 248 tokens in one chunk', async () => {
    const { tokens, truncated } = await long.read(words(250), sd1Part(L), { profile: 'bfl' });
    expect([tokens, truncated]).toEqual([248, { clip_l: 4 }]);
    expect((await long.read(words(250), sd1Part(L))).tokens).toBe(496);
  });
});
