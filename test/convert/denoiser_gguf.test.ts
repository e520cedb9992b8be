/**
 * UNets, MMDiT and Flux as GGUF: other programs find the architecture and the names they look for, and the values are
 * those that our own decoder gives, whichever way they are read.
 */
import { gguf } from '@huggingface/gguf';
import { describe, expect, test } from 'vitest';
import type { Converted } from '../../src/convert/convert.js';
import { WRITTEN_TYPES } from '../../src/convert/types.js';
import { identify, openModel, type Part } from '../../src/formats/index.js';
import { writeSafetensors } from '../../src/formats/write.js';
import { filled } from '../formats/diffusion_files.js';
import { conversion, part, shipped, stored } from './conversion.js';
import { writeDenoiser } from './tiny_checkpoints.js';

const { out, convert, expectSame } = conversion();
const slotOf = (family: string) => (family === 'sd1' || family === 'sdxl' ? 'unet' : 'transformer');

describe.each(['sd1', 'sdxl', 'sd3', 'flux'] as const)('%s', (family) => {
  const slot = slotOf(family);

  test('architecture, bare names and types, as an independent reader sees them; values as they were', async () => {
    await writeDenoiser(out('checkpoint.safetensors'), family);
    const made = await convert(out('checkpoint.safetensors'), out('x.gguf'), { extract: slot, type: 'Q5_1' });
    const { metadata, tensorInfos } = await gguf(out('x.gguf'), { allowLocalFile: true });
    expect(metadata).toMatchObject({
      version: 3,
      'general.architecture': family,
      'general.file_type': 9,
      'general.quantization_version': 2,
    });
    const [written, original] = [part(out('x.gguf'), slot), part(out('checkpoint.safetensors'), slot)];
    expect(written.prefix).toBe('');
    expect(tensorInfos.map(({ name }) => name).sort()).toEqual([...written.tensors.keys()].sort());
    for (const { name, shape } of tensorInfos)
      expect(shape.map(Number).reverse(), name).toEqual(original.tensors.get(name)!.shape);
    requireTypes(original, made);
    await convert(out('x.gguf'), out('decoded.safetensors'), { type: 'F32' });
    await expectSame(written, part(out('decoded.safetensors'), slot));
    await expectSame(written, original, 0.06);
  });
});

function requireTypes(original: Part, { tensors }: Converted): void {
  const types = new Map(tensors.map(({ name, dtype }) => [name, dtype]));
  for (const [name, { shape }] of original.tensors) {
    const type = types.get(name)!;
    if (shape.length === 1) expect([name, type]).toEqual([name, 'F32']);
    else if (shape.length > 2) expect([name, type]).toEqual([name, 'F16']);
  }
  expect([...types.values()].filter((type) => type === 'Q5_1').length).toBeGreaterThan(20);
  const kept = [...types].filter(([name]) => /^(time_embed|t_embedder|time_in)\b.*weight/.test(name));
  expect(kept.map(([, type]) => type)).toEqual(['F16', 'F16']);
}

test.each(WRITTEN_TYPES)('a Flux as %s and back', async (type) => {
  const file = shipped('flux1-schnell-small.safetensors');
  await convert(file, out('x.gguf'), { type });
  const { metadata } = await gguf(out('x.gguf'), { allowLocalFile: true });
  expect(metadata['general.architecture']).toBe('flux');
  await convert(out('x.gguf'), out('decoded.safetensors'), { type: 'F32' });
  await expectSame(part(out('x.gguf'), 'transformer'), part(out('decoded.safetensors'), 'transformer'));
});

test('a whole checkpoint keeps its names; scalars and empty markers are there', async () => {
  await writeDenoiser(out('unet.safetensors'), 'sd1');
  const tensors = stored(out('unet.safetensors'));
  const more = filled({
    'model_ema.num_updates': ['I32', []],
    v_pred: ['F32', [0]],
    'cond_stage_model.logit_scale': ['F32', []],
  });
  await writeSafetensors(out('all.safetensors'), new Map([...tensors, ...more]));
  await convert(out('all.safetensors'), out('all.gguf'), { type: 'Q8_0' });
  const { metadata, tensorInfos } = await gguf(out('all.gguf'), { allowLocalFile: true });
  expect(metadata['general.architecture']).toBe('sd1');
  expect(tensorInfos.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['model.diffusion_model.out.2.weight', 'v_pred', 'cond_stage_model.logit_scale']),
  );
  const [unet] = identify(openModel(out('all.gguf')), { allowUndecided: true });
  expect(unet).toMatchObject({ slot: 'unet', config: { prediction: 'v' } });
});

test('what a UNet predicts survives being taken out, into either container', async () => {
  await writeDenoiser(out('unet.safetensors'), 'sd1');
  const tensors = stored(out('unet.safetensors'));
  const marker = { dtype: 'F32' as const, shape: [0], data: new Uint8Array(0) };
  await writeSafetensors(out('v.safetensors'), new Map([...tensors, ['v_pred', marker], ['ztsnr', marker]]));
  for (const name of ['one.safetensors', 'one.gguf']) {
    await convert(out('v.safetensors'), out(name), { extract: 'unet' });
    expect([...openModel(out(name)).tensors.keys()], name).toEqual(
      expect.arrayContaining(['v_pred', 'ztsnr']),
    );
    expect(part(out(name), 'unet').config).toMatchObject({ prediction: 'v', zero_terminal_snr: true });
  }
});
