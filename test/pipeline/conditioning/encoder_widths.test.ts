/** Which encoders a denoiser takes, and what is said about others. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encoderSlots, requireEncoders } from '../../../src/pipeline/conditioning/encoder_widths.js';
import type { DenoiserPart, EncoderChoices, EncoderSlot } from '../../../src/pipeline/image_types.js';
import { fluxPart, refinerPart, sd1Part, sd2Part, sd3Part, sdxlPart } from '../../support/denoiser_parts.js';
import { golden } from '../../support/golden.js';
import { writeRandomClip } from '../../support/random_clip.js';

const L = 16;
const G = 24;
const T5 = 64;

let root: string;
let clip_l: { path: string };
let clip_g: { path: string };
let bare: { path: string };
let long: { path: string };
const t5 = { path: golden('encoders/t5_tiny_gguf/model.f32.gguf') };

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'kotoba-widths-'));
  const small = { vocabulary: 600 };
  const clip = async (name: string, width: number, more = {}) => ({
    path: await writeRandomClip(join(root, name), { width, ...small, ...more }),
  });
  clip_l = await clip('l.safetensors', L);
  clip_g = await clip('g.safetensors', G, { projection: G });
  bare = await clip('bare.safetensors', G);
  long = await clip('long.safetensors', L, { positions: 248 });
});
afterAll(() => rmSync(root, { recursive: true }));

/** A CLIP of one layer in a file that is all holes: only its header is read. */
function sparseClip(name: string, width: number): { path: string } {
  const layer = 'text_model.encoder.layers.0';
  const shapes: [string, number[]][] = [
    ['text_model.embeddings.token_embedding.weight', [600, width]],
    ['text_model.embeddings.position_embedding.weight', [77, width]],
    ...['q', 'k', 'v', 'out'].flatMap((kind): [string, number[]][] => [
      [`${layer}.self_attn.${kind}_proj.weight`, [width, width]],
      [`${layer}.self_attn.${kind}_proj.bias`, [width]],
    ]),
    [`${layer}.mlp.fc1.weight`, [4 * width, width]],
    [`${layer}.mlp.fc1.bias`, [4 * width]],
    [`${layer}.mlp.fc2.weight`, [width, 4 * width]],
    [`${layer}.mlp.fc2.bias`, [width]],
    ...[`${layer}.layer_norm1`, `${layer}.layer_norm2`, 'text_model.final_layer_norm'].flatMap(
      (norm): [string, number[]][] => [
        [`${norm}.weight`, [width]],
        [`${norm}.bias`, [width]],
      ],
    ),
    ['text_projection.weight', [width, width]],
  ];
  let at = 0;
  const header = Object.fromEntries(
    shapes.map(([key, shape]) => {
      const start = at;
      at += 2 * shape.reduce((a, b) => a * b, 1);
      return [key, { dtype: 'F16', shape, data_offsets: [start, at] }];
    }),
  );
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  const path = join(root, name);
  writeFileSync(path, Buffer.concat([size, text]));
  truncateSync(path, 8 + text.length + at);
  return { path };
}

const slots = (denoiser: DenoiserPart): string =>
  encoderSlots(denoiser)
    .map(({ slot, isOptional }) => slot + (isOptional ? '?' : ''))
    .join(' ');

test('which encoders each family takes', () => {
  expect(slots(sd1Part(768))).toBe('clip_l');
  expect(slots(sd2Part(1024))).toBe('clip_h');
  expect(slots(sdxlPart(2048, 1280))).toBe('clip_l clip_g');
  expect(slots(refinerPart(1280))).toBe('clip_g');
  expect(slots(sd3Part(4096, 2048))).toBe('clip_l clip_g t5?');
  expect(slots(fluxPart(4096, 768))).toBe('clip_l t5');
});

describe('those that fit', () => {
  test.each<[string, DenoiserPart, () => EncoderChoices]>([
    ['SD1', sd1Part(L), () => ({ clip_l })],
    ['SD1 with Long-CLIP-L', sd1Part(L), () => ({ clip_l: long })],
    ['SD2', sd2Part(G), () => ({ clip_h: clip_g })],
    ['SDXL', sdxlPart(L + G, G), () => ({ clip_l, clip_g })],
    ['SDXL with Long-CLIP-L', sdxlPart(L + G, G), () => ({ clip_l: long, clip_g })],
    ['the refiner', refinerPart(G), () => ({ clip_g })],
    ['SD3', sd3Part(T5, L + G), () => ({ clip_l, clip_g, t5 })],
    ['SD3 without T5', sd3Part(T5, L + G), () => ({ clip_l, clip_g })],
    ['SD3 as wide as its CLIPs', sd3Part(L + G, L + G), () => ({ clip_l, clip_g })],
    ['Flux', fluxPart(T5, L), () => ({ clip_l, t5 })],
  ])('%s', (_, denoiser, choices) => {
    const parts = requireEncoders(choices(), denoiser);
    expect(Object.keys(parts).toSorted()).toEqual(Object.keys(choices()).toSorted());
  });
});

function problem(choices: EncoderChoices, denoiser: DenoiserPart): { code: string; message: string } {
  try {
    requireEncoders(choices, denoiser);
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return { code, message };
  }
  throw new Error('expected an error');
}

describe('one too many, one too few', () => {
  test.each<[string, DenoiserPart, () => EncoderChoices, RegExp]>([
    ['SD1 and T5', sd1Part(L), () => ({ clip_l, t5 }), /none for t5, got .*gguf: .*SD1, which takes clip_l$/],
    ['SDXL without CLIP-G', sdxlPart(L + G, G), () => ({ clip_l }), /CLIP-G for clip_g, got none/],
    ['the refiner and CLIP-L', refinerPart(G), () => ({ clip_l, clip_g }), /none for clip_l.*refiner/],
    [
      'SD3 without CLIP-L',
      sd3Part(T5, L + G),
      () => ({ clip_g, t5 }),
      /takes clip_l, clip_g, t5 \(optional\)/,
    ],
    ['Flux without T5', fluxPart(T5, L), () => ({ clip_l }), /T5 or Flan-T5 for t5, got none/],
  ])('%s', (_, denoiser, choices, message) => {
    expect(problem(choices(), denoiser)).toEqual({
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(message),
    });
  });
});

describe('wrong widths, and what would fit', () => {
  test.each<[string, DenoiserPart, () => EncoderChoices, RegExp]>([
    [
      'SD1',
      sd1Part(768),
      () => ({ clip_l }),
      /l\.safetensors.* gives 16 values a token, .*takes 768 from CLIP-L or Long-CLIP-L: CLIP-L, CLIP-GmP and Long-CLIP-L fit$/,
    ],
    [
      'SD1 of no public width',
      sd1Part(32),
      () => ({ clip_l }),
      /gives 16 values a token, but sd1\.safetensors takes 32 from CLIP-L or Long-CLIP-L$/,
    ],
    ['SD2', sd2Part(1024), () => ({ clip_h: clip_g }), /takes 1024 from CLIP-H: the CLIP-H/],
    [
      'SDXL, both',
      sdxlPart(2048, 1280),
      () => ({ clip_l, clip_g }),
      /l\.safetensors.*16 values a token; .*g\.safetensors.*24 .*takes 768 from .* and 1280 from CLIP-G/,
    ],
    [
      'SDXL of no public width',
      sdxlPart(48, G),
      () => ({ clip_l, clip_g }),
      /takes 48 from CLIP-L or Long-CLIP-L and CLIP-G together$/,
    ],
    [
      'SDXL, the vector',
      sdxlPart(L + G, G + 1),
      () => ({ clip_l, clip_g }),
      /g\.safetensors.*a vector of 24 values, .*takes 25 from CLIP-G$/,
    ],
    ['SDXL, no projection', sdxlPart(L + G, G), () => ({ clip_l, clip_g: bare }), /no text_projection/],
    ['the refiner', refinerPart(32), () => ({ clip_g }), /takes 32 from CLIP-G/],
    [
      'SD3, the vectors',
      sd3Part(T5, 2048),
      () => ({ clip_l, clip_g }),
      /a vector of 16 values; .*takes 768 .* and 1280/,
    ],
    [
      'SD3, too wide',
      sd3Part(L + G - 1, L + G),
      () => ({ clip_l, clip_g }),
      /16 values a token; .* takes 39 from .* together$/,
    ],
    [
      'SD3, T5',
      sd3Part(4096, L + G),
      () => ({ clip_l, clip_g, t5 }),
      /gives 64 values a token, .*takes 4096 from T5 or Flan-T5: T5-XXL and Flan-T5-XXL fit/,
    ],
    [
      'Flux, CLIP-L',
      fluxPart(T5, 768),
      () => ({ clip_l, t5 }),
      /takes 768 from CLIP-L or Long-CLIP-L: .*CLIP-GmP/,
    ],
    ['Flux, T5', fluxPart(4096, L), () => ({ clip_l, t5 }), /takes 4096 from T5 or Flan-T5: T5-XXL/],
  ])('%s', (_, denoiser, choices, message) => {
    expect(problem(choices(), denoiser)).toEqual({
      code: 'ERR_MODEL_SLOT',
      message: expect.stringMatching(message),
    });
  });

  test('only the odd one of a pair is blamed', () => {
    const usual = {
      clip_l: sparseClip('768.safetensors', 768),
      clip_g: sparseClip('1280.safetensors', 1280),
    };
    const sdxl = sdxlPart(2048, 1280);
    expect(Object.keys(requireEncoders(usual, sdxl))).toEqual(['clip_l', 'clip_g']);
    expect(problem({ ...usual, clip_l }, sdxl).message).toMatch(
      /^[^;]*l\.safetensors: .* gives 16 values a token, but \S+ takes 768 from CLIP-L or Long-CLIP-L: CLIP-L, .* fit$/,
    );
    expect(problem({ ...usual, clip_g }, sd3Part(4096, 2048)).message).toMatch(
      /^[^;]*g\.safetensors: .* gives a vector of 24 values, but \S+ takes 1280 from CLIP-G: .* fit$/,
    );
  });
});

describe('another network altogether', () => {
  test.each<[EncoderSlot, () => EncoderChoices]>([
    ['clip_l', () => ({ clip_l: t5 })],
    ['t5', () => ({ clip_l, t5: clip_g })],
  ])('in %s', (slot, choices) => {
    const { code, message } = problem(choices(), fluxPart(T5, L));
    expect(code).toBe('ERR_MODEL_SLOT');
    expect(message).toContain(
      `flux.safetensors takes ${slot === 't5' ? 'T5 or Flan-T5' : 'CLIP-L or Long-CLIP-L'} there`,
    );
  });

  test('a file that is not there', () => {
    expect(problem({ clip_l: { path: join(root, 'none') } }, sd1Part(L)).code).toBe('ERR_FILE_NOT_FOUND');
  });
});
