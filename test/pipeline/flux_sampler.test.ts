/** Sampling with the tiny Flux models against golden/diffusion/e2e: noise, schedule, guidance and solver together. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fluxModel } from '../../src/diffusion/flux_model.js';
import { openModel, selectPart, type FluxPart } from '../../src/formats/index.js';
import { sampleFlux, type FluxTask } from '../../src/pipeline/flux_sampler.js';
import type { Conditioning, GenerateOptions } from '../../src/pipeline/image_types.js';
import { NetworkSlot } from '../../src/pipeline/network_slot.js';
import type { Planes } from '../../src/pipeline/tiles.js';
import { resolveRequest } from '../../src/pipeline/request.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { golden, goldenPath, readGolden } from '../support/golden.js';
import { maxAbsDifference, relativeL2 } from '../support/reference.js';

/** The reference's own float32 run differs by 1e-5. */
const TOLERANCE = 1e-4;
/** The latents of the golden cases: 8 × 12, as Flux's autoencoder would make them of 64 × 96 pixels. */
const [HEIGHT, WIDTH, FACTOR] = [64, 96, 8];

const CASES = [
  ['flux_dev', { steps: 5, guidance: 3.5 }],
  ['flux_schnell', { steps: 4 }],
] as const;
const available = CASES.filter(
  ([name]) => goldenPath(`diffusion/${tiny(name)}`) && goldenPath('diffusion/e2e'),
);
if (available.length < CASES.length) console.log('not tested, ../shared/golden is not here: e2e of Flux');
if (available.length === 0) test.skip('needs ../shared/golden', () => undefined);

function tiny(name: string): string {
  return name.replace('flux_', 'flux_tiny_');
}

describe.each(available)('%s', (name, options) => {
  let device: Device;
  let ops: Ops;
  let part: FluxPart;
  let flux: NetworkSlot<ReturnType<typeof fluxModel>>;
  const e2e = readGolden('diffusion/e2e/e2e.safetensors');
  const data = (key: string) => e2e.get(`${name}.${key}`)!.data as Float32Array;
  const text: Conditioning = { pooled: data('in.y'), hidden: data('in.txt'), tokens: 10 };
  beforeAll(() => {
    device = Device.open('cpu');
    ops = new Ops(device, 'fp32');
    const file = `diffusion/${tiny(name)}/${tiny(name)}.weights.safetensors`;
    part = selectPart(openModel(golden(file)), { slot: 'transformer' }) as FluxPart;
    flux = new NetworkSlot(device, part, (weights) => fluxModel(weights, part.config));
  });
  afterAll(() => {
    flux.release();
    device.close();
  });

  const run = async (more: GenerateOptions = {}, task: Partial<FluxTask> = {}) => {
    const given = { width: WIDTH, height: HEIGHT, seed: 42, ...options, ...more };
    const request = resolveRequest(given, part.config, 64);
    return await device.run(async () =>
      sampleFlux(ops, {
        model: await flux.get(),
        request,
        seeds: request.seeds,
        conditioning: text,
        factor: FACTOR,
        ...task,
      }),
    );
  };

  test('schedule and latents', async () => {
    const { sigmas } = resolveRequest({ width: WIDTH, height: HEIGHT, ...options }, part.config, 64);
    expect(maxAbsDifference(sigmas, data('timesteps'))).toBeLessThan(1e-6);
    const [latents] = await run();
    expect(relativeL2(latents!.data, data('latent'))).toBeLessThan(TOLERANCE);
  });

  test('a picture does not depend on those beside it in the batch', async () => {
    const both = await run({ count: 2 });
    const [alone] = await run({ seed: 43 });
    expect(both[1]!.data).toEqual(alone!.data);
  });

  test('classifier-free guidance at 1 is the conditional alone; against itself it changes nothing', async () => {
    const [plain] = await run();
    const [guided] = await run({ cfg: 4 }, { negative: text });
    expect(relativeL2(guided!.data, plain!.data)).toBeLessThan(TOLERANCE);
  });

  test('every sampler runs, the same twice', async () => {
    for (const sampler of ['euler_ancestral', 'heun', 'dpmpp_2m', 'dpmpp_2m_sde', 'uni_pc', 'lcm', 'ddim']) {
      const [first] = await run({ sampler, steps: 3 });
      const [second] = await run({ sampler, steps: 3 });
      expect(first!.data, sampler).toEqual(second!.data);
    }
  });

  test('progress counts blocks, steps show the denoised latents', async () => {
    const blocks: number[] = [];
    const steps: number[] = [];
    await run(
      {},
      {
        onBlock: (done, total) => blocks.push(done / total),
        onStep: async (step, denoised) => {
          expect((await denoised()).data).toHaveLength(16 * 8 * 12);
          steps.push(step);
        },
      },
    );
    expect(steps).toEqual(Array.from({ length: options.steps }, (_, i) => i));
    expect(blocks).toHaveLength(options.steps * 5);
    expect(blocks.at(-1)).toBe(1);
  });

  test.each([false, true])('cancelled between steps, replays: %s', async (replays) => {
    const controller = new AbortController();
    const onStep = async () => controller.abort();
    await expect(run({}, { onStep, signal: controller.signal, replays })).rejects.toMatchObject({
      code: 'ERR_CANCELLED',
    });
  });

  test('replayed from a recording: the same bits, guided and in batches too; every block is told of', async () => {
    const cases: [GenerateOptions, Partial<FluxTask>][] = [
      [{}, {}],
      [{ count: 2, sampler: 'heun' }, {}],
      [{ cfg: 4 }, { negative: { ...text, pooled: data('in.y').map((value) => -value) } }],
    ];
    for (const [more, task] of cases) {
      const blocks: number[] = [];
      const steps: number[] = [];
      const onBlock = (done: number, total: number) => blocks.push(done / total);
      const onStep = async (step: number, denoised: () => Promise<Planes>) => {
        steps.push((await denoised()).data.length * step);
      };
      const replayed = await run(more, { ...task, replays: true, onBlock, onStep });
      expect(replayed, JSON.stringify(more)).toEqual(await run(more, task));
      expect(blocks.at(-1)).toBe(1);
      expect(steps).toHaveLength(options.steps);
    }
  });
});
