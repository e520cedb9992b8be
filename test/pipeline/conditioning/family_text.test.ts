/** Prompt → what each family's denoiser is given, with golden encoders: every family, profile by profile. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PROFILES, type Profile } from '../../../src/pipeline/image_types.js';
import { TextEncoder } from '../../../src/pipeline/text_encoder.js';
import type { Device } from '../../../src/runtime/device.js';
import { goldenClip, spell, WORDS } from '../../support/clip_words.js';
import { refinerPart, sd1Part, sd2Part, sdxlPart } from '../../support/denoiser_parts.js';
import { openModelDevice } from '../../support/devices.js';
import { block, isZero, TextReader, type Asked } from '../../support/family_texts.js';
import { readGolden } from '../../support/golden.js';
import { relativeL2 } from '../../support/reference.js';

/** float32 against float64: the golden data's README. */
const TOLERANCE = 5e-6;
const L = 64;
const G = 80;

let root: string;
let device: Device;
let texts: TextReader;
const goldenL = readGolden('encoders/clip_l_tiny/expected.safetensors');
const goldenG = readGolden('encoders/clip_g_tiny/expected.safetensors');
const ids = (tensors: typeof goldenL, sequence: number) =>
  (tensors.get('input_ids')!.data as Int32Array).subarray(77 * sequence, 77 * (sequence + 1));
// Two prompts, each golden for one of the CLIPs, in words that the other knows too.
const ofL = spell(ids(goldenL, 0), WORDS.slice(0, 13));
const ofG = spell(ids(goldenG, 0), WORDS.slice(13, 26));

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'kotoba-family-'));
  device = openModelDevice();
  texts = new TextReader(device, {
    clip_l: { path: goldenClip(root, 'clip_l_tiny', ofL.spelling), precision: 'fp32' },
    clip_g: { path: goldenClip(root, 'clip_g_tiny', ofG.spelling), precision: 'fp32' },
  });
});
afterAll(() => {
  device.close();
  rmSync(root, { recursive: true });
});

/** Rows of a golden tensor [3, …]. */
function sequence(tensors: typeof goldenL, name: string, at: number): Float32Array {
  const { data, shape } = tensors.get(name)!;
  const size = data.length / shape[0]!;
  return (data as Float32Array).subarray(at * size, (at + 1) * size);
}

describe('SD1: CLIP-L', () => {
  test('golden: the last state, the last but one with the final norm, no vector', async () => {
    const denoiser = sd1Part(L);
    const last = await texts.read(ofL.text, denoiser);
    expect(relativeL2(last.hidden, sequence(goldenL, 'last_hidden_state', 0))).toBeLessThan(TOLERANCE);
    expect([last.tokens, last.pooled, last.truncated]).toEqual([77, undefined, {}]);
    expect(last.states.clip_l).toEqual({ values: last.hidden, width: L });
    const before = await texts.read(ofL.text, denoiser, { clipSkip: 2 });
    expect(relativeL2(before.hidden, sequence(goldenL, 'penultimate_ln', 0))).toBeLessThan(TOLERANCE);
  });

  test('golden: 75 tokens fill one chunk in every profile', async () => {
    const full = spell(ids(goldenL, 1));
    const path = goldenClip(join(root, 'full'), 'clip_l_tiny', full.spelling);
    for (const profile of PROFILES) {
      const { hidden, tokens } = await texts
        .with({ clip_l: { path, precision: 'fp32' } })
        .read(full.text, sd1Part(L), { profile });
      expect(tokens).toBe(77);
      expect(relativeL2(hidden, sequence(goldenL, 'last_hidden_state', 1))).toBeLessThan(TOLERANCE);
    }
  });

  const long = WORDS.slice(0, 100).join(' ');

  test('100 tokens: two chunks in comfy and a1111, 25 tokens lost and told in bfl and diffusers', async () => {
    const inTwo = { tokens: 154, truncated: {} };
    const cut = { tokens: 77, truncated: { clip_l: 25 } };
    for (const [profile, expected] of Object.entries({
      comfy: inTwo,
      a1111: inTwo,
      bfl: cut,
      diffusers: cut,
    }))
      expect(await texts.read(long, sd1Part(L), { profile: profile as Profile })).toMatchObject(expected);
    const comfy = await texts.read(long, sd1Part(L), { profile: 'comfy' });
    const [first, second] = [WORDS.slice(0, 75), WORDS.slice(75, 100)].map((words) => words.join(' '));
    const parts = [await texts.read(first!, sd1Part(L)), await texts.read(second!, sd1Part(L))];
    const joined = Float32Array.from(parts.flatMap(({ hidden }) => [...hidden]));
    expect(relativeL2(comfy.hidden, joined)).toBeLessThan(TOLERANCE); // in one pass, in two
    const { hidden } = await texts.read(long, sd1Part(L), { profile: 'bfl' });
    expect(hidden).toEqual(parts[0]!.hidden);
  });

  test('BREAK and the weights are those of the profile, or of the dialect asked for', async () => {
    const tokens = async (profile: Profile, asked: Asked = {}) =>
      (await texts.read('a BREAK b', sd1Part(L), { profile, ...asked })).tokens;
    expect(await tokens('a1111')).toBe(154);
    for (const profile of ['comfy', 'bfl', 'diffusers'] as const) expect(await tokens(profile)).toBe(77);
    expect(await tokens('comfy', { dialect: 'a1111' })).toBe(154);
    const weighted = (profile: Profile) => texts.read('a (b:1.5) c', sd1Part(L), { profile });
    await using encoder = await TextEncoder.load(texts.encoders.clip_l!.path, { device });
    for (const [profile, dialect] of [
      ['comfy', 'comfyui'],
      ['a1111', 'a1111'],
      ['bfl', 'plain'],
    ] as const)
      expect((await weighted(profile)).hidden).toEqual(
        (await encoder.encode('a (b:1.5) c', { dialect })).hidden,
      );
  });
});

describe('SD2: CLIP-H, 0 after the end of text', () => {
  test('golden: the last but one with the final norm', async () => {
    const { hidden, tokens, states } = await new TextReader(device, { clip_h: texts.encoders.clip_g! }).read(
      ofG.text,
      sd2Part(G),
    );
    expect(relativeL2(hidden, sequence(goldenG, 'penultimate_ln', 0))).toBeLessThan(TOLERANCE);
    expect([tokens, Object.keys(states)]).toEqual([77, ['clip_h']]);
  });
});

describe('SDXL: CLIP-L ⊕ CLIP-G', () => {
  const denoiser = sdxlPart(L + G, G);

  test('golden: last but one without norm, and the projected vector of CLIP-G', async () => {
    const left = await texts.read(ofL.text, denoiser);
    expect(relativeL2(block(left, [0, L]), sequence(goldenL, 'hidden_states.2', 0))).toBeLessThan(TOLERANCE);
    const right = await texts.read(ofG.text, denoiser);
    expect(relativeL2(block(right, [L, L + G]), sequence(goldenG, 'hidden_states.2', 0))).toBeLessThan(
      TOLERANCE,
    );
    expect(relativeL2(right.pooled!, sequence(goldenG, 'text_embeds', 0))).toBeLessThan(TOLERANCE);
    expect(right.tokens).toBe(77);
    expect(right.states.clip_g).toMatchObject({ width: G });
    expect(relativeL2(right.states.clip_g!.values, sequence(goldenG, 'hidden_states.2', 0))).toBeLessThan(
      TOLERANCE,
    );
  });

  test('golden: clip skip 1 is the last state, without norm too', async () => {
    const { hidden, tokens, pooled } = await texts.read(ofG.text, denoiser, { clipSkip: 1 });
    expect(
      relativeL2(block({ hidden, tokens }, [L, L + G]), sequence(goldenG, 'hidden_states.3', 0)),
    ).toBeLessThan(TOLERANCE);
    expect(relativeL2(pooled!, sequence(goldenG, 'text_embeds', 0))).toBeLessThan(TOLERANCE);
  });

  test('two chunks: the vector is the first one’s', async () => {
    const long = WORDS.slice(0, 100).join(' ');
    const { tokens, pooled } = await texts.read(long, denoiser);
    const first = await texts.read(WORDS.slice(0, 75).join(' '), denoiser);
    expect(tokens).toBe(154);
    expect(relativeL2(pooled!, first.pooled!)).toBeLessThan(TOLERANCE);
  });

  test('weights change the states, not the vector', async () => {
    for (const profile of ['comfy', 'a1111'] as const) {
      const plain = await texts.read('a b c', denoiser, { profile });
      const weighted = await texts.read('a (b:1.5) c', denoiser, { profile });
      expect(relativeL2(weighted.pooled!, plain.pooled!)).toBeLessThan(TOLERANCE);
      expect(relativeL2(weighted.hidden, plain.hidden)).toBeGreaterThan(0.01);
    }
  });

  test.each([
    ['comfy', undefined, false],
    ['comfy', '', false],
    ['a1111', undefined, true],
    ['a1111', '', true],
    ['a1111', 'x', false],
    ['bfl', '', true],
    ['bfl', 'x', false],
    ['diffusers', undefined, true],
    ['diffusers', '', false],
  ] as const)('%s: the negative prompt %j is zeros: %s', async (profile, negativePrompt, expected) => {
    const { negative } = await texts.both('a b', denoiser, { profile, negativePrompt, cfg: 5 });
    expect([isZero(negative!.hidden), isZero(negative!.pooled!)]).toEqual([expected, expected]);
    if (expected) return;
    const encoded = await texts.read(negativePrompt ?? '', denoiser, { profile });
    expect(negative).toEqual(encoded);
  });

  test('the refiner: CLIP-G alone, zeros for no negative prompt in a1111 only', async () => {
    const { hidden, pooled } = await texts.read(ofG.text, refinerPart(G));
    expect(relativeL2(hidden, sequence(goldenG, 'hidden_states.2', 0))).toBeLessThan(TOLERANCE);
    expect(relativeL2(pooled!, sequence(goldenG, 'text_embeds', 0))).toBeLessThan(TOLERANCE);
    const zeros = async (profile: Profile) =>
      isZero((await texts.both('a', refinerPart(G), { profile, cfg: 2 })).negative!.hidden);
    expect(await Promise.all(PROFILES.map(zeros))).toEqual(PROFILES.map((profile) => profile === 'a1111'));
  });
});
