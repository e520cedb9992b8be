/** Conditioned on texts, makes latents and the pictures they stand for: the denoiser and the autoencoder at work. */
import { pictureFromValues, type Picture } from '../../image/index.js';
import type { Device } from '../../runtime/device.js';
import { Ops, type OpPrecision } from '../../runtime/ops.js';
import { Autoencoder } from './autoencoder.js';
import type { Denoiser } from './denoiser.js';
import { loadDenoiser } from './denoisers.js';
import { replaysOn, type Replay } from '../encode_runner.js';
import type { PromptText } from '../conditioning/family_text.js';
import type { VaePart } from '../../formats/index.js';
import type { Conditioning, DenoiserPart, GenerateOptions, GenerateProgress } from '../image_types.js';
import { NetworkSlot } from '../network_slot.js';
import { previewOf } from './preview.js';
import type { Request } from './request.js';
import { sampleLatents, type SampleTask, type TextConditions } from './sampler.js';
import { withSizes } from '../conditioning/size_conditioning.js';
import { startingPicture, type StartingPicture } from './starting_picture.js';
import type { Planes } from './tiles.js';

/** Tokens of pictures that share passes over the weights: more would win little and cost memory. */
const BATCH_TOKENS = 4096;
/**
 * The CPU's matmuls add up in one order for up to four rows, of which times and pooled texts have one a picture, and in
 * another for more: more pictures together would differ from each alone in a byte of ten thousand.
 */
const MOST_TOGETHER = 4;
/** Pixels of a token: a patch of 2 × 2 latents, and what a UNet's first attention has at half its size. */
const TOKEN_PIXELS = 16 ** 2;

type Report = (progress: GenerateProgress) => void;

export interface PaintedParts {
  readonly denoiser: DenoiserPart;
  readonly vae: VaePart;
}

export interface PainterOptions {
  readonly precisions: Readonly<Record<'denoiser' | 'vae', OpPrecision>>;
  readonly residency: 'lean' | 'keep';
  readonly replay: Replay;
}

export class Painter {
  readonly denoiser: DenoiserPart;
  readonly autoencoder: Autoencoder;
  /** The denoiser, as a phase that can be released. */
  readonly network: NetworkSlot<Denoiser>;
  readonly #device: Device;
  readonly #residency: 'lean' | 'keep';
  readonly #ops: Readonly<Record<'denoiser' | 'vae', Ops>>;
  readonly #replays: boolean;

  constructor(device: Device, { denoiser, vae }: PaintedParts, options: PainterOptions) {
    const { precisions, residency, replay } = options;
    this.#device = device;
    this.#residency = residency;
    this.denoiser = denoiser;
    this.autoencoder = new Autoencoder(device, vae);
    this.network = new NetworkSlot(device, denoiser, (weights) => loadDenoiser(weights, denoiser));
    this.#ops = { denoiser: new Ops(device, precisions.denoiser), vae: new Ops(device, precisions.vae) };
    this.#replays = replaysOn(this.#ops.denoiser, replay);
  }

  /** @returns the latents of each of the request's pictures, scaled as the denoiser has them */
  async sample(
    request: Request,
    options: GenerateOptions,
    text: PromptText,
    report: Report,
  ): Promise<Planes[]> {
    const { signal } = options;
    const start = await this.#start(request, options);
    const tokens = (request.width * request.height) / TOKEN_PIXELS;
    const conditioning = this.#conditions(text.conditioning, request, 'prompt');
    const negative = text.negative && this.#conditions(text.negative, request, 'negative');
    const together = Math.min(MOST_TOGETHER, Math.max(1, Math.floor(BATCH_TOKENS / tokens)));
    const latents: Planes[] = [];
    for (let i = 0; i < request.seeds.length; i += together) {
      const seeds = request.seeds.slice(i, i + together);
      const job = async (): Promise<Planes[]> => {
        const network = await this.network.get();
        const texts = { conditioning, negative };
        const task = { ...texts, request, seeds, start, signal, network, replays: this.#replays };
        try {
          const ops = this.#ops.denoiser;
          return await sampleLatents(ops, { ...task, ...this.#watch(options, task, report) });
        } finally {
          this.network.requireIntact(); // outranks what the missing bytes led to
        }
      };
      latents.push(...(await this.#device.run(job, signal)));
    }
    return latents;
  }

  async decode(
    latents: readonly Planes[],
    { tile }: Request,
    { signal }: GenerateOptions,
    report: Report,
  ): Promise<Picture[]> {
    const pictures: Picture[] = [];
    for (const [i, one] of latents.entries()) {
      const onTile = (done: number, total: number): void =>
        report({
          phase: 'decode',
          done: i * total + done,
          total: latents.length * total,
          detail: `picture ${i + 1}`,
        });
      const job = () => this.autoencoder.decode(this.#ops.vae, one, { tile, onTile, signal });
      const { data, width, height } = await this.#device.run(job, signal);
      pictures.push(pictureFromValues(data, { width, height }));
    }
    return pictures;
  }

  release(): void {
    this.network.release();
    this.autoencoder.release();
  }

  /** What the network is given of a text. */
  #conditions({ hidden, pooled }: Conditioning, request: Request, of: 'prompt' | 'negative'): TextConditions {
    const { denoiser } = this;
    if (denoiser.slot !== 'unet' || !pooled) return { hidden, pooled };
    return { hidden, pooled: withSizes(pooled, denoiser.config, request, of) };
  }

  #start({ width, height, tile }: Request, options: GenerateOptions): Promise<StartingPicture> {
    const { signal, image, mask } = options;
    const { factor } = this.autoencoder;
    const encode = (pixels: Planes): Promise<Planes> => {
      const job = () => this.autoencoder.encode(this.#ops.vae, pixels, { tile, signal });
      return this.#device.run(job, signal);
    };
    return startingPicture(this.denoiser, { image, mask, width, height, factor, encode });
  }

  #watch(
    options: GenerateOptions,
    { request, seeds }: { readonly request: Request; readonly seeds: readonly bigint[] },
    report: Report,
  ): Pick<SampleTask, 'factor' | 'onBlock' | 'afterBlock' | 'onStep'> {
    const { steps } = request;
    const batches = request.seeds.length;
    const first = request.seeds.indexOf(seeds[0]!);
    const detail = (step: number): string => `step ${step + 1} of ${steps}`;
    const onBlock = (done: number, total: number, step: number): void => {
      const before = (first / seeds.length) * total;
      report({
        phase: 'sample',
        done: before + done,
        total: (batches / seeds.length) * total,
        detail: detail(step),
      });
    };
    const onStep = async (step: number, denoised: () => Promise<Planes>): Promise<void> => {
      if (!options.preview) return;
      const preview = await previewOf(this.#ops.vae, this.autoencoder, await denoised());
      report({ phase: 'sample', done: step + 1, total: steps, detail: detail(step), preview });
    };
    const afterBlock =
      this.#residency === 'lean' ? (name: string) => this.network.forget(`${name}.`) : undefined;
    return { factor: this.autoencoder.factor, onBlock, afterBlock, onStep };
  }
}
