/** What each family's parts run at, and what an overflow says. */
import { describe, expect, test } from 'vitest';
import { convertModel } from '../../src/convert/convert.js';
import { openModel } from '../../src/formats/index.js';
import { pictureDistance } from '../../src/image/index.js';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import { openParts, partPrecisions } from '../../src/pipeline/image_parts.js';
import type { Device } from '../../src/runtime/device.js';
import { describeGpus, openTarget } from '../support/devices.js';
import { generated, modelOf, pictureOf, tinyBench } from '../support/tiny_bench.js';
import { tinyModel, type TinyKind, type TinyModel } from '../../bench/tiny/checkpoints.js';
import type { TinyNetwork } from '../../bench/tiny/networks.js';

const bench = tinyBench();
const gpu = { isGpu: true } as Device;

async function half(kind: TinyKind, model?: TinyModel): Promise<string> {
  const name = model ? 'overflowing' : kind;
  const whole = await bench.checkpoint(kind, { name: `${name}.safetensors`, ...(model && { model }) });
  const output = bench.path(kind, `${name}-f16.safetensors`);
  await convertModel(bench.cpu, openModel(whole), output, { type: 'F16' });
  return output;
}

describe('auto on a GPU, weights in F16', () => {
  test.each([
    ['sd1', 'fp16'],
    ['sdxl', 'fp32'],
    ['sdxl_refiner', 'fp32'],
    ['sd35_medium', 'fp16'],
  ] as const)('%s: the autoencoder runs at %s', async (kind, vae) => {
    const parts = openParts(modelOf(await half(kind)), {});
    expect(partPrecisions({}, parts, gpu)).toEqual({ denoiser: 'fp16', vae });
    expect(partPrecisions({ precision: { denoiser: 'bf16' } }, parts, gpu)).toEqual({
      denoiser: 'bf16',
      vae,
    });
    // What is asked for is done.
    expect(partPrecisions({ precision: 'fp16' }, parts, gpu)).toEqual({ denoiser: 'fp16', vae: 'fp16' });
    expect(partPrecisions({ precision: { vae: 'bf16' } }, parts, gpu).vae).toBe('bf16');
  });
});

/**
 * The same decoder, whose upsampled values pass F16's largest number; they are F32 until the next block's 1×1 convolution
 * rounds them, and a norm brings them back.
 */
function overflowing(vae: TinyNetwork): TinyNetwork {
  const tensors = new Map(vae.tensors);
  for (const name of ['decoder.up.1.upsample.conv.weight', 'decoder.up.1.upsample.conv.bias']) {
    const { data, ...rest } = tensors.get(name)!;
    const values = new Float32Array(data.slice().buffer).map((value) => value * 50_000);
    tensors.set(name, { ...rest, data: new Uint8Array(values.buffer) });
  }
  return { ...vae, tensors };
}

describeGpus((target) => {
  const small = { steps: 1, cfg: 1, width: 16, height: 16 };

  test.each(['sd1', 'sdxl', 'sd35_medium'] as const)(
    '%s: the CPU’s picture',
    { timeout: 300_000 },
    async (kind) => {
      const model = modelOf(await bench.checkpoint(kind));
      const on = async (device: Device) => {
        await using pipeline = await ImagePipeline.load(model, { device, precision: 'fp32' });
        return await pictureOf(pipeline, small);
      };
      await using device = openTarget(target);
      expect(pictureDistance(await on(device), await on(bench.cpu)).psnr).toBeGreaterThan(55);
    },
  );

  test(
    'SDXL’s overflowing decoder: a picture at auto, an error that says what to do at fp16',
    { timeout: 300_000 },
    async () => {
      const model = tinyModel('sdxl');
      const path = await half('sdxl', { ...model, vae: overflowing(model.vae) });
      await using device = openTarget(target);
      const at = async (vae?: 'fp16') => {
        await using pipeline = await ImagePipeline.load(modelOf(path), { device, precision: { vae } });
        expect(pipeline.precisions.vae).toBe(vae ?? 'fp32');
        return await generated(pipeline, small);
      };
      const { pictures } = await at();
      expect(new Set(pictures[0]!.picture.rgb).size).toBeGreaterThan(50);
      await expect(at('fp16')).rejects.toMatchObject({
        code: 'ERR_NON_FINITE',
        message: expect.stringMatching(
          /decoder up\.0\.block\.0: .*runs at fp16: --precision vae=fp32$/s,
        ) as string,
      });
    },
  );
});
