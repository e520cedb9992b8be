/** Latents to pictures and back, in tiles where the picture is large. */
import { KotobaError } from '../../errors.js';
import { decodeStages, encodeStages, type VaeStage } from '../../diffusion/vae.js';
import { vaeDecoder, vaeEncoder, type VaeDecoder, type VaeEncoder } from '../../diffusion/vae_model.js';
import { vaeFactor, requireHalf, type VaePart } from '../../formats/index.js';
import type { Device } from '../../runtime/device.js';
import type { ImageSize, Ops } from '../../runtime/ops.js';
import type { Tensor } from '../../runtime/tensor.js';
import { NetworkSlot } from '../network_slot.js';
import { Blend, crop, spans, type Planes, type Span } from './tiles.js';

export interface TileOptions {
  /** Longest side of a tile, pixels. */
  readonly tile: number;
  readonly onTile?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Share of a tile that its neighbour repeats. */
const OVERLAP = 1 / 8;

/** A file that was cut short outranks what its missing bytes led to. */
async function intact<T>(slot: NetworkSlot<unknown>, ops: Ops, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw advised(error, ops);
  } finally {
    slot.requireIntact();
  }
}

/** What an overflow in 16 bits needs is this part at another precision: the denoiser may keep its own. */
function advised(error: unknown, { precision }: Ops): unknown {
  const isOverflow = error instanceof KotobaError && error.code === 'ERR_NON_FINITE' && precision !== 'fp32';
  if (!isOverflow) return error;
  const advice = `for the autoencoder alone, which runs at ${precision}: --precision vae=fp32`;
  return new KotobaError('ERR_NON_FINITE', `${error.message}, or ${advice}`, { cause: error });
}

/** Runs a tower; the queue fails at the first stage that leaves a NaN or an infinity, and names it. */
function checked(ops: Ops, stages: Generator<VaeStage, Tensor>, where: string): Tensor {
  for (;;) {
    const { done, value } = stages.next();
    ops.requireFinite(done ? value : value.image, done ? where : `${where} ${value.name}`);
    if (done) return value;
  }
}

export class Autoencoder {
  readonly part: VaePart;
  readonly #device: Device;
  readonly #decoder: NetworkSlot<VaeDecoder>;
  readonly #encoder: NetworkSlot<VaeEncoder>;

  constructor(device: Device, part: VaePart) {
    this.part = part;
    this.#device = device;
    this.#decoder = new NetworkSlot(device, part, (weights) => {
      requireHalf(part, 'decoder');
      return vaeDecoder(weights, part.config);
    });
    this.#encoder = new NetworkSlot(device, part, (weights) => {
      requireHalf(part, 'encoder');
      return vaeEncoder(weights, part.config);
    });
  }

  /** Pixels along a side of a latent. */
  get factor(): number {
    return vaeFactor(this.part.config);
  }

  /**
   * @param latents scaled and shifted, as the denoiser has them
   * @returns [3, height, width], −1 … 1 where in range
   */
  async decode(ops: Ops, latents: Planes, options: TileOptions): Promise<Planes> {
    const { scale_factor, shift_factor, out_ch } = this.part.config;
    const z = latents.data.map((value) => value / scale_factor + shift_factor);
    return await this.#tiled({ ...latents, data: z }, out_ch, this.factor, options, (tile) =>
      intact(this.#decoder, ops, () => this.#decodeTile(ops, tile)),
    );
  }

  /**
   * @param pixels [3, height, width], −1 … 1; sides multiples of the factor
   * @returns the latents' mean, scaled and shifted as the denoiser wants them
   */
  async encode(ops: Ops, pixels: Planes, options: TileOptions): Promise<Planes> {
    const { scale_factor, shift_factor, z_channels } = this.part.config;
    const mean = await this.#tiled(pixels, z_channels, 1 / this.factor, options, (tile) =>
      intact(this.#encoder, ops, () => this.#encodeTile(ops, tile)),
    );
    return { ...mean, data: mean.data.map((value) => (value - shift_factor) * scale_factor) };
  }

  release(): void {
    this.#decoder.release();
    this.#encoder.release();
  }

  async #decodeTile(ops: Ops, z: Planes): Promise<Float32Array> {
    const size: ImageSize = { batch: 1, height: z.height, width: z.width };
    const vae = await this.#decoder.get();
    using nchw = this.#device.from(z.data, [1, z.channels, z.height, z.width]);
    using rows = ops.patchify(nchw, { ...size, channels: z.channels, patch: 1 });
    using pixels = checked(ops, decodeStages(ops, vae, rows, size), `${this.part.path}: decoder`);
    const full = { batch: 1, height: z.height * this.factor, width: z.width * this.factor };
    using image = ops.unpatchify(pixels, { ...full, channels: pixels.cols, patch: 1 });
    return await image.read();
  }

  async #encodeTile(ops: Ops, image: Planes): Promise<Float32Array> {
    const size: ImageSize = { batch: 1, height: image.height, width: image.width };
    const vae = await this.#encoder.get();
    using nchw = this.#device.from(image.data, [1, image.channels, image.height, image.width]);
    using rows = ops.patchify(nchw, { ...size, channels: image.channels, patch: 1 });
    using moments = checked(ops, encodeStages(ops, vae, rows, size), `${this.part.path}: encoder`);
    using mean = moments.columnRange(0, moments.cols / 2);
    const small = { batch: 1, height: image.height / this.factor, width: image.width / this.factor };
    using planes = ops.unpatchify(mean, { ...small, channels: mean.cols, patch: 1 });
    return await planes.read();
  }

  /** Runs `one` over the tiles of `input` and blends what it gives, `ratio` times as large. */
  async #tiled(
    input: Planes,
    channels: number,
    ratio: number,
    { tile, onTile, signal }: TileOptions,
    one: (tile: Planes) => Promise<Float32Array>,
  ): Promise<Planes> {
    // Cuts on latents, whichever side the input is, so that both sides are whole.
    const unit = ratio < 1 ? this.factor : 1;
    const most = Math.max(1, Math.floor(tile / this.factor));
    const overlap = Math.ceil(most * OVERLAP);
    const rows = spans(input.height / unit, most, overlap);
    const columns = spans(input.width / unit, most, overlap);
    const total = rows.length * columns.length;
    const scaled = ({ start, length }: Span, by: number): Span => ({
      start: start * by,
      length: length * by,
    });
    const blend = new Blend(channels, input.height * ratio, input.width * ratio, overlap * unit * ratio);
    let done = 0;
    for (const row of rows)
      for (const column of columns) {
        signal?.throwIfAborted();
        const values = await one(crop(input, scaled(row, unit), scaled(column, unit)));
        blend.add(values, scaled(row, unit * ratio), scaled(column, unit * ratio));
        onTile?.(++done, total);
      }
    return blend.result();
  }
}
