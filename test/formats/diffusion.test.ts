/** Flux transformers and VAEs: one set of canonical tensors whatever the naming, their config, and what can be wrong. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { identify, openModel, requireHalf, selectPart, vaeOfFamily } from '../../src/formats/index.js';
import type { FluxPart, ModelFile, Part, VaePart } from '../../src/formats/index.js';
import { FLUX_CONFIG, VAE_CONFIG, bytesOf, diffusersFlux, diffusersVae, filled } from './diffusion_files.js';
import { prefixed, publicTable, tinyFlux, tinyVae, writeModel } from './diffusion_files.js';
import type { StoredTensors } from './diffusion_files.js';
import { seeded } from '../text/samples.js';
import { refused } from './encoder_files.js';
import { safetensorsHeader, writeSparse } from './model_bytes.js';
import type { TensorTable } from './model_bytes.js';

let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'kotoba-diffusion-'))));
afterEach(() => rmSync(dir, { recursive: true }));

function sparse(table: TensorTable, config?: unknown, name = 'm.safetensors'): ModelFile {
  const metadata = config === undefined ? undefined : { config: JSON.stringify(config) };
  writeSparse(join(dir, name), safetensorsHeader(table, { metadata }));
  return openModel(join(dir, name));
}

const flux = (model: ModelFile, config?: Record<string, unknown>): FluxPart =>
  selectPart(model, { slot: 'transformer', config }) as FluxPart;
const vae = (model: ModelFile): VaePart => selectPart(model, { slot: 'vae' }) as VaePart;
const shapesOf = (part: Part): Map<string, readonly number[]> =>
  new Map([...part.tensors].map(([name, { shape }]) => [name, shape]));

/** Every tensor of `original`, under its own name, is what the part reads. */
function expectBytes(part: Part, original: StoredTensors): void {
  const files = new Map<string, Buffer>();
  const read = (path: string): Buffer => {
    if (!files.has(path)) files.set(path, readFileSync(path));
    return files.get(path)!;
  };
  expect([...part.tensors.keys()].sort()).toEqual([...original.keys()].sort());
  for (const [name, { shape, data }] of original) {
    expect(part.tensors.get(name)!.shape, name).toEqual(shape);
    expect(bytesOf(part.tensors.get(name)!, read).equals(data), name).toBe(true);
  }
}

describe('public files', () => {
  const dev = {
    in_channels: 64,
    out_channels: 64,
    vec_in_dim: 768,
    context_in_dim: 4096,
    hidden_size: 3072,
    mlp_ratio: 4,
    num_heads: 24,
    depth: 19,
    depth_single_blocks: 38,
    axes_dim: [16, 56, 56],
    theta: 10_000,
    qkv_bias: true,
    guidance_embed: true,
  };

  test.each(['flux1-dev.json.gz', 'flux_dev__transformer.json.gz', 'flux1-dev-fp8_all_in_one.json.gz'])(
    '%s: Flux.1 dev',
    (json) => {
      const part = flux(sparse(publicTable(json)));
      expect(part.config).toEqual(dev);
      expect(shapesOf(part)).toEqual(
        shapesOf(flux(sparse(publicTable('flux1-dev.json.gz'), undefined, 'b.safetensors'))),
      );
    },
  );

  test('schnell has no guidance', () => {
    for (const json of ['flux1-schnell.json.gz', 'flux_schnell__transformer.json.gz'])
      expect(flux(sparse(publicTable(json))).config).toEqual({ ...dev, guidance_embed: false });
  });

  test.each([
    ['ae.json', 16, false, 0.3611, 0.1159],
    ['flux__vae.json', 16, false, 0.3611, 0.1159],
    ['sd15__vae.json', 4, true, 0.18215, 0],
    ['sdxl__vae.json', 4, true, 0.18215, 0],
  ])('%s', (json, latent, quant, scale, shift) => {
    const part = vae(sparse(publicTable(json)));
    expect(part.config).toEqual({
      ch: 128,
      ch_mult: [1, 2, 4, 4],
      num_res_blocks: 2,
      z_channels: latent,
      in_channels: 3,
      out_ch: 3,
      num_groups: 32,
      quant_conv: quant,
      scale_factor: scale,
      shift_factor: shift,
    });
    expect(part).toMatchObject({ halves: ['encoder', 'decoder'], factors: 'assumed' });
  });

  test.each([
    ['flux1-dev-fp8_all_in_one.json.gz', 'flux', 0.3611, 0.1159],
    ['sd3_medium.json.gz', 'sd3', 1.5305, 0.0609],
    ['sd_xl_base_1.0.json.gz', 'sdxl', 0.13025, 0],
    ['v1-5-pruned-emaonly.json.gz', 'sd1', 0.18215, 0],
  ] as const)('%s: the denoiser tells what the latents are scaled by', (json, family, scale, shift) => {
    const part = vae(sparse(publicTable(json)));
    expect(part).toMatchObject({
      family,
      factors: 'told',
      config: { scale_factor: scale, shift_factor: shift },
    });
  });
});

describe('every naming gives the same bytes', () => {
  const original = filled(tinyFlux('flux1-dev.json.gz'));
  const config = FLUX_CONFIG;

  test('Flux under Black Forest Labs names, bare and in a checkpoint', async () => {
    const part = flux(await writeModel(dir, 'bare.safetensors', original, config));
    expectBytes(part, original);
    expect(part.config).toEqual(config);
    const prefix = 'model.diffusion_model.';
    const inside = flux(await writeModel(dir, 'prefixed.safetensors', prefixed(original, prefix), config));
    expectBytes(inside, original);
    expect(inside).toMatchObject({ prefix, config });
  });

  test('Flux under diffusers names: split matrices, swapped halves', async () => {
    const names = Object.keys(tinyFlux('flux_dev__transformer.json.gz'));
    const part = flux(await writeModel(dir, 'split.safetensors', diffusersFlux(original, names), config));
    expectBytes(part, original);
    expect(part).toMatchObject({ config, naming: 'diffusers names', tensorCount: names.length });
  });

  test('VAE under the LDM names and diffusers names', async () => {
    const table = tinyVae('ae.json');
    const autoencoder = filled(table);
    const names = Object.keys(tinyVae('flux__vae.json'));
    expectBytes(vae(await writeModel(dir, 'ldm.safetensors', autoencoder, VAE_CONFIG)), autoencoder);
    const part = vae(await writeModel(dir, 'hf.safetensors', diffusersVae(autoencoder, names), VAE_CONFIG));
    expectBytes(part, autoencoder);
    expect(part.config).toMatchObject(VAE_CONFIG);
  });
});

describe('config', () => {
  const table = tinyFlux('flux1-dev.json.gz');

  test('the axes of a head of unknown width must be told', () => {
    expect(() => flux(sparse(table))).toThrow(refused('ERR_MODEL_CONFIG', 'axes_dim cannot be told'));
    expect(flux(sparse(table), { axes_dim: [8, 12, 12] }).config).toEqual(FLUX_CONFIG);
    expect(flux(sparse(table), { transformer: { axes_dim: [8, 12, 12], theta: 500 } }).config.theta).toBe(
      500,
    );
  });

  test.each([
    [{ axes_dim: [8, 12, 14] }, 'add up to 32'],
    [{ axes_dim: [32] }, 'three widths'],
    [{ axes_dim: [9, 11, 12] }, 'even'],
    [{ axes_dim: [8, 12, 12], depth: 3 }, 'depth is 3, but the tensors say 2'],
    [{ axes_dim: [8, 12, 12], mlp_ratio: 3 }, 'mlp_ratio is 3'],
    [{ axes_dim: 'wide' }, 'expected a list of counts'],
    [{ axes_dim: [8, 12, 12], theta: 0 }, 'theta'],
  ])('%j is refused', (config, message) => {
    expect(() => flux(sparse(table), config)).toThrow(refused('ERR_MODEL_CONFIG', message));
    expect(() => flux(sparse(table, config))).toThrow(refused('ERR_MODEL_CONFIG', message));
  });

  test("what the file adds is kept, and diffusers' config.json is understood", () => {
    const stated = { ...FLUX_CONFIG, max_sequence_length: 24, note: 'ours' };
    expect(flux(sparse(table, stated)).config).toEqual({ ...FLUX_CONFIG, max_sequence_length: 24 });
    const folder = join(dir, 'transformer');
    mkdirSync(folder);
    const inFolder = {
      axes_dims_rope: [8, 12, 12],
      num_layers: 2,
      out_channels: null,
      guidance_embeds: true,
    };
    writeFileSync(join(folder, 'config.json'), JSON.stringify(inFolder));
    expect(flux(sparse(table, undefined, 'transformer/m.safetensors')).config).toEqual(FLUX_CONFIG);
    mkdirSync(join(dir, 'vae'));
    const autoencoder = {
      block_out_channels: [16, 32, 64, 64],
      norm_num_groups: 8,
      scaling_factor: 0.5,
      shift_factor: null,
    };
    writeFileSync(join(dir, 'vae', 'config.json'), JSON.stringify(autoencoder));
    const part = vae(sparse(tinyVae('flux__vae.json'), undefined, 'vae/m.safetensors'));
    expect(part.config).toMatchObject({ ...VAE_CONFIG, scale_factor: 0.5, shift_factor: 0 });
  });

  test('in a diffusers folder each part has the metadata of its own file', () => {
    for (const name of ['transformer', 'vae']) mkdirSync(join(dir, name));
    sparse(table, { ...FLUX_CONFIG, max_sequence_length: 24 }, 'transformer/m.safetensors');
    sparse(tinyVae('ae.json'), { ...VAE_CONFIG, resolution: 64 }, 'vae/m.safetensors');
    const model = openModel(dir);
    expect(flux(model).config.max_sequence_length).toBe(24);
    expect(vae(model)).toMatchObject({
      family: 'flux',
      config: { num_groups: 8, resolution: 64, shift_factor: 0.1159 },
    });
  });

  test('groups that do not divide the channels', () => {
    expect(() => vae(sparse(tinyVae('ae.json')))).toThrow(
      refused('ERR_MODEL_CONFIG', 'num_groups cannot be told'),
    );
    expect(() => vae(sparse(tinyVae('ae.json'), { num_groups: 3 }))).toThrow(
      refused('ERR_MODEL_CONFIG', 'num_groups 3'),
    );
  });

  test("a VAE's factors are the file's, else the family's", () => {
    const alone = vae(sparse(publicTable('ae.json')));
    expect(vaeOfFamily(alone, 'sd3')?.config.scale_factor).toBe(1.5305);
    expect(vaeOfFamily(alone, 'sdxl')).toBeUndefined();
    const told = vae(sparse(publicTable('ae.json'), { z_channels: 16, scale_factor: 2, shift_factor: -1 }));
    expect(vaeOfFamily(told, 'sd3')).toMatchObject({
      family: 'sd3',
      config: { scale_factor: 2, shift_factor: -1 },
    });
  });
});

describe('what is wrong is listed', () => {
  const split = { ...tinyFlux('flux_dev__transformer.json.gz') };
  const config = FLUX_CONFIG;
  const complaint = (table: TensorTable, ...words: string[]): void =>
    expect(() => selectPart(sparse(table, config))).toThrow(refused('ERR_MODEL_TENSORS', ...words));
  const without = (table: TensorTable, pattern: RegExp): TensorTable =>
    Object.fromEntries(Object.entries(table).filter(([name]) => !pattern.test(name)));

  test('a missing piece, by its name in the file', () => {
    complaint(
      without(split, /blocks\.1\.attn\.to_k\.weight/),
      '2 missing',
      'transformer_blocks.1.attn.to_k.weight',
    );
    complaint(
      without(tinyFlux('flux1-dev.json.gz'), /1\.txt_attn\.qkv\.bias/),
      '1 missing',
      'txt_attn.qkv.bias',
    );
    complaint(without(split, /guidance_embedder\.linear_2/), '2 missing', 'guidance_embedder.linear_2');
  });

  test('q one row short and k one row long', () => {
    const table = {
      ...split,
      'transformer_blocks.0.attn.to_q.weight': ['BF16', [95, 96]],
      'transformer_blocks.0.attn.to_k.weight': ['BF16', [97, 96]],
    } as const;
    complaint(table, '2 wrong', 'to_q.weight is [95, 96]: expected 96 rows');
    const narrow = { ...split, 'transformer_blocks.0.attn.to_k.weight': ['BF16', [96, 90]] } as const;
    complaint(narrow, 'to_k.weight [96, 90] do not fit together');
  });

  test('tensors of the network that nothing uses, in a checkpoint too', () => {
    const extra = ['F32', [1]] as const;
    const name = 'double_blocks.0.img_attn.qkv.lora_A.weight';
    complaint({ ...tinyFlux('flux1-dev.json.gz'), [name]: extra }, '1 that nothing uses', name);
    const table = Object.fromEntries(
      Object.entries({ ...tinyFlux('flux1-dev.json.gz'), [name]: extra }).map(([key, info]) => [
        `model.diffusion_model.${key}`,
        info,
      ]),
    );
    complaint(table, '1 that nothing uses', `model.diffusion_model.${name}`);
  });

  test('scaled FP8: each piece has its own scale, none may be missing', () => {
    const scaled: Record<string, readonly [string, readonly number[]]> = { scaled_fp8: ['F8_E4M3', [0]] };
    for (const [name, [, shape]] of Object.entries(split)) {
      scaled[name] = [shape.length === 2 ? 'F8_E4M3' : 'BF16', shape];
      if (shape.length === 2) scaled[name.replace(/weight$/, 'scale_weight')] = ['F32', []];
      if (shape.length === 2) scaled[name.replace(/weight$/, 'scale_input')] = ['F32', []];
    }
    const part = flux(sparse(scaled, config));
    const { scale, append } = part.tensors.get('single_blocks.0.linear1.weight')!;
    expect([scale, ...append!.map((piece) => piece.scale)].map((info) => info?.name)).toEqual(
      ['attn.to_q', 'attn.to_k', 'attn.to_v', 'proj_mlp'].map(
        (module) => `single_transformer_blocks.0.${module}.scale_weight`,
      ),
    );
    complaint(
      without(scaled, /blocks\.1\.attn\.to_v\.scale_weight/),
      '2 missing',
      'blocks.1.attn.to_v.scale_weight',
    );
    complaint({ ...scaled, 'double_blocks.0.x.scale_weight': ['F32', []] }, 'no FP8 weight to scale');
  });

  test('a VAE', () => {
    const table = tinyVae('ae.json');
    const wrong = (changed: TensorTable, ...words: string[]): void =>
      expect(() => selectPart(sparse(changed, VAE_CONFIG))).toThrow(refused('ERR_MODEL_TENSORS', ...words));
    wrong(
      without(table, /up\.1\.block\.0\.nin_shortcut/),
      '2 missing',
      'decoder.up.1.block.0.nin_shortcut.weight',
    );
    wrong({ ...table, 'decoder.up.3.block.1.nin_shortcut.weight': ['F32', [64, 64, 1, 1]] }, 'do not change');
    wrong({ ...table, 'decoder.conv_in.weight': ['F32', [64, 2, 3, 1]] }, 'expected [64, 2, 3, 3]');
    wrong({ ...table, 'encoder.down.1.attn.0.q.weight': ['F32', [1]] }, '1 that nothing uses');
  });

  test('half a VAE is taken, and missed only where it is needed', () => {
    for (const [half, other] of [
      ['encoder', 'decoder'],
      ['decoder', 'encoder'],
    ] as const)
      for (const json of ['ae.json', 'flux__vae.json']) {
        const [part, ...more] = identify(sparse(without(tinyVae(json), new RegExp(`^${other}`)), VAE_CONFIG));
        expect(more).toEqual([]);
        expect(part).toMatchObject({ slot: 'vae', halves: [half], missing: [], wrong: [], unexpected: [] });
        expect(part!.config).toMatchObject({
          ch: 16,
          ch_mult: [1, 2, 4, 4],
          z_channels: 2,
          num_res_blocks: 2,
        });
        requireHalf(part as VaePart, half);
        expect(() => requireHalf(part as VaePart, other)).toThrow(
          refused('ERR_MODEL_TENSORS', `only the ${half}`, other),
        );
      }
  });

  test('any few tensors missing or misshapen give a list or a coded error', () => {
    const tables = [
      tinyFlux('flux1-dev.json.gz'),
      split,
      tinyVae('ae.json'),
      tinyVae('flux__vae.json'),
      tinyVae('sd15__vae.json'),
    ];
    const next = seeded(7);
    const shapes = [[], [0], [5], [96, 0], [3, 5, 7], [1, 1, 1, 1], [96, 96]];
    for (let round = 0; round < 400; round++) {
      const table = { ...tables[round % tables.length]! } as Record<
        string,
        readonly [string, readonly number[]]
      >;
      const names = Object.keys(table);
      for (let i = 0; i < 1 + (round % 40); i++) {
        const name = names[Math.floor(next() * names.length)]!;
        if (next() < 0.5) delete table[name];
        else table[name] = ['F32', shapes[Math.floor(next() * shapes.length)]!];
      }
      if (round % 7 === 0) table['decoder.up.999.block.999.conv1.weight'] = ['F32', [1, 1, 3, 3]];
      const model = sparse(table, round % 2 === 0 ? FLUX_CONFIG : VAE_CONFIG);
      try {
        for (const part of identify(model))
          expect(part.missing.length + part.wrong.length + part.unexpected.length, part.path).toBeGreaterThan(
            0,
          );
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_MODEL_CONFIG' });
      }
    }
  });
});
