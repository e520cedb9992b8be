/** Files and configs that claim absurd sizes: a coded error soon, and no memory taken on a claim's word. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Device, ImagePipeline, identify, openModel, type GenerateOptions } from '../../src/index.js';
import { safetensorsHeader, type TensorTable } from '../formats/model_bytes.js';
import { rewriteModel, useModelCopy } from './image_scratch.js';
import { outcomeOf, useScratch } from './scratch.js';

vi.setConfig({ testTimeout: 240_000 }); // seconds on a quiet machine

const kFlux = 'flux1-schnell-small.safetensors';
const kVae = 'ae.safetensors';
/** Seconds and bytes that a refusal may take. */
const kMostSeconds = 3;
const kMostBytes = 256 << 20;

const scratch = useScratch();
const copy = useModelCopy(scratch);
let device: Device;
beforeAll(() => {
  device = Device.open('cpu', { threads: 1 });
});
afterAll(() => device.close());

/** What comes of it, within the bounds above. */
async function bounded(action: () => unknown): Promise<{ code: string; message: string }> {
  const [started, before] = [performance.now(), process.memoryUsage.rss()];
  const outcome = await outcomeOf(action);
  expect((performance.now() - started) / 1000, `seconds until ${outcome.code}`).toBeLessThan(kMostSeconds);
  expect(process.memoryUsage.rss() - before, `bytes until ${outcome.code}`).toBeLessThan(kMostBytes);
  expect(outcome.message.length, 'characters of the message').toBeLessThan(4000);
  return outcome;
}

async function draw(options: GenerateOptions): Promise<void> {
  await using pipeline = await ImagePipeline.load(copy.model, { device });
  const { pictures, width, height } = await pipeline.generate('a red circle', {
    steps: 1,
    seed: 1,
    ...options,
  });
  expect(pictures[0]!.picture.rgb.length).toBe(width * height * 3);
}

describe('a config in the metadata', () => {
  test.each<[Record<string, unknown>, RegExp]>([
    [{ max_sequence_length: 1e9 }, /^ERR_MODEL_CONFIG$/],
    [{ max_sequence_length: 0 }, /^ERR_MODEL_CONFIG$/],
    [{ max_sequence_length: 1 }, /^ERR_MODEL_CONFIG$/],
    [{ max_sequence_length: 2 }, /^ok$/],
    [{ hidden_size: 2 ** 30 }, /^ERR_MODEL_CONFIG$/],
    [{ depth: 1e6 }, /^ERR_MODEL_CONFIG$/],
    [{ depth_single_blocks: 2 ** 53 }, /^ERR_MODEL_CONFIG$/],
    [{ num_heads: 0 }, /^ERR_MODEL_CONFIG$/],
    [{ num_heads: 3 }, /^ERR_MODEL_CONFIG$/],
    [{ axes_dim: [4, 14, 16] }, /^ERR_MODEL_CONFIG$/],
    [{ axes_dim: [2 ** 40, 14, 14] }, /^ERR_MODEL_CONFIG$/],
    [{ axes_dim: [] }, /^ERR_MODEL_CONFIG$/],
    [{ axes_dim: new Array(100).fill(2) }, /^ERR_MODEL_CONFIG$/],
    [{ axes_dim: [0, 0, 32] }, /^(ok|ERR_MODEL_CONFIG)$/],
    [{ theta: 0 }, /^ERR_MODEL_CONFIG$/],
    [{ theta: -1 }, /^ERR_MODEL_CONFIG$/],
    [{ theta: 'NaN' }, /^ERR_MODEL_CONFIG$/],
    [{ theta: 1e-300 }, /^(ok|ERR_NON_FINITE)$/],
    [{ theta: 1e300 }, /^ok$/],
    [{ mlp_ratio: 1e300 }, /^ERR_MODEL_CONFIG$/],
    [{ guidance_embed: true }, /^ERR_MODEL_CONFIG$/],
  ])('of a transformer: %j', async (config, code) => {
    await rewriteModel(copy.at(kFlux), { config });
    const outcome = await bounded(() => draw({ width: 32, height: 32 }));
    expect(outcome.code, outcome.message).toMatch(code);
  });

  test.each<[Record<string, unknown>, RegExp]>([
    [{ num_groups: 0 }, /^ERR_MODEL_CONFIG$/],
    [{ num_groups: 3 }, /^ERR_MODEL_CONFIG$/],
    [{ num_groups: 1e9 }, /^ERR_MODEL_CONFIG$/],
    [{ scale_factor: 0 }, /^ERR_MODEL_CONFIG$/],
    [{ scale_factor: 1e-300 }, /^ERR_MODEL_CONFIG$/],
    [{ scale_factor: 1e300 }, /^ERR_MODEL_CONFIG$/],
    [{ shift_factor: -1e300 }, /^ERR_MODEL_CONFIG$/],
    [{ ch: 2 ** 30 }, /^ERR_MODEL_CONFIG$/],
    [{ ch_mult: new Array(40).fill(2) }, /^ERR_MODEL_CONFIG$/],
    [{ num_res_blocks: 1e6 }, /^ERR_MODEL_CONFIG$/],
    [{ z_channels: 1e9 }, /^ERR_MODEL_CONFIG$/],
  ])('of an autoencoder: %j', async (config, code) => {
    await rewriteModel(copy.at(kVae), { config });
    const outcome = await bounded(() => draw({ width: 32, height: 32 }));
    expect(outcome.code, outcome.message).toMatch(code);
  });

  test.each([1e9, 0, 1, 100, 2 ** 53 - 1])('resolution %d is no size of a picture', async (resolution) => {
    await rewriteModel(copy.at(kVae), { config: { resolution } });
    const outcome = await bounded(() => draw({}));
    expect(outcome).toMatchObject({
      code: 'ERR_MODEL_CONFIG',
      message: expect.stringContaining('resolution') as string,
    });
  });
});

describe('an autoencoder of more levels', () => {
  /** Levels of 64 channels below the coarsest one, whole and well. */
  async function deepen(levels: number): Promise<void> {
    const tensors = (
      all: Parameters<NonNullable<Parameters<typeof rewriteModel>[1]['tensors']>>[0],
    ): void => {
      for (const [name, tensor] of [...all])
        for (let level = 4; level < levels; level++) {
          if (/^(encoder\.down|decoder\.up)\.3\./.test(name))
            all.set(name.replace('.3.', `.${level}.`), tensor);
          if (/^encoder\.down\.2\.downsample/.test(name))
            all.set(name.replace('.2.', `.${level - 1}.`), tensor);
        }
    };
    await rewriteModel(copy.at(kVae), {
      tensors,
      config: { ch_mult: [1, 1, ...new Array<number>(levels - 2).fill(2)] },
    });
  }

  test.each([5, 6, 8, 16])('%d levels: no patch of two latents fits a side of 16 pixels', async (levels) => {
    await deepen(levels);
    for (const size of [16, 32, 64]) {
      const outcome = await bounded(() => draw({ width: size, height: size }));
      expect(outcome, `${size} pixels`).toMatchObject({ code: 'ERR_MODEL_SLOT' });
    }
  });

  test('the four of Flux.1 are taken', async () => {
    await deepen(4);
    expect((await bounded(() => draw({ width: 32, height: 32 }))).code).toBe('ok');
  });

  test.each([3, 4])('%d colours', async (channels) => {
    await rewriteModel(copy.at(kVae), {
      tensors: (all) => {
        const out = all.get('decoder.conv_out.weight')!;
        const bytes = out.data.length / 3;
        const grow = (data: Uint8Array, each: number): Uint8Array =>
          Buffer.concat([data, data]).subarray(0, each * channels);
        all.set('decoder.conv_out.weight', {
          ...out,
          data: grow(out.data, bytes),
          shape: [channels, ...out.shape.slice(1)],
        });
        const bias = all.get('decoder.conv_out.bias')!;
        all.set('decoder.conv_out.bias', {
          ...bias,
          data: grow(bias.data, bias.data.length / 3),
          shape: [channels],
        });
      },
      config: { out_ch: channels },
    });
    expect((await bounded(() => draw({ width: 32, height: 32 }))).code).toBe(
      channels === 3 ? 'ok' : 'ERR_MODEL_SLOT',
    );
  });
});

describe('a header alone', () => {
  /** A file of that header whose data is a hole. */
  function holey(tensors: TensorTable, metadata?: object): string {
    const { header, size } = safetensorsHeader(tensors, metadata ? { metadata } : {});
    const path = scratch.put('holey.safetensors', header);
    const fd = openSync(path, 'r+');
    writeSync(fd, header);
    ftruncateSync(fd, size);
    closeSync(fd);
    return path;
  }

  const table = (path: string): TensorTable =>
    Object.fromEntries(
      [...openModel(path).tensors].map(([name, { dtype, shape }]) => [name, [dtype, shape]]),
    );
  const as = (slot: 'denoiser' | 'vae', path: string) =>
    bounded(() => ImagePipeline.load({ ...copy.model, [slot]: path }, { device }));

  test.each([999, 1_000_000])('a block of number %d', async (number) => {
    const tensors = {
      ...table(copy.at(kFlux)),
      [`double_blocks.${number}.img_mod.lin.weight`]: ['F16', [768, 128]],
    } as const;
    expect((await as('denoiser', holey(tensors))).code).toBe('ERR_MODEL_TENSORS');
  });

  test.each([39, 999])('a VAE level of number %d', async (number) => {
    const tensors = {
      ...table(copy.at(kVae)),
      [`decoder.up.${number}.block.0.conv1.weight`]: ['F16', [64, 64, 3, 3]],
    } as const;
    expect((await as('vae', holey(tensors))).code).toBe('ERR_MODEL_TENSORS');
  });

  test('a width of 2^20 in one tensor', async () => {
    const tensors = { ...table(copy.at(kFlux)), 'img_in.weight': ['F16', [2 ** 20, 64]] } as const;
    expect((await as('denoiser', holey(tensors))).code).toBe('ERR_MODEL_TENSORS');
  });

  test.each([2 ** 30, 2 ** 52])('sizes of %d that the file does not have', async (wide) => {
    const json = JSON.stringify({
      'img_in.weight': { dtype: 'F16', shape: [wide, wide], data_offsets: [0, 8] },
    });
    const head = Buffer.alloc(8);
    head.writeBigUInt64LE(BigInt(json.length));
    const path = scratch.put('wide.safetensors', Buffer.concat([head, Buffer.from(json), Buffer.alloc(8)]));
    expect((await bounded(() => identify(openModel(path)))).code).toMatch(/^ERR_SAFETENSORS_/);
  });

  test('100,000 tensors', async () => {
    const names = Array.from(
      { length: 100_000 },
      (_, i) => [`double_blocks.${i % 1000}.x${i}.weight`, ['F16', [1]]] as const,
    );
    const path = holey(Object.fromEntries(names));
    const outcome = await outcomeOf(() => identify(openModel(path)));
    expect(outcome.code).toMatch(/^(ok|ERR_\w+)$/);
  });
});
