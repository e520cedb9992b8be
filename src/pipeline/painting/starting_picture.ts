/** What a picture to start from and a mask come to: latents, where to paint, and what networks for inpainting see. */
import { KotobaError } from '../../errors.js';
import { coverPicture, valuesFromPicture, type Picture } from '../../image/index.js';
import type { DenoiserPart } from '../image_types.js';
import type { Planes } from './tiles.js';

export interface StartingPicture {
  /** [channels, height, width], scaled as the denoiser has them; absent without a picture */
  readonly latents?: Planes | undefined;
  /** [height, width] of the latents: 1 is painted anew, 0 kept; absent: everything is painted */
  readonly mask?: Float32Array | undefined;
  /** [1 + channels, height, width]: mask and latents of what is kept, where the network wants them beside its own */
  readonly beside?: Float32Array | undefined;
}

export interface StartingTask {
  readonly image?: Picture | undefined;
  /** white is painted anew, black kept */
  readonly mask?: Picture | undefined;
  /** pixels */
  readonly width: number;
  readonly height: number;
  /** pixels along a side of a latent */
  readonly factor: number;
  /** [3, height, width] → scaled latents */
  readonly encode: (pixels: Planes) => Promise<Planes>;
}

/** Whether a UNet was trained for inpainting: it sees a mask and a masked picture beside its latents. */
export const isInpainting = (part: DenoiserPart): boolean =>
  part.slot === 'unet' && part.config.in_channels === 2 * part.config.out_channels + 1;

/** @throws KotobaError ERR_MODEL_SLOT for a UNet that wants something else beside its latents */
export function requireKnownInputs(part: DenoiserPart): void {
  if (part.slot !== 'unet' || isInpainting(part)) return;
  const { in_channels, out_channels } = part.config;
  if (in_channels === out_channels) return;
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `${part.path}: expected a UNet of ${out_channels} input channels, or ${2 * out_channels + 1} for inpainting, got ` +
      `${in_channels}: it was trained for another task (an edited picture, a depth map) that Kotoba does not know`,
  );
}

/** @throws what `encode` throws */
export async function startingPicture(part: DenoiserPart, task: StartingTask): Promise<StartingPicture> {
  const pixels = task.image && pixelsOf(task.image, task);
  const mask = task.mask && brightness(coverPicture(task.mask, task.width, task.height));
  const latents = pixels && (await task.encode(pixels));
  const small = mask && shrunk(mask, task);
  if (!isInpainting(part)) return { latents, mask: small };
  const kept = pixels && mask ? withoutMasked(pixels, mask) : grey(task);
  const size = (task.height / task.factor) * (task.width / task.factor);
  // The network was trained with masks of zeros and ones.
  const shown = small ? small.map(Math.round) : new Float32Array(size).fill(1);
  const { data } = await task.encode(kept);
  const beside = new Float32Array(size + data.length);
  beside.set(shown);
  beside.set(data, size);
  return { latents, mask: small, beside };
}

function pixelsOf(image: Picture, { width, height }: StartingTask): Planes {
  return { data: valuesFromPicture(coverPicture(image, width, height)), channels: 3, height, width };
}

/** Nothing is kept: the middle of what a pixel can be, as where a mask is white. */
const grey = ({ width, height }: StartingTask): Planes => ({
  data: new Float32Array(3 * height * width),
  channels: 3,
  height,
  width,
});

/** @returns [height, width], 0 … 1: the mean of the colours */
function brightness({ width, height, rgb }: Picture): Float32Array {
  return Float32Array.from(
    { length: width * height },
    (_, i) => (rgb[3 * i]! + rgb[3 * i + 1]! + rgb[3 * i + 2]!) / (3 * 255),
  );
}

/** Grey where more than half of a pixel is to be painted. */
function withoutMasked(pixels: Planes, mask: Float32Array): Planes {
  return { ...pixels, data: pixels.data.map((value, i) => (mask[i % mask.length]! < 0.5 ? value : 0)) };
}

/** Means of the pixels of each latent. */
function shrunk(mask: Float32Array, { width, height, factor }: StartingTask): Float32Array {
  const [rows, columns] = [height / factor, width / factor];
  const out = new Float32Array(rows * columns);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      out[Math.floor(y / factor) * columns + Math.floor(x / factor)]! += mask[y * width + x]! / factor ** 2;
  return out;
}
