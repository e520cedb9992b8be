import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeFlops, fluxFlops, unetFlops } from '../../bench/generate_flops.js';
import { imageDims, makeImageModel } from '../../bench/image_files.js';
import { fluxMetadata, fluxTensors, vaeTensors, type FluxType } from '../../bench/image_layout.js';
import { tensorBytes } from '../../bench/file_headers.js';
import type { PlannedTensor } from '../../bench/model_layout.js';
import { makeSd1File, sd1Dims, sd1FileNames } from '../../bench/sd1_files.js';
import { sd1Tensors } from '../../bench/sd1_layout.js';
import { openModel, selectPart, type UnetConfig } from '../../src/formats/index.js';
import { loadT5Tokenizer } from '../../src/text/index.js';

interface GoldenNames {
  readonly tensors: Record<string, [type: string, shape: number[]]>;
  readonly data_bytes: number;
  readonly metadata: Record<string, unknown>;
}

function namesOf(file: string): GoldenNames {
  const bytes = readFileSync(new URL(`../golden/names/${file}`, import.meta.url));
  return JSON.parse((file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString()) as GoldenNames;
}

const planned = (tensors: readonly PlannedTensor[]) =>
  tensors.map(({ name, type, shape }) => [name, [type, shape]]);
const { flux, vae } = imageDims.full;

describe('full-size layouts are those of the public files', () => {
  test.each<[FluxType, string]>([
    ['Q4_0', 'city96_flux1-dev-Q4_0.json.gz'],
    ['Q8_0', 'city96_flux1-dev-Q8_0.json.gz'],
    ['F16', 'city96_flux1-dev-F16.json.gz'],
    ['Q4_K', 'city96_flux1-schnell-Q4_K_S.json.gz'],
  ])('a transformer of %s has the tensors of %s, but for guidance', (type, file) => {
    const golden = namesOf(file);
    const expected = Object.entries(golden.tensors).filter(([name]) => !name.startsWith('guidance_in.'));
    expect(Object.fromEntries(planned(fluxTensors(flux, type)))).toEqual(Object.fromEntries(expected));
    expect(fluxMetadata(type)).toEqual(golden.metadata);
    if (expected.length === Object.keys(golden.tensors).length)
      expect(fluxTensors(flux, type).reduce((sum, t) => sum + tensorBytes(t), 0)).toBe(golden.data_bytes);
  });

  test('the autoencoder has the tensors of ae.safetensors, in its order', () => {
    expect(planned(vaeTensors(vae))).toEqual(Object.entries(namesOf('ae.json').tensors));
  });
});

describe('a full-size SD1 checkpoint', () => {
  const unused = /^(model_ema|[a-z0-9_]+$)|position_ids$/; // of training, and CLIP's 0 … 76
  const expected = Object.entries(namesOf('v1-5-pruned-emaonly.json.gz').tensors).filter(
    ([name]) => !unused.test(name),
  );

  test('has the tensors of v1-5-pruned-emaonly, in its order, but for what no picture needs', () => {
    expect(expected.length).toBe(1130);
    expect(planned(sd1Tensors(sd1Dims.full, 'F32'))).toEqual(expected);
  });

  test('in F16 it is half as large', () => {
    const bytes = (type: 'F16' | 'F32') =>
      sd1Tensors(sd1Dims.full, type).reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
    expect(bytes('F16')).toBe(bytes('F32') / 2);
  });
});

describe('operations, counted again tensor by tensor', () => {
  const size = (t: PlannedTensor) => t.shape.reduce((a, b) => a * b, 1);
  const matrices = (tensors: readonly PlannedTensor[]) => tensors.filter((t) => t.shape.length > 1);
  const config = {
    in_channels: 64,
    out_channels: 64,
    vec_in_dim: flux.vector,
    context_in_dim: flux.context,
    hidden_size: flux.hidden,
    mlp_ratio: 4,
    num_heads: flux.heads,
    depth: flux.depth,
    depth_single_blocks: flux.depthSingle,
    axes_dim: [16, 56, 56],
    theta: 10_000,
    qkv_bias: true,
    guidance_embed: false,
  };

  test('the transformer: every matrix meets the rows of its stream', () => {
    const [text, image] = [100, 7];
    const rows = (name: string): number => {
      if (/_mod\.lin|modulation|time_in|vector_in/.test(name)) return 1;
      if (/\.img_|^img_in|^final_layer\.linear/.test(name)) return image;
      return /\.txt_|^txt_in/.test(name) ? text : text + image;
    };
    const weights = matrices(fluxTensors(flux, 'F16')).reduce((sum, t) => sum + size(t) * rows(t.name), 0);
    const attention = 57 * 2 * (text + image) ** 2 * flux.hidden;
    expect(fluxFlops(config, text, image)).toBe(2 * (weights + attention));
  });

  test('the UNet: every kernel meets the pixels of its level, every matrix of the text the tokens', () => {
    const [height, width, text] = [16, 24, 77];
    const { model, multiples, context } = sd1Dims.full.unet;
    const config: UnetConfig = {
      in_channels: 4,
      out_channels: 4,
      model_channels: model,
      widths: multiples.map((multiple) => multiple * model),
      context_dim: context,
      adm_in_channels: 0,
      heads: [8, 8, 8, 8],
      layout: {
        down: [
          [1, 1],
          [1, 1],
          [1, 1],
          [0, 0],
        ],
        middle: 1,
        up: [
          [0, 0, 0],
          [1, 1, 1],
          [1, 1, 1],
          [1, 1, 1],
        ],
        hasVector: false,
      },
      prediction: 'eps',
      zero_terminal_snr: false,
    };
    // Blocks come in threes, one level each; the last of three changes the size.
    const pixels = (name: string): number => {
      const [, side, block] = /(input|output)_blocks\.(\d+)/.exec(name) ?? [];
      const third = Math.floor(Number(block) / 3);
      const outputLevel = 3 - third - (name.endsWith('conv.weight') ? 1 : 0);
      const level = side === 'input' ? third : side === 'output' ? outputLevel : /^out/.test(name) ? 0 : 3;
      return (height * width) / 4 ** level;
    };
    const rows = (name: string): number => {
      if (/emb_layers|time_embed/.test(name)) return 1;
      return /attn2\.to_[kv]/.test(name) ? text : pixels(name);
    };
    const unet = sd1Tensors(sd1Dims.full, 'F16')
      .map((tensor) => ({ ...tensor, name: tensor.name.replace('model.diffusion_model.', '') }))
      .filter(({ name }) => /^(input_blocks|middle_block|output_blocks|out|time_embed)\./.test(name));
    const weights = matrices(unet).reduce((sum, t) => sum + size(t) * rows(t.name), 0);
    const attention = unet
      .filter(({ name }) => name.endsWith('attn1.to_q.weight'))
      .reduce((sum, t) => sum + 2 * pixels(t.name) * (pixels(t.name) + text) * t.shape[0]!, 0);
    expect(unetFlops(config, { text, height, width })).toBe(2 * (weights + attention));
  });

  test('the decoder: every kernel meets the pixels of its level', () => {
    const [height, width] = [4, 6];
    const pixels = (name: string): number => {
      const level = Number(/up\.(\d)/.exec(name)?.[1] ?? (/norm_out|conv_out/.test(name) ? 0 : 3));
      const doublings = 3 - level + (name.includes('upsample') ? 1 : 0);
      return height * width * 4 ** doublings;
    };
    const decoder = matrices(vaeTensors(vae)).filter((t) => t.name.startsWith('decoder.'));
    const weights = decoder.reduce((sum, t) => sum + size(t) * pixels(t.name), 0);
    const attention = 2 * (height * width) ** 2 * 512;
    const part = {
      ch: vae.ch,
      ch_mult: vae.multiples,
      num_res_blocks: vae.blocks,
      z_channels: 16,
      in_channels: 3,
      out_ch: 3,
      num_groups: 32,
      quant_conv: false,
      scale_factor: 1,
      shift_factor: 0,
    };
    expect(decodeFlops(part, height, width)).toBe(2 * (weights + attention));
  });
});

describe('tiny files', () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'kotoba-image-files-'));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  test.each(['flux_q4_0', 'flux_q8_0', 'flux_q4_k', 'flux_f16'] as const)(
    '%s: every part is taken for what it is, and made once',
    (name) => {
      const { model } = makeImageModel(name, { size: 'tiny', directory });
      const parts = [
        selectPart(openModel(model.denoiser), { slot: 'transformer' }),
        selectPart(openModel(model.vae), { slot: 'vae' }),
        selectPart(openModel(model.encoders.clip_l!.path), { slot: 'clip_l' }),
        selectPart(openModel(model.encoders.t5!.path), { slot: 't5' }),
      ];
      for (const { missing, unexpected, wrong } of parts)
        expect([...missing, ...unexpected, ...wrong]).toEqual([]);
      const before = readdirSync(directory);
      makeImageModel(name, { size: 'tiny', directory });
      expect(readdirSync(directory)).toEqual(before);
      expect(before.filter((file) => file.endsWith('.part'))).toEqual([]);
    },
  );

  test.each(sd1FileNames)('%s: one checkpoint, every part taken for what it is, made once', (name) => {
    const path = makeSd1File(name, { size: 'tiny', directory });
    for (const slot of ['unet', 'vae', 'clip_l'] as const) {
      const { missing, unexpected, wrong } = selectPart(openModel(path), { slot });
      expect([...missing, ...unexpected, ...wrong], slot).toEqual([]);
    }
    const before = statSync(path).mtimeMs;
    expect(makeSd1File(name, { size: 'tiny', directory })).toBe(path);
    expect(statSync(path).mtimeMs).toBe(before);
  });

  test("the vocabulary gives the prompt T5's own ids", async () => {
    const { model, prompt } = makeImageModel('flux_q4_0', { size: 'tiny', directory });
    const tokenizer = await loadT5Tokenizer({ explicitPath: model.encoders.t5!.tokenizer! });
    expect(prompt).toBe('A cat asleep on a red chair');
    expect([...tokenizer.encode(prompt).ids]).toEqual([71, 1712, 17915, 30, 3, 9, 1131, 3533]);
  });

  const published = fileURLToPath(
    new URL('../../../shared/golden/tokenizers/t5_spiece.model', import.meta.url),
  );
  test.skipIf(!existsSync(published))('and the published vocabulary gives the same', async () => {
    const { prompt } = makeImageModel('flux_q4_0', { size: 'tiny', directory });
    const tokenizer = await loadT5Tokenizer({ explicitPath: published });
    expect([...tokenizer.encode(prompt).ids]).toEqual([71, 1712, 17915, 30, 3, 9, 1131, 3533]);
  });
});
