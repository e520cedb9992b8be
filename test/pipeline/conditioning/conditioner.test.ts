/** How a Conditioner runs encoders: once for the same thing, one at a time where memory is short. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Conditioner } from '../../../src/pipeline/conditioning/conditioner.js';
import type { GenerateProgress, Profile } from '../../../src/pipeline/image_types.js';
import { Device } from '../../../src/runtime/device.js';
import { sd2Part, sd3Part, sdxlPart } from '../../support/denoiser_parts.js';
import { TextReader } from '../../support/family_texts.js';
import { golden } from '../../support/golden.js';
import { writeRandomClip } from '../../support/random_clip.js';

const L = 16;
const G = 24;
const T5 = 64;
const PROMPT = 'a photo of a cat';

let root: string;
let device: Device;
let texts: TextReader;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'kotoba-conditioner-'));
  device = Device.open('cpu'); // lengths and joints, the same on every device
  const clip = async (name: string, width: number) => ({
    path: await writeRandomClip(join(root, name), { width, layers: 3, projection: width }),
  });
  texts = new TextReader(device, {
    clip_l: await clip('l.safetensors', L),
    clip_g: await clip('g.safetensors', G),
    t5: { path: golden('encoders/t5_tiny_gguf/model.f32.gguf') },
  });
});
afterAll(() => {
  device.close();
  rmSync(root, { recursive: true });
});

describe('running the encoders', () => {
  const sdxl = sdxlPart(L + G, G);

  test('each prompt once by each encoder; another state, dialect or layout is another run', async () => {
    const conditioner = new Conditioner(device, 'keep');
    const runs = async (prompt: string, asked = {}): Promise<number> => {
      const before = conditioner.encodes;
      await texts.both(prompt, sdxl, { conditioner, ...asked });
      return conditioner.encodes - before;
    };
    expect(await runs(PROMPT)).toBe(2);
    expect(await runs(PROMPT)).toBe(0);
    expect(await runs(PROMPT, { cfg: 5 })).toBe(2);
    expect(await runs('', { cfg: 5, negativePrompt: PROMPT })).toBe(0);
    expect(await runs(PROMPT, { clipSkip: 1 })).toBe(2);
    expect(await runs(PROMPT, { dialect: 'plain' })).toBe(2);
    expect(await runs(PROMPT, { profile: 'bfl' })).toBe(2);
    await conditioner.release();
    expect(await runs(PROMPT)).toBe(0);
  });

  test('lean: one encoder at a time, each loaded once for prompt and negative', async () => {
    const conditioner = new Conditioner(device, 'lean');
    const order: string[] = [];
    const report = ({ detail, done, total }: GenerateProgress) => void (done === total && order.push(detail));
    await texts.both(PROMPT, sd3Part(T5, L + G), { conditioner, cfg: 4, report });
    expect(order).toEqual(['clip_l', 'clip_l', 'clip_g', 'clip_g', 't5', 't5']);
    await conditioner.release();
  });

  test('SD2 as diffusers saves it: 23 of 24 layers, the last of which is the last but one', async () => {
    const deep = async (layers: number) => ({
      clip_h: { path: await writeRandomClip(join(root, `h${layers}.safetensors`), { width: L, layers }) },
    });
    for (const [layers, clipSkip] of [
      [23, 1],
      [24, 2],
    ] as const) {
      const reader = new TextReader(device, await deep(layers));
      const { hidden } = await reader.read(PROMPT, sd2Part(L));
      const expected = await reader.alone('clip_h', PROMPT, { clipSkip, layout: { padId: 0 } });
      expect(hidden).toEqual(expected.hidden);
    }
    const cut = new TextReader(device, await deep(23));
    await expect(cut.read(PROMPT, sd2Part(L), { clipSkip: 1 })).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: expect.stringContaining('without its last layer') as string,
    });
  });

  test('a missing encoder, an unknown profile', async () => {
    await expect(new TextReader(device, {}).read(PROMPT, sdxl)).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
    });
    await expect(texts.read(PROMPT, sdxl, { profile: 'sd' as Profile })).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: expect.stringContaining('bfl, comfy, a1111, diffusers'),
    });
  });
});
