/** The small model in every naming and container that Flux.1 is found in: the same weights draw the same picture. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { convertModel } from '../../src/convert/convert.js';
import type { WrittenType } from '../../src/convert/types.js';
import { openModel, type DType } from '../../src/formats/index.js';
import { writeSafetensors } from '../../src/formats/write.js';
import { pictureDistance, type Picture } from '../../src/image/index.js';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import type { ImageModel } from '../../src/pipeline/image_types.js';
import { shippedModel } from '../../src/pipeline/shipped_model.js';
import { Device } from '../../src/runtime/device.js';
import { diffusersFlux, diffusersVae, publicTable, type StoredTensors } from '../formats/diffusion_files.js';

const PROMPT = 'a small blue star above a red ring on a white background';
const model = shippedModel();
let dir: string;
let reference: Picture;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kotoba-containers-'));
  reference = await draw();
});
afterAll(() => rmSync(dir, { recursive: true }));

async function draw(parts: Partial<ImageModel> = {}): Promise<Picture> {
  await using pipeline = await ImagePipeline.load({ ...model, ...parts });
  return (await pipeline.generate(PROMPT, { seed: 5 })).pictures[0]!.picture;
}

/** Every tensor as stored, and the config of the metadata. */
function stored(path: string): { tensors: StoredTensors; config: string } {
  const file = openModel(path);
  const tensors = new Map(
    [...file.tensors].map(([name, { dtype, shape, path: weights, offset, bytes }]) => {
      const data = new Uint8Array(readFileSync(weights).subarray(offset, offset + bytes));
      return [name, { dtype: dtype as DType, shape, data }] as const;
    }),
  );
  return { tensors, config: file.metadata.get('config') as string };
}

async function write(name: string, tensors: StoredTensors, config: string): Promise<string> {
  const path = join(dir, name);
  await writeSafetensors(path, tensors, { config });
  return path;
}

const flux = stored(model.denoiser);
const vae = stored(model.vae);
/** Names of a public list, of as many blocks as the small model has. */
const names = (list: string): string[] =>
  Object.keys(publicTable(list)).filter(
    (name) =>
      !/^transformer_blocks\.([2-9]|1\d)\./.test(name) &&
      !/^single_transformer_blocks\.([3-9]|\d\d)\./.test(name) &&
      !name.includes('guidance') &&
      !/down_blocks\.\d\.resnets\.1|up_blocks\.\d\.resnets\.2/.test(name),
  );
const prefixed = (tensors: StoredTensors, prefix: string): StoredTensors =>
  new Map([...tensors].map(([name, tensor]) => [prefix + name, tensor]));

describe('the transformer', () => {
  test("under diffusers' names, its matrices split and its halves swapped", async () => {
    const split = diffusersFlux(flux.tensors, names('flux_dev__transformer.json.gz'));
    expect(split.size).toBeGreaterThan(flux.tensors.size);
    const denoiser = await write('split.safetensors', split, flux.config);
    expect(await draw({ denoiser })).toEqual(reference);
  });

  test('in a checkpoint, under model.diffusion_model.', async () => {
    const denoiser = await write(
      'prefixed.safetensors',
      prefixed(flux.tensors, 'model.diffusion_model.'),
      flux.config,
    );
    expect(await draw({ denoiser })).toEqual(reference);
  });

  test.each<[WrittenType, number]>([
    ['F32', Infinity],
    ['F16', Infinity],
    ['BF16', 40],
    ['Q8_0', 40],
    ['Q4_0', 20],
  ])('as %s GGUF', async (type, psnr) => {
    const denoiser = join(dir, `${type}.gguf`);
    await using device = Device.open('cpu');
    await convertModel(device, openModel(model.denoiser), denoiser, { type });
    expect(pictureDistance(await draw({ denoiser }), reference).psnr).toBeGreaterThanOrEqual(psnr);
  });
});

test("the autoencoder under diffusers' names", async () => {
  const split = diffusersVae(vae.tensors, names('flux__vae.json'));
  // Flux's own has shortcuts where its channels double; the small one's do elsewhere.
  for (const [name, tensor] of split) if (tensor === undefined) split.delete(name);
  expect(split.size).toBe(vae.tensors.size);
  const path = await write('vae.safetensors', split, vae.config);
  expect(await draw({ vae: path })).toEqual(reference);
});

test('all parts in one file', async () => {
  const clip = stored(join(model.encoders.clip_l.path, 'model.safetensors'));
  const t5 = stored(join(model.encoders.t5.path, 'model.safetensors'));
  const all = new Map([
    ...prefixed(flux.tensors, 'model.diffusion_model.'),
    ...prefixed(vae.tensors, 'vae.'),
    ...prefixed(clip.tensors, 'text_encoders.clip_l.transformer.'),
    ...prefixed(t5.tensors, 'text_encoders.t5xxl.transformer.'),
  ]);
  // Both say how many channels come in; the tensors tell that too.
  const own = (config: string): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(JSON.parse(config) as object).filter(([key]) => !/^(in|out)_ch/.test(key)),
    );
  const config = JSON.stringify({ ...own(flux.config), ...own(vae.config) });
  const path = await write('all.safetensors', all, config);
  const tokenizer = (folder: string): string => join(folder, 'tokenizer.json');
  const t5Choice = { path, tokenizer: tokenizer(model.encoders.t5.path) };
  expect(await draw({ denoiser: path, vae: path, encoders: { ...model.encoders, t5: t5Choice } })).toEqual(
    reference,
  );
});
