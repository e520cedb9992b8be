/** Text encoders other than a checkpoint's own: for one request, or put into it by `convert`; and those that do not fit. */
import { beforeAll, describe, expect, test } from 'vitest';
import { convertModel } from '../../src/convert/convert.js';
import { openModel, selectPart } from '../../src/formats/index.js';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import type { EncoderChoices, EncoderSlot } from '../../src/pipeline/image_types.js';
import { generated, modelOf, pictureOf, tinyBench } from '../support/tiny_bench.js';
import { TINY, writeNetwork, type TinyKind } from '../../bench/tiny/checkpoints.js';
import { TINY_T5_GGUF, tinyClip, type TinyClip } from '../../bench/tiny/networks.js';

const bench = tinyBench();

/** A CLIP on its own in a file, under Hugging Face's names. */
const clip = (name: string, options: TinyClip): Promise<string> =>
  writeNetwork(bench.path(`${name}.safetensors`), tinyClip(options));
const otherL = () => clip('other_l', { width: TINY.clip_l, projection: TINY.clip_l, seed: 77 });
const otherG = () =>
  clip('other_g', { width: TINY.clip_g, projection: TINY.projection, activation: 'gelu', seed: 78 });
const longL = () => clip('long_l', { width: TINY.clip_l, projection: TINY.clip_l, positions: 248, seed: 79 });

/** The checkpoint with encoders put into it. */
async function converted(kind: TinyKind, from: string, encoders: EncoderChoices): Promise<string> {
  const replace = Object.entries(encoders).map(([slot, { path }]) => {
    return {
      slot: slot as EncoderSlot,
      part: selectPart(openModel(path), { slot: slot as EncoderSlot, allowUndecided: true }),
    };
  });
  const output = bench.path(kind, `with-${replace.map(({ slot }) => slot).join('-')}.safetensors`);
  await convertModel(bench.cpu, openModel(from), output, { replace });
  return output;
}

describe('for one request', () => {
  const cases: readonly (readonly [TinyKind, readonly EncoderSlot[]])[] = [
    ['sd1', ['clip_l']],
    ['sdxl', ['clip_l']],
    ['sdxl', ['clip_g']],
    ['sdxl_refiner', ['clip_g']],
    ['sd3', ['clip_l', 'clip_g']],
  ];
  test.each(cases)('%s with another %s: as if the checkpoint held it', async (kind, slots) => {
    const path = await bench.checkpoint(kind);
    const others = { clip_l: { path: await otherL() }, clip_g: { path: await otherG() } };
    const encoders = Object.fromEntries(slots.map((slot) => [slot, others[slot as 'clip_l']]));
    const pipeline = await bench.pipeline(path);
    const own = await pictureOf(pipeline);
    const replaced = await generated(pipeline, { encoders });
    expect(replaced.pictures[0]!.picture).not.toEqual(own);
    expect(replaced.encoders).toMatchObject(encoders);
    expect(await pictureOf(pipeline), 'for that request only').toEqual(own);
    const put = await bench.pipeline(await converted(kind, path, encoders));
    expect(await pictureOf(put)).toEqual(replaced.pictures[0]!.picture);
  });

  test('T5 from a GGUF beside the CLIPs of a checkpoint that has none, or that has the same', async () => {
    const whole = await bench.pipeline(await bench.checkpoint('sd35_large'));
    const bare = await bench.checkpoint('sd35_large', { name: 'bare.safetensors', without: ['t5'] });
    const pipeline = await bench.pipeline(bare);
    const t5 = { path: TINY_T5_GGUF };
    const expected = await pictureOf(whole);
    expect(await pictureOf(pipeline, { encoders: { t5 } })).toEqual(expected);
    expect(await pictureOf(whole, { encoders: { t5 } })).toEqual(expected);
    const without = await pictureOf(pipeline);
    expect(without).not.toEqual(expected);
    const put = await bench.pipeline(await converted('sd35_large', bare, { t5 }));
    expect(await pictureOf(put)).toEqual(expected);
    // Absent, zeros stand in its place where the profile wants them: as many rows as it says.
    const rows = async (profile: 'comfy' | 'diffusers') =>
      (await generated(pipeline, { profile })).conditioning.tokens;
    expect([await rows('comfy'), await rows('diffusers')]).toEqual([77, 154]);
  });
});

describe('Long-CLIP-L beside a CLIP-G of 77 tokens', () => {
  let pipeline: ImagePipeline;
  beforeAll(async () => {
    pipeline = await bench.pipeline(await bench.checkpoint('sdxl'));
  });
  const words = (count: number) => Array.from({ length: count }, (_, i) => 'abcdefgh'[i % 8]).join(' ');

  test.each([
    [10, 77],
    [100, 154],
    [300, 308],
  ])('%i tokens: %i rows, nothing lost', async (count, rows) => {
    const encoders = { clip_l: { path: await longL() } };
    const { conditioning } = await generated(pipeline, { prompt: words(count), encoders });
    expect(conditioning).toMatchObject({ tokens: rows, truncated: {} });
    expect(conditioning.hidden.every(Number.isFinite)).toBe(true);
  });

  test('the end of a long prompt counts', async () => {
    const encoders = { clip_l: { path: await longL() } };
    const prompt = words(200);
    const changed = `${prompt.slice(0, -1)}z`;
    expect(await pictureOf(pipeline, { encoders, prompt: changed })).not.toEqual(
      await pictureOf(pipeline, { encoders, prompt }),
    );
  });

  test('the negative prompt has as many rows as it needs, not as many as the prompt', async () => {
    const encoders = { clip_l: { path: await longL() } };
    const options = { encoders, prompt: words(150), negativePrompt: 'mist' };
    expect((await pictureOf(pipeline, options)).rgb).toHaveLength(3 * 32 * 32);
  });
});

describe('what does not fit is said with what would', () => {
  const load = async (kind: TinyKind, encoders: EncoderChoices, mode: 'add' | 'only' = 'add') => {
    const model = modelOf(await bench.checkpoint(kind));
    return await ImagePipeline.load(
      { ...model, encoders: mode === 'add' ? { ...model.encoders, ...encoders } : encoders },
      { device: bench.device },
    );
  };

  test('an encoder of another width', async () => {
    const wide = { path: await clip('wide', { width: 48, projection: 48, activation: 'gelu' }) };
    for (const [kind, slot, message] of [
      ['sd1', 'clip_l', /wide.*gives 48 values a token, but .*sd1\.safetensors takes 16 from CLIP-L/],
      ['sdxl', 'clip_g', /CLIP.*48.*takes 40 from CLIP-L or Long-CLIP-L and CLIP-G together/],
      ['sdxl_refiner', 'clip_g', /gives 48 values a token.*takes 24/],
      ['sd3', 'clip_g', /vector of 48|48 values/],
    ] as const)
      await expect(load(kind, { [slot]: wide }), `${kind} ${slot}`).rejects.toMatchObject({
        code: 'ERR_MODEL_SLOT',
        message: expect.stringMatching(message) as string,
      });
  });

  test('a CLIP-G without its projection', async () => {
    const bare = { path: await clip('bare_g', { width: TINY.clip_g, activation: 'gelu' }) };
    await expect(load('sdxl', { clip_g: bare })).rejects.toMatchObject({
      code: 'ERR_MODEL_SLOT',
      message: expect.stringMatching(/no projected vector \(the file has no text_projection\)/) as string,
    });
  });

  test('too many, and too few', async () => {
    const l = { path: await otherL() };
    await expect(load('sd1', { t5: { path: TINY_T5_GGUF } })).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(/expected none for t5.*is SD1, which takes clip_l$/) as string,
    });
    await expect(load('sdxl_refiner', { clip_l: l })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(load('sdxl', { clip_l: l }, 'only')).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(/expected CLIP-G for clip_g, got none.*takes clip_l, clip_g/) as string,
    });
    const pipeline = await bench.pipeline(await bench.checkpoint('sd1'));
    await expect(generated(pipeline, { encoders: { clip_g: l } })).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
    });
  });

  test('an autoencoder of another family', async () => {
    const sd3 = await bench.checkpoint('sd3');
    const model = { ...modelOf(await bench.checkpoint('sd1')), vae: sd3 };
    await expect(ImagePipeline.load(model, { device: bench.device })).rejects.toMatchObject({
      code: 'ERR_MODEL_SLOT',
      message: expect.stringMatching(/sd3\.safetensors: expected the autoencoder of SD1, got/) as string,
    });
  });
});
