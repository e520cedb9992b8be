/** The tiny networks of golden/diffusion with the prompts of its e2e cases, on the device that models are tested on. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openModel, selectPart, type VaePart } from '../../src/formats/index.js';
import { Autoencoder } from '../../src/pipeline/painting/autoencoder.js';
import type { Denoiser } from '../../src/pipeline/painting/denoiser.js';
import { loadDenoiser } from '../../src/pipeline/painting/denoisers.js';
import { openDenoiser } from '../../src/pipeline/image_parts.js';
import type { DenoiserPart, GenerateOptions } from '../../src/pipeline/image_types.js';
import { NetworkSlot } from '../../src/pipeline/network_slot.js';
import { resolveRequest, type RequestModel } from '../../src/pipeline/painting/request.js';
import { sampleLatents, type SampleTask, type TextConditions } from '../../src/pipeline/painting/sampler.js';
import type { Planes } from '../../src/pipeline/painting/tiles.js';
import type { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { openModelDevice } from './devices.js';
import { golden, goldenPath, readGolden } from './golden.js';
import { maxAbsDifference, relativeL2 } from './reference.js';

/** The reference's own float32 run differs by 1e-5. */
export const TOLERANCE = 1e-4;
/** On the simulated GPU, milliseconds. */
const TIMEOUT = 300_000;
/** Latents of the golden cases. */
export const [ROWS, COLUMNS] = [8, 12];

interface Family {
  /** of the weights in golden/diffusion */
  readonly denoiser: string;
  readonly vae?: string;
  /** pixels along a side of a latent */
  readonly factor: number;
  readonly options: GenerateOptions;
}

export const FAMILIES: Readonly<Record<string, Family>> = {
  flux_dev: { denoiser: 'flux_tiny_dev', factor: 8, options: { steps: 5, guidance: 3.5 } },
  flux_schnell: { denoiser: 'flux_tiny_schnell', factor: 8, options: { steps: 4 } },
  sd1: { denoiser: 'sd1_unet_tiny', vae: 'ldm_vae_tiny', factor: 2, options: { steps: 6, cfg: 5 } },
  sdxl: { denoiser: 'sdxl_unet_tiny', vae: 'ldm_vae_tiny', factor: 2, options: { steps: 6, cfg: 4 } },
  sd3: { denoiser: 'sd35_medium_tiny', vae: 'sd3_vae_tiny', factor: 8, options: { steps: 5, cfg: 4.5 } },
};
const FILES = Object.values(FAMILIES).flatMap(({ denoiser, vae }) => [denoiser, ...(vae ? [vae] : [])]);
const isHere = [...FILES, 'e2e'].every((name) => goldenPath(`diffusion/${name}`));
if (!isHere) console.log('not tested, ../shared/golden is not here: e2e of diffusion models');

const weightsOf = (name: string): string => golden(`diffusion/${name}/${name}.weights.safetensors`);
const e2e = isHere ? readGolden('diffusion/e2e/e2e.safetensors') : undefined;

/** One family's networks on a device. */
export class Bench {
  readonly part: DenoiserPart;
  readonly #device: Device;
  readonly #ops: Ops;
  readonly #family: Family;
  readonly #name: string;
  readonly #network: NetworkSlot<Denoiser>;

  constructor(name: string, device: Device) {
    this.#name = name;
    this.#family = FAMILIES[name]!;
    this.#device = device;
    this.#ops = new Ops(device, 'fp32');
    this.part = openDenoiser(weightsOf(this.#family.denoiser));
    this.#network = new NetworkSlot(device, this.part, (weights) => loadDenoiser(weights, this.part));
  }

  has(key: string): boolean {
    return e2e!.has(`${this.#name}.${key}`);
  }

  data(key: string): Float32Array {
    return e2e!.get(`${this.#name}.${key}`)!.data as Float32Array;
  }

  /** The golden prompt of the family. */
  get text(): TextConditions {
    if (this.has('in.txt')) return { hidden: this.data('in.txt'), pooled: this.data('in.y') };
    const hasVector = this.has('in.y_cond');
    return { hidden: this.data('in.cond'), pooled: hasVector ? this.data('in.y_cond') : undefined };
  }

  get negative(): TextConditions | undefined {
    if (!this.has('in.uncond')) return undefined;
    const hasVector = this.has('in.y_uncond');
    return { hidden: this.data('in.uncond'), pooled: hasVector ? this.data('in.y_uncond') : undefined };
  }

  request(more: GenerateOptions = {}) {
    const { factor, options } = this.#family;
    const size = { width: COLUMNS * factor, height: ROWS * factor };
    const config = { ch_mult: new Array<number>(Math.log2(factor) + 1).fill(1) };
    const model = { denoiser: this.part, vae: { config } } as unknown as RequestModel;
    return resolveRequest({ ...size, seed: 42, ...options, ...more }, model);
  }

  async run(more: GenerateOptions = {}, task: Partial<SampleTask> = {}): Promise<Planes[]> {
    const request = this.request(more);
    return await this.#device.run(async () =>
      sampleLatents(this.#ops, {
        ...{ network: await this.#network.get(), request, seeds: request.seeds, conditioning: this.text },
        ...{ negative: request.cfg === 1 ? undefined : this.negative, factor: this.#family.factor },
        ...task,
      }),
    );
  }

  /** [3, height, width] of latents as the denoiser has them */
  async decode(latents: Planes): Promise<Float32Array> {
    const vae = selectPart(openModel(weightsOf(this.#family.vae!)), { slot: 'vae' }) as VaePart;
    const autoencoder = new Autoencoder(this.#device, vae);
    try {
      const decoded = this.#device.run(() => autoencoder.decode(this.#ops, latents, { tile: 1024 }));
      return (await decoded).data;
    } finally {
      autoencoder.release();
    }
  }

  close(): void {
    this.#network.release();
  }
}

/** Tests of each of these families; one that is skipped and says why where there is no golden data. */
export function describeFamilies(
  title: (name: string) => string,
  names: readonly string[],
  body: (bench: () => Bench, name: string) => void,
): void {
  if (!isHere) return void test.skip('needs ../shared/golden', () => undefined);
  for (const name of names)
    describe(title(name), { timeout: TIMEOUT }, () => {
      let device: Device;
      let bench: Bench;
      beforeAll(() => {
        device = openModelDevice();
        bench = new Bench(name, device);
      });
      afterAll(() => {
        bench.close();
        device.close();
      });
      body(() => bench, name);
    });
}

/** Of SD1 and SDXL: noise, schedule, timesteps, guidance, solver and picture together. */
export function goldenUnet(name: 'sd1' | 'sdxl'): void {
  describeFamilies(
    (family) => `golden ${family}`,
    [name],
    (bench) => {
      // ComfyUI's start and timesteps, and those of k-diffusion, which A1111 has.
      const profiles = { comfy: { profile: 'comfy' }, kdiff: { profile: 'a1111', noise: 'torch' } } as const;

      describe.each(Object.keys(profiles) as (keyof typeof profiles)[])('as %s', (profile) => {
        test.each([
          ['euler', 'normal'],
          ['dpmpp_2m', 'karras'],
        ])('%s, %s', async (sampler, schedule) => {
          const options = { ...profiles[profile], sampler, schedule };
          const key = `${profile}.${sampler}_${schedule}`;
          const { sigmas, levels, timesteps } = bench().request(options);
          expect(relativeL2(Float64Array.from(sigmas), bench().data(`sigmas_${schedule}`))).toBeLessThan(
            1e-6,
          );
          const times = sigmas
            .slice(0, -1)
            .map((sigma) =>
              timesteps === 'nearest' ? levels.nearestTimestep(sigma) : levels.timestep(sigma),
            );
          expect(maxAbsDifference(times, bench().data(`${key}.model_timesteps`))).toBeLessThan(2e-3);
          const [latents] = await bench().run(options);
          expect(relativeL2(latents!.data, bench().data(`${key}.latent`))).toBeLessThan(TOLERANCE);
          if (!bench().has(`${key}.image`)) return;
          // Both families share one autoencoder file, which tells SD1's scale.
          const scale = name === 'sdxl' ? 0.18215 / 0.13025 : 1;
          const image = await bench().decode({
            ...latents!,
            data: latents!.data.map((value) => scale * value),
          });
          expect(relativeL2(image, bench().data(`${key}.image`))).toBeLessThan(TOLERANCE);
        });
      });
    },
  );
}
