/** Sampling with the tiny networks against golden/diffusion/e2e: noise, schedule, guidance and solver together. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openModel, selectPart, type VaePart } from '../../src/formats/index.js';
import { Autoencoder } from '../../src/pipeline/autoencoder.js';
import type { Denoiser } from '../../src/pipeline/denoiser.js';
import { loadDenoiser } from '../../src/pipeline/denoisers.js';
import { openDenoiser } from '../../src/pipeline/image_parts.js';
import type { DenoiserPart, GenerateOptions } from '../../src/pipeline/image_types.js';
import { NetworkSlot } from '../../src/pipeline/network_slot.js';
import { resolveRequest, type RequestModel } from '../../src/pipeline/request.js';
import { sampleLatents, type SampleTask, type TextConditions } from '../../src/pipeline/sampler.js';
import type { Planes } from '../../src/pipeline/tiles.js';
import type { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { openModelDevice } from '../support/devices.js';
import { golden, goldenPath, readGolden } from '../support/golden.js';
import { maxAbsDifference, relativeL2 } from '../support/reference.js';

/** The reference's own float32 run differs by 1e-5. */
const TOLERANCE = 1e-4;
/** On the simulated GPU, milliseconds. */
const TIMEOUT = 300_000;
/** Latents of the golden cases. */
const [ROWS, COLUMNS] = [8, 12];

interface Family {
  /** of the weights in golden/diffusion */
  readonly denoiser: string;
  readonly vae?: string;
  /** pixels along a side of a latent */
  readonly factor: number;
  readonly options: GenerateOptions;
}

const FAMILIES: Readonly<Record<string, Family>> = {
  flux_dev: { denoiser: 'flux_tiny_dev', factor: 8, options: { steps: 5, guidance: 3.5 } },
  flux_schnell: { denoiser: 'flux_tiny_schnell', factor: 8, options: { steps: 4 } },
  sd1: { denoiser: 'sd1_unet_tiny', vae: 'ldm_vae_tiny', factor: 2, options: { steps: 6, cfg: 5 } },
  sdxl: { denoiser: 'sdxl_unet_tiny', vae: 'ldm_vae_tiny', factor: 2, options: { steps: 6, cfg: 4 } },
  sd3: { denoiser: 'sd35_medium_tiny', vae: 'sd3_vae_tiny', factor: 8, options: { steps: 5, cfg: 4.5 } },
};
const FILES = Object.values(FAMILIES).flatMap(({ denoiser, vae }) => [denoiser, ...(vae ? [vae] : [])]);
const isHere = [...FILES, 'e2e'].every((name) => goldenPath(`diffusion/${name}`));
if (!isHere) console.log('not tested, ../shared/golden is not here: e2e of diffusion models');
if (!isHere) test.skip('needs ../shared/golden', () => undefined);

const weightsOf = (name: string): string => golden(`diffusion/${name}/${name}.weights.safetensors`);
const e2e = isHere ? readGolden('diffusion/e2e/e2e.safetensors') : undefined;

/** One family's networks on a device. */
class Bench {
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

  data(key: string): Float32Array {
    return e2e!.get(`${this.#name}.${key}`)!.data as Float32Array;
  }

  /** The golden prompt of the family. */
  get text(): TextConditions {
    if (e2e!.has(`${this.#name}.in.txt`)) return { hidden: this.data('in.txt'), pooled: this.data('in.y') };
    const hasVector = e2e!.has(`${this.#name}.in.y_cond`);
    return { hidden: this.data('in.cond'), pooled: hasVector ? this.data('in.y_cond') : undefined };
  }

  get negative(): TextConditions | undefined {
    if (!e2e!.has(`${this.#name}.in.uncond`)) return undefined;
    const hasVector = e2e!.has(`${this.#name}.in.y_uncond`);
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

let device: Device;
beforeAll(() => {
  device = openModelDevice();
});
afterAll(() => device.close());

const cases = (names: readonly string[]): readonly string[] => (isHere ? names : []);

describe.each(cases(['sd1', 'sdxl']))('golden %s', { timeout: TIMEOUT }, (name) => {
  let bench: Bench;
  beforeAll(() => {
    bench = new Bench(name, device);
  });
  afterAll(() => bench.close());

  // ComfyUI's start and timesteps, and those of k-diffusion, which A1111 has.
  const profiles = { comfy: { profile: 'comfy' }, kdiff: { profile: 'a1111', noise: 'torch' } } as const;

  describe.each(Object.keys(profiles) as (keyof typeof profiles)[])('as %s', (profile) => {
    test.each([
      ['euler', 'normal'],
      ['dpmpp_2m', 'karras'],
    ])('%s, %s', async (sampler, schedule) => {
      const options = { ...profiles[profile], sampler, schedule };
      const key = `${profile}.${sampler}_${schedule}`;
      const { sigmas, levels, timesteps } = bench.request(options);
      expect(relativeL2(Float64Array.from(sigmas), bench.data(`sigmas_${schedule}`))).toBeLessThan(1e-6);
      const times = sigmas
        .slice(0, -1)
        .map((sigma) => (timesteps === 'nearest' ? levels.nearestTimestep(sigma) : levels.timestep(sigma)));
      expect(maxAbsDifference(times, bench.data(`${key}.model_timesteps`))).toBeLessThan(2e-3);
      const [latents] = await bench.run(options);
      expect(relativeL2(latents!.data, bench.data(`${key}.latent`))).toBeLessThan(TOLERANCE);
    });
  });

  test('the picture', async () => {
    const [latents] = await bench.run({ profile: 'comfy', sampler: 'euler', schedule: 'normal' });
    // Both share one autoencoder file, which tells SD1's scale.
    const scale = name === 'sdxl' ? 0.18215 / 0.13025 : 1;
    const image = await bench.decode({ ...latents!, data: latents!.data.map((value) => scale * value) });
    expect(relativeL2(image, bench.data('comfy.euler_normal.image'))).toBeLessThan(TOLERANCE);
  });
});

describe.each(cases(['sd3']))('golden %s', { timeout: TIMEOUT }, (name) => {
  let bench: Bench;
  beforeAll(() => {
    bench = new Bench(name, device);
  });
  afterAll(() => bench.close());

  test.each(['euler', 'dpmpp_2m'])('%s', async (sampler) => {
    const options = { sampler, schedule: 'normal' };
    const { sigmas } = bench.request(options);
    expect(maxAbsDifference(sigmas, bench.data('sigmas_sd3infer_shift3'))).toBeLessThan(1e-6);
    const [latents] = await bench.run(options);
    expect(relativeL2(latents!.data, bench.data(`${sampler}.latent`))).toBeLessThan(TOLERANCE);
  });

  test('the picture', async () => {
    const [latents] = await bench.run({ sampler: 'dpmpp_2m', schedule: 'normal' });
    expect(relativeL2(await bench.decode(latents!), bench.data('dpmpp_2m.image'))).toBeLessThan(TOLERANCE);
  });
});

describe.each(cases(['flux_dev', 'flux_schnell']))('golden %s', { timeout: TIMEOUT }, (name) => {
  let bench: Bench;
  beforeAll(() => {
    bench = new Bench(name, device);
  });
  afterAll(() => bench.close());

  test('schedule and latents', async () => {
    const { sigmas } = bench.request();
    expect(maxAbsDifference(sigmas, bench.data('timesteps'))).toBeLessThan(1e-6);
    const [latents] = await bench.run();
    expect(relativeL2(latents!.data, bench.data('latent'))).toBeLessThan(TOLERANCE);
  });
});

describe.each(cases(Object.keys(FAMILIES)))('%s: runs', (name) => {
  let bench: Bench;
  beforeAll(() => {
    bench = new Bench(name, device);
  });
  afterAll(() => bench.close());
  const { steps } = FAMILIES[name]!.options as { steps: number };

  test('a picture does not depend on those beside it in the batch', async () => {
    const both = await bench.run({ count: 2 });
    const [alone] = await bench.run({ seed: 43 });
    expect(both[1]!.data).toEqual(alone!.data);
  });

  test('classifier-free guidance at 1 is the conditional alone; against itself it changes nothing', async () => {
    const [plain] = await bench.run({ cfg: 1 });
    const [guided] = await bench.run({ cfg: 4 }, { negative: bench.text });
    expect(relativeL2(guided!.data, plain!.data)).toBeLessThan(TOLERANCE);
  });

  test('every sampler runs, the same twice', async () => {
    for (const sampler of ['euler_ancestral', 'heun', 'dpmpp_2m', 'dpmpp_2m_sde', 'uni_pc', 'lcm', 'ddim']) {
      const [first] = await bench.run({ sampler, steps: 3 });
      const [second] = await bench.run({ sampler, steps: 3 });
      expect(first!.data, sampler).toEqual(second!.data);
    }
  });

  test('progress counts blocks, steps show the denoised latents', async () => {
    const blocks: number[] = [];
    const done: number[] = [];
    await bench.run(
      {},
      {
        onBlock: (done, total) => blocks.push(done / total),
        onStep: async (step, denoised) => {
          const { data, channels } = await denoised();
          expect(data).toHaveLength(channels * ROWS * COLUMNS);
          done.push(step);
        },
      },
    );
    expect(done).toEqual(Array.from({ length: steps }, (_, i) => i));
    expect(new Set(blocks).size).toBe(blocks.length);
    expect(blocks.at(-1)).toBe(1);
  });

  test.each([false, true])('cancelled between steps, replays: %s', async (replays) => {
    const controller = new AbortController();
    const onStep = async () => controller.abort();
    await expect(bench.run({}, { onStep, signal: controller.signal, replays })).rejects.toMatchObject({
      code: 'ERR_CANCELLED',
    });
  });

  test('replayed from a recording: the same bits, guided and in batches too; every block is told of', async () => {
    const cases: [GenerateOptions, Partial<SampleTask>][] = [
      [{}, {}],
      [{ count: 2, sampler: 'heun' }, {}],
      [{ cfg: 4 }, { negative: { ...bench.text, hidden: bench.text.hidden.map((value) => -value) } }],
    ];
    for (const [more, task] of cases) {
      const blocks: number[] = [];
      const seen: number[] = [];
      const onBlock = (done: number, total: number) => blocks.push(done / total);
      const onStep = async (step: number, denoised: () => Promise<Planes>) => {
        seen.push((await denoised()).data.length * step);
      };
      const replayed = await bench.run(more, { ...task, replays: true, onBlock, onStep });
      expect(replayed, JSON.stringify(more)).toEqual(await bench.run(more, task));
      expect(blocks.at(-1)).toBe(1);
      expect(seen).toHaveLength(steps);
    }
  });
});

describe.each(cases(['sd3']))('%s: skip-layer guidance', (name) => {
  let bench: Bench;
  beforeAll(() => {
    bench = new Bench(name, device);
  });
  afterAll(() => bench.close());

  test('changes the picture while it is on, and without guidance by a prompt too', async () => {
    const layers = { layers: [0], scale: 2.5 };
    const [plain] = await bench.run();
    const [skipping] = await bench.run({ skipLayers: { ...layers, start: 0, end: 1 } });
    const [never] = await bench.run({ skipLayers: { ...layers, start: 1, end: 1 } });
    expect(relativeL2(skipping!.data, plain!.data)).toBeGreaterThan(1e-2);
    expect(never!.data).toEqual(plain!.data);
    const [alone] = await bench.run({ cfg: 1, skipLayers: { ...layers, start: 0, end: 1 } });
    const [cond] = await bench.run({ cfg: 1 });
    expect(relativeL2(alone!.data, cond!.data)).toBeGreaterThan(1e-2);
  });
});
