/** Encoders put into checkpoints: in the place of those that are there, or where other programs look for them. */
import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { identify, openModel, selectPart, type Slot } from '../../src/formats/index.js';
import { writeSafetensors } from '../../src/formats/write.js';
import { filled, prefixed, publicTable } from '../formats/diffusion_files.js';
import { golden } from '../support/golden.js';
import { writeRandomClip } from '../support/random_clip.js';
import { conversion, naming, part, shipped, stored } from './conversion.js';
import { writeDenoiser, type TinyFamily } from './tiny_checkpoints.js';

const folder = conversion();
const { out, convert, bytes, expectSame } = folder;
const from = (path: string, slot: Slot) => ({ slot, part: part(path, slot) });
const T5 = golden('encoders/t5_tiny/model.safetensors');

describe('in the place of another', () => {
  test('they are stored as the checkpoint stores its own', async () => {
    const replace = (['clip_l', 'clip_g'] as const).map((slot) => from(naming(`${slot}_hf`), slot));
    await convert(naming('sdxl_checkpoint'), out('back.safetensors'), { replace });
    const [made, original] = [openModel(out('back.safetensors')), openModel(naming('sdxl_checkpoint'))];
    expect([...made.tensors.keys()].sort()).toEqual([...original.tensors.keys()].sort());
    for (const [name, tensor] of original.tensors) {
      const back = made.tensors.get(name)!;
      expect(back.shape, name).toEqual(tensor.shape);
      const same = await bytes({ tensor, shape: tensor.shape });
      expect((await bytes({ tensor: back, shape: back.shape })).equals(same), name).toBe(true);
    }
  });

  test('another width is refused, saying what would fit', async () => {
    const replace = [from(shipped('text_encoder'), 'clip_l')];
    await expect(
      convert(naming('sdxl_checkpoint'), out('no.safetensors'), { replace }),
    ).rejects.toMatchObject({
      code: 'ERR_MODEL_TENSORS',
      message: expect.stringMatching(/does not fit in the place of CLIP .*: expected \[/) as string,
    });
    expect(readdirSync(folder.dir)).toEqual([]);
  });

  test.each(['fp8_scaled_legacy', 'fp8_scaled_comfy_quant'])(
    'the scales of the old one (%s) go with it',
    async (kind) => {
      const old = golden(`encoders/t5_tiny_containers/model.${kind}.safetensors`);
      const metadata = openModel(old).metadata.get('_quantization_metadata');
      const layers = (text: string) =>
        text.replaceAll('"encoder.', '"text_encoders.t5xxl.transformer.encoder.');
      await writeSafetensors(
        out('checkpoint.safetensors'),
        prefixed(stored(old), 'text_encoders.t5xxl.transformer.'),
        typeof metadata === 'string' ? { _quantization_metadata: layers(metadata) } : {},
      );
      await convert(out('checkpoint.safetensors'), out('new.safetensors'), { replace: [from(T5, 't5')] });
      await expectSame(part(out('new.safetensors'), 't5'), part(T5, 't5'));
      const names = [...openModel(out('new.safetensors')).tensors.keys()];
      expect(names.filter((name) => /scale|fp8|quant/.test(name))).toEqual([]);
      expect(openModel(out('new.safetensors')).metadata.has('_quantization_metadata')).toBe(false);
    },
  );

  test('a tied embedding that is stored twice is replaced twice', async () => {
    const own = stored(T5);
    const doubled = new Map([
      ...own,
      ['encoder.embed_tokens.weight', own.get('shared.weight')!] as const,
      ['shared.weight', own.get('shared.weight')!] as const,
    ]);
    await writeSafetensors(out('old.safetensors'), prefixed(doubled, 'text_encoders.t5xxl.transformer.'));
    const other = new Map(
      [...own].map(([name, one]) => [
        name,
        { ...one, data: one.data.map((b, i) => (i % 4 === 0 ? b ^ 8 : b)) },
      ]),
    );
    await writeSafetensors(out('t5.safetensors'), other);
    await convert(out('old.safetensors'), out('new.safetensors'), {
      replace: [from(out('t5.safetensors'), 't5')],
    });
    const made = stored(out('new.safetensors'));
    for (const name of ['shared.weight', 'encoder.embed_tokens.weight'])
      expect(
        Buffer.from(other.get('shared.weight')!.data).equals(
          made.get(`text_encoders.t5xxl.transformer.${name}`)!.data,
        ),
        name,
      ).toBe(true);
  });
});

describe('where there is none', () => {
  const published = (json: string): Set<string> => new Set(Object.keys(publicTable(json)));

  test.each<[TinyFamily, Slot, string, string]>([
    ['sd1', 'clip_l', naming('clip_l_hf'), 'v1-5-pruned-emaonly.json.gz'],
    ['sdxl', 'clip_l', naming('clip_l_hf'), 'sd_xl_base_1.0.json.gz'],
    ['sdxl', 'clip_g', naming('clip_g_hf'), 'sd_xl_base_1.0.json.gz'],
    ['sd3', 'clip_g', naming('clip_g_openclip'), 'sd3_medium_incl_clips.json.gz'],
    ['flux', 'clip_l', naming('clip_l_openai'), 'flux1-dev-fp8_all_in_one.json.gz'],
  ])('%s: %s goes by the names of the published files', async (family, slot, encoder, json) => {
    await writeDenoiser(out('bare.safetensors'), family);
    await convert(out('bare.safetensors'), out('all.safetensors'), { replace: [from(encoder, slot)] });
    const [before, after] = [openModel(out('bare.safetensors')), openModel(out('all.safetensors'))];
    const known = published(json);
    const added = [...after.tensors.keys()].filter((name) => !before.tensors.has(name));
    expect(added.length).toBeGreaterThan(20);
    expect(added.filter((name) => !known.has(name))).toEqual([]);
    expect(identify(after, { allowUndecided: true }).map((one) => one.slot)).toContain(slot);
    await expectSame(selectPart(after, { slot, allowUndecided: true }), part(encoder, slot));
  });

  test('a CLIP-H goes into an SD2, its q, k and v as one', async () => {
    await writeDenoiser(out('bare.safetensors'), 'sd2');
    const sizes = { width: 1024, layers: 1, vocabulary: 16, projection: 1024 };
    const clip = await writeRandomClip(out('clip.safetensors'), sizes);
    await convert(out('bare.safetensors'), out('all.safetensors'), { replace: [from(clip, 'clip_h')] });
    const fused = 'cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight';
    expect(openModel(out('all.safetensors')).tensors.get(fused)?.shape).toEqual([3072, 1024]);
    await expectSame(part(out('all.safetensors'), 'clip_h'), part(clip, 'clip_h'));
    await convert(out('bare.safetensors'), out('unet.gguf'), { extract: 'unet', type: 'Q8_0' });
    expect(openModel(out('unet.gguf')).metadata.get('general.architecture')).toBe('sd1');
  });

  test('a T5 goes into an SD3 that takes its width, and into no other', async () => {
    await writeDenoiser(out('bare.safetensors'), 'sd3'); // takes 64
    await expect(
      convert(out('bare.safetensors'), out('no.safetensors'), { replace: [from(shipped('t5'), 't5')] }),
    ).rejects.toMatchObject({
      code: 'ERR_MODEL_TENSORS',
      message: expect.stringMatching(/is 128 wide: expected 64/) as string,
    });
    expect(readdirSync(folder.dir)).toEqual(['bare.safetensors']);
  });

  test('an autoencoder of any naming', async () => {
    await writeDenoiser(out('bare.safetensors'), 'flux');
    await convert(out('bare.safetensors'), out('all.safetensors'), {
      replace: [from(shipped('ae.safetensors'), 'vae')],
    });
    expect([...openModel(out('all.safetensors')).tensors.keys()]).toContain('vae.decoder.conv_in.weight');
    await expectSame(part(out('all.safetensors'), 'vae'), part(shipped('ae.safetensors'), 'vae'));
  });

  test('a file that is no checkpoint, or has no place for it, is refused', async () => {
    await writeSafetensors(out('flux.safetensors'), filled({ 'x.weight': ['F32', [4, 4]] }));
    const clip = [from(naming('clip_l_hf'), 'clip_l')];
    for (const input of [shipped('flux1-schnell-small.safetensors'), shipped('ae.safetensors')])
      await expect(convert(input, out('no.safetensors'), { replace: clip })).rejects.toMatchObject({
        code: 'ERR_MODEL_SLOT',
      });
    await writeDenoiser(out('sd1.safetensors'), 'sd1');
    const t5 = [from(T5, 't5')];
    await expect(
      convert(out('sd1.safetensors'), out('no.safetensors'), { replace: t5 }),
    ).rejects.toMatchObject({
      code: 'ERR_MODEL_SLOT',
    });
    expect(readdirSync(folder.dir)).not.toContain('no.safetensors');
  });
});
