/** What a user does with the parts of pictures: one step of a transformer, a VAE there and back, a PNG read. */
import { readPicture, coverPicture, parseMetadata, pictureFromValues } from '../../src/image/index.js';
import { KotobaError } from '../../src/errors.js';
import type { VaePart } from '../../src/formats/index.js';
import { Autoencoder } from '../../src/pipeline/painting/autoencoder.js';
import { latentChannels, loadDenoiser } from '../../src/pipeline/painting/denoisers.js';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import { encoderSlots } from '../../src/pipeline/conditioning/encoder_widths.js';
import { openDenoiser } from '../../src/pipeline/image_parts.js';
import type { DenoiserPart, ImageModel } from '../../src/pipeline/image_types.js';
import { NetworkSlot } from '../../src/pipeline/network_slot.js';
import { resolveRequest, sideUnit } from '../../src/pipeline/painting/request.js';
import { sampleLatents, type TextConditions } from '../../src/pipeline/painting/sampler.js';
import { shippedModel } from '../../src/pipeline/shipped_model.js';
import type { Planes } from '../../src/pipeline/painting/tiles.js';
import type { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { below, pick, type Random } from './mutate.js';

/** Of every family: pixels along a side of a latent. */
const kFactor = 8;
const kVae = { config: { ch_mult: [1, 1, 1, 1] } } as unknown as VaePart;
/** Pixels of a picture that is worth scaling: a larger one would be a slow case, not another one. */
const kMostScaled = 1 << 20;
/** Pixels along a side that a VAE under test may make. */
const kMostSide = 256;

/** One evaluation, or two with guidance, of a picture of one to four tokens, or of as little as a UNet can halve. */
export async function runDenoiser(part: DenoiserPart, device: Device, random: Random): Promise<void> {
  const precision = pick(['fp32', 'int8'] as const, random);
  const slot = new NetworkSlot(device, part, (weights) => loadDenoiser(weights, part));
  const cfg = random() < 0.2 ? 3 : 1;
  const model = { denoiser: part, vae: kVae };
  const unit = sideUnit(model);
  const [width, height] = [unit * (1 + below(random, 2)), unit * (1 + below(random, 2))];
  const sampler = pick(['euler', 'heun', 'dpmpp_sde'], random);
  const count = 1 + below(random, 2);
  const request = resolveRequest({ width, height, steps: 1, seed: 1, sampler, cfg, count }, model);
  const conditioning = textFor(part, random);
  const negative = cfg === 1 ? undefined : textFor(part, random);
  const start = { beside: besideFor(part, (width * height) / kFactor ** 2, random) };
  const task = { request, seeds: request.seeds, conditioning, negative, start, factor: kFactor };
  try {
    const latents = await device.run(async () =>
      sampleLatents(new Ops(device, precision), { ...task, network: await slot.get() }),
    );
    if (latents.length !== count) throw new RangeError(`${latents.length} of ${count} latents`);
    for (const planes of latents)
      checkPlanes('the latents', planes, latentChannels(part), height / 8, width / 8);
  } finally {
    slot.release();
  }
}

function textFor(part: DenoiserPart, random: Random): TextConditions {
  const tokens = 1 + below(random, 3);
  const values = (length: number): Float32Array => Float32Array.from({ length }, () => random() * 2 - 1);
  const [width, pooled] =
    part.family === 'flux'
      ? [part.config.context_in_dim, part.config.vec_in_dim]
      : [part.config.context_dim, part.config.adm_in_channels];
  return { hidden: values(tokens * width), pooled: pooled > 0 ? values(pooled) : undefined };
}

/** Mask and picture of a UNet for inpainting. @param size latent pixels */
function besideFor(part: DenoiserPart, size: number, random: Random): Float32Array | undefined {
  const channels = part.slot === 'unet' ? part.config.in_channels - part.config.out_channels : 0;
  return channels > 0 ? Float32Array.from({ length: channels * size }, random) : undefined;
}

/** Decodes latents of one to three a side, in tiles or whole, and encodes what came out. */
export async function runVae(part: VaePart, device: Device, random: Random): Promise<void> {
  const vae = new Autoencoder(device, part);
  const ops = new Ops(device, pick(['fp32', 'int8'] as const, random));
  const [height, width] = [1 + below(random, 3), 1 + below(random, 3)];
  const channels = part.config.z_channels;
  const data = Float32Array.from({ length: channels * height * width }, () => random() * 2 - 1);
  const tile = random() < 0.3 ? 2 * vae.factor : Infinity;
  if (3 * vae.factor > kMostSide) throw new KotobaError('ERR_ARGUMENT', 'larger than it is worth trying');
  try {
    const encodes = random() < 0.5;
    if (!part.halves.includes('decoder') || (encodes && part.halves.includes('encoder'))) {
      const { in_channels } = part.config;
      const size = { height: height * vae.factor, width: width * vae.factor };
      const pixels = new Float32Array(in_channels * size.height * size.width).fill(0.25);
      const input = { data: pixels, channels: in_channels, ...size };
      const latents = await device.run(() => vae.encode(ops, input, { tile }));
      checkPlanes('the latents', latents, channels, height, width);
    } else {
      const out = await device.run(() => vae.decode(ops, { data, channels, height, width }, { tile }));
      checkPlanes('the picture', out, part.config.out_ch, height * vae.factor, width * vae.factor);
      pictureFromValues(out.data, out);
    }
  } finally {
    vae.release();
  }
}

function checkPlanes(what: string, planes: Planes, channels: number, height: number, width: number): void {
  if (planes.data.length !== channels * height * width)
    throw new RangeError(`${what}: ${planes.data.length} values, not ${channels} × ${height} × ${width}`);
  if (!planes.data.every((value) => Number.isFinite(value)))
    throw new RangeError(`${what} is not finite, and nothing said so`);
}

/** A damaged checkpoint that holds everything. */
function wholeModel(path: string): ImageModel {
  const slots = encoderSlots(openDenoiser(path)).filter(({ isOptional }) => !isOptional);
  return {
    denoiser: path,
    vae: path,
    encoders: Object.fromEntries(slots.map(({ slot }) => [slot, { path }])),
  };
}

/** The damaged part with the other parts of the model that ships: all that `generate` does but writing. */
export async function runPipeline(
  slot: 'denoiser' | 'vae' | 'whole',
  path: string,
  device: Device,
  random: Random,
): Promise<void> {
  const precision = pick(['fp32', 'int8'] as const, random);
  const residency = pick(['lean', 'keep'] as const, random);
  const model = slot === 'whole' ? wholeModel(path) : { ...shippedModel(), [slot]: path };
  await using pipeline = await ImagePipeline.load(model, { device, precision, residency });
  const ownSize = slot !== 'whole' && random() < 0.2; // a base model's is 512 and more
  const size = ownSize ? {} : { width: 16, height: 16 };
  const image = { width: 16, height: 16, rgb: new Uint8Array(16 * 16 * 3).fill(99) };
  const mask = random() < 0.3 ? { mask: image } : {};
  const start = random() < 0.3 ? { image, ...mask, strength: 0.5 } : {};
  const options = { ...size, ...start, steps: 1, seed: 1, preview: random() < 0.2 };
  const { pictures, width, height } = await pipeline.generate('a red circle', options);
  const { rgb } = pictures[0]!.picture;
  if (rgb.length !== width * height * 3) throw new RangeError(`${rgb.length} bytes of ${width} × ${height}`);
}

/** As `generate --image` does. */
export async function readAndScale(path: string, random: Random): Promise<void> {
  const picture = await readPicture(path, { background: pick(['white', 'black'] as const, random) });
  const { width, height, rgb, texts } = picture;
  if (rgb.length !== width * height * 3) throw new RangeError(`${rgb.length} bytes of ${width} × ${height}`);
  parseMetadata(texts);
  if (width * height <= kMostScaled) coverPicture(picture, 16 * (1 + below(random, 3)), 32);
}
