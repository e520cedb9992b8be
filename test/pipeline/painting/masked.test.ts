/** Painting in a part of a picture. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pictureDistance, type Picture } from '../../../src/image/index.js';
import { ImagePipeline } from '../../../src/pipeline/image_pipeline.js';
import type { DenoiserPart } from '../../../src/pipeline/image_types.js';
import { shippedModel } from '../../../src/pipeline/shipped_model.js';
import { requireKnownInputs, startingPicture } from '../../../src/pipeline/painting/starting_picture.js';
import type { Planes } from '../../../src/pipeline/painting/tiles.js';

const SIDE = 64;

/** Left half `left`, right half `right`, grey values. */
function halves(left: number, right: number, side = SIDE): Picture {
  const rgb = Uint8Array.from({ length: side * side * 3 }, (_, i) =>
    Math.floor(i / 3) % side < side / 2 ? left : right,
  );
  return { width: side, height: side, rgb };
}

/** Columns [from, to) of a picture. */
function columns({ width, height, rgb }: Picture, from: number, to: number): Picture {
  const out = new Uint8Array((to - from) * height * 3);
  for (let y = 0; y < height; y++)
    out.set(rgb.subarray((y * width + from) * 3, (y * width + to) * 3), y * (to - from) * 3);
  return { width: to - from, height, rgb: out };
}

describe('with any model', () => {
  let pipeline: ImagePipeline;
  let image: Picture;
  const prompt = 'a red circle on a yellow background';
  beforeAll(async () => {
    pipeline = await ImagePipeline.load(shippedModel());
    image = (await pipeline.generate('a blue square on a green background', { seed: 3 })).pictures[0]!
      .picture;
  });
  afterAll(() => pipeline[Symbol.asyncDispose]());
  const draw = async (mask: Picture | undefined, strength = 1) =>
    (await pipeline.generate(prompt, { seed: 5, image, mask, strength })).pictures[0]!.picture;

  test('black is kept, white is painted anew', async () => {
    const painted = await draw(halves(255, 0));
    const kept = await draw(halves(0, 0));
    // Of the kept half a border sees the painted one through the decoder.
    const [from, to] = [SIDE / 2 + 16, SIDE];
    expect(pictureDistance(columns(painted, from, to), columns(kept, from, to)).psnr).toBeGreaterThan(30);
    expect(pictureDistance(columns(painted, 0, 24), columns(kept, 0, 24)).psnr).toBeLessThan(20);
    expect(pictureDistance(kept, image).psnr).toBeGreaterThan(25); // once through the autoencoder
  });

  test('all white is as without a mask', async () => {
    expect(pictureDistance(await draw(halves(255, 255), 0.7), await draw(undefined, 0.7)).mae).toBeLessThan(
      0.1,
    );
  });

  test('a mask without a picture is refused', async () => {
    const job = pipeline.generate(prompt, { mask: halves(255, 0) });
    await expect(job.result).rejects.toMatchObject({ code: 'ERR_ARGUMENT', message: /mask.*image/ as never });
  });
});

describe('a UNet for inpainting', () => {
  const unet = (in_channels: number): DenoiserPart =>
    ({ slot: 'unet', path: 'model.safetensors', config: { in_channels, out_channels: 4 } }) as DenoiserPart;
  /** Latents of 2 × 4: means of each channel's blocks, then a fourth of ones. */
  const encode = async ({ data, height, width }: Planes): Promise<Planes> => {
    const [h, w] = [height / 8, width / 8];
    const out = new Float32Array(4 * h * w).fill(1);
    for (let c = 0; c < 3; c++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++)
          out[c * h * w + Math.floor(y / 8) * w + Math.floor(x / 8)]! +=
            data[(c * height + y) * width + x]! / 64;
    return { data: out, channels: 4, height: h, width: w };
  };
  const task = { width: 32, height: 16, factor: 8, encode };

  test('sees the mask, and the picture with grey where it is to paint', async () => {
    const image = halves(255, 255, 32);
    const mask = halves(255, 0, 32);
    const { beside, mask: latentMask, latents } = await startingPicture(unet(9), { ...task, image, mask });
    expect([...latentMask!]).toEqual([1, 1, 0, 0, 1, 1, 0, 0]);
    expect([...beside!.subarray(0, 8)]).toEqual([1, 1, 0, 0, 1, 1, 0, 0]);
    const red = [...beside!.subarray(8, 16)].map((value) => Math.round(value));
    expect(red).toEqual([1, 1, 2, 2, 1, 1, 2, 2]); // 1 + grey, 1 + white
    expect(latents!.data).not.toEqual(beside!.subarray(8));
  });

  test('without a picture everything is to be painted, over grey', async () => {
    const { beside, latents, mask } = await startingPicture(unet(9), task);
    expect([latents, mask]).toEqual([undefined, undefined]);
    expect([...beside!.subarray(0, 8)]).toEqual(new Array(8).fill(1));
    expect(beside).toHaveLength(8 + 32);
  });

  test('other UNets see nothing beside their latents; unknown tasks are refused', async () => {
    expect((await startingPicture(unet(4), task)).beside).toBeUndefined();
    expect(() => requireKnownInputs(unet(9))).not.toThrow();
    expect(() => requireKnownInputs(unet(8))).toThrow(
      expect.objectContaining({
        code: 'ERR_MODEL_SLOT',
        message: expect.stringMatching(/8.*another task/) as string,
      }),
    );
  });
});
