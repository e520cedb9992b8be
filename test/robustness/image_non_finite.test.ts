/** One NaN or infinity in a weight of the model that ships: an error that names network and place, never a picture. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Device, ImagePipeline, type Picture } from '../../src/index.js';
import { run } from '../cli/run.js';
import { plant, useModelCopy } from './image_scratch.js';
import { outcomeOf, useScratch } from './scratch.js';

vi.setConfig({ testTimeout: 240_000 }); // seconds on a quiet machine

const scratch = useScratch();
const copy = useModelCopy(scratch);
let device: Device;
beforeAll(() => {
  device = Device.open('cpu', { threads: 2 });
});
afterAll(() => device.close());

const kFlux = 'flux1-schnell-small.safetensors';
const kVae = 'ae.safetensors';
const kClip = 'text_encoder/model.safetensors';
const kT5 = 'flan_t5/model.safetensors';

/** `all` where a single weight need not be used: a row of an embedding, a position. */
const kPlaces: readonly (readonly [file: string, tensor: string, which: 'first' | 'all', message: RegExp])[] =
  [
    [kFlux, 'img_in.weight', 'first', /^Flux: double_blocks\.0: /],
    [kFlux, 'txt_in.bias', 'first', /^Flux: double_blocks\.0: /],
    [kFlux, 'time_in.in_layer.weight', 'first', /^Flux: double_blocks\.0: /],
    [kFlux, 'vector_in.out_layer.bias', 'first', /^Flux: double_blocks\.0: /],
    [kFlux, 'double_blocks.1.img_attn.qkv.weight', 'first', /^Flux: double_blocks\.1: /],
    [kFlux, 'double_blocks.1.txt_attn.norm.key_norm.scale', 'first', /^Flux: double_blocks\.1: /],
    [kFlux, 'double_blocks.0.txt_mlp.2.weight', 'first', /^Flux: double_blocks\.0: /],
    [kFlux, 'single_blocks.1.linear1.weight', 'first', /^Flux: single_blocks\.1: /],
    [kFlux, 'single_blocks.2.linear2.bias', 'first', /^Flux: single_blocks\.2: /],
    [kFlux, 'single_blocks.0.modulation.lin.weight', 'first', /^Flux: single_blocks\.0: /],
    [kFlux, 'final_layer.linear.weight', 'first', /^Flux: final layer: /],
    [kVae, 'decoder.conv_in.weight', 'first', /ae\.safetensors: decoder conv_in: /],
    [kVae, 'decoder.mid.block_1.norm1.weight', 'first', /ae\.safetensors: decoder mid\.block_1: /],
    [kVae, 'decoder.mid.attn_1.q.weight', 'first', /ae\.safetensors: decoder mid\.attn_1: /],
    [kVae, 'decoder.up.1.block.0.conv2.bias', 'first', /ae\.safetensors: decoder up\.1\.block\.0: /],
    [kVae, 'decoder.up.1.upsample.conv.weight', 'first', /ae\.safetensors: decoder up\.1\.upsample: /],
    [kVae, 'decoder.norm_out.bias', 'first', /ae\.safetensors: decoder: /],
    [kVae, 'decoder.conv_out.bias', 'first', /ae\.safetensors: decoder: /],
    [kClip, 'text_model.embeddings.position_embedding.weight', 'first', /^clip_l: layer 0 of \d+: /],
    [kClip, 'text_model.encoder.layers.1.mlp.fc1.weight', 'first', /^clip_l: layer 2 of \d+: /],
    [kClip, 'text_model.final_layer_norm.weight', 'first', /^clip_l: .*final/],
    [kT5, 'shared.weight', 'all', /^t5: layer 0 of \d+: /],
    [kT5, 'encoder.block.1.layer.0.SelfAttention.v.weight', 'first', /^t5: layer 2 of \d+: /],
    [kT5, 'encoder.block.0.layer.1.DenseReluDense.wo.weight', 'first', /^t5: layer 1 of \d+: /],
    [kT5, 'encoder.final_layer_norm.weight', 'first', /^t5: .*final/],
  ];

const draw = async (precision: 'fp32' | 'int8', image?: Picture): Promise<Picture> => {
  await using pipeline = await ImagePipeline.load(copy.model, { device, precision });
  const size = { width: 32, height: 32, steps: 1, seed: 1 };
  return (await pipeline.generate('a red circle', { ...size, ...(image && { image }) })).pictures[0]!.picture;
};

describe.each(['fp32', 'int8'] as const)('%s', (precision) => {
  test.each(kPlaces)('%s %s', async (file, tensor, which, message) => {
    for (const what of ['nan', 'inf'] as const) {
      copy.restore(file);
      plant(copy.at(file), tensor, what, which);
      const outcome = await outcomeOf(() => draw(precision));
      expect(outcome.code, `${what}: ${outcome.message}`).toBe('ERR_NON_FINITE');
      expect(outcome.message).toMatch(message);
    }
  });

  test('the VAE’s encoder, when a picture is given', async () => {
    plant(copy.at(kVae), 'encoder.down.1.downsample.conv.weight', 'nan', 'first');
    const image = { width: 32, height: 32, rgb: new Uint8Array(32 * 32 * 3).fill(80) };
    expect(await outcomeOf(() => draw(precision, image))).toMatchObject({
      code: 'ERR_NON_FINITE',
      message: expect.stringMatching(/ae\.safetensors: encoder down\.1\.downsample: /) as string,
    });
    expect((await outcomeOf(() => draw(precision))).code, 'the decoder alone').toBe('ok');
  });
});

test('generate writes nothing, and says which part it was', async () => {
  const { denoiser, vae, encoders } = copy.model;
  const parts = [
    '--model',
    denoiser,
    '--vae',
    vae,
    '--clip-l',
    encoders.clip_l.path,
    '--t5',
    encoders.t5.path,
  ];
  const out = join(scratch.dir, 'non-finite.png');
  plant(copy.at(kFlux), 'single_blocks.1.linear1.weight', 'nan', 'first');
  const { code, stdout, stderr } = await run(['generate', 'a red circle', '-o', out, ...parts]);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(/^kotoba: ERR_NON_FINITE: Flux: single_blocks\.1: /);
  expect(existsSync(out)).toBe(false);
});
