/** Sampling with the tiny networks of every family: batches, progress, cancelling, replays. */
import { expect, test } from 'vitest';
import type { GenerateOptions } from '../../../src/pipeline/image_types.js';
import type { SampleTask } from '../../../src/pipeline/painting/sampler.js';
import type { Planes } from '../../../src/pipeline/painting/tiles.js';
import { COLUMNS, FAMILIES, ROWS, TOLERANCE, describeFamilies } from '../../support/golden_sampling.js';
import { relativeL2 } from '../../support/reference.js';

describeFamilies(
  (name) => name,
  Object.keys(FAMILIES),
  (bench, name) => {
    const { steps } = FAMILIES[name]!.options as { steps: number };

    test('a picture does not depend on those beside it in the batch', async () => {
      const both = await bench().run({ count: 2 });
      const [alone] = await bench().run({ seed: 43 });
      expect(both[1]!.data).toEqual(alone!.data);
    });

    test('classifier-free guidance at 1 is the conditional alone; against itself it changes nothing', async () => {
      const [plain] = await bench().run({ cfg: 1 });
      const [guided] = await bench().run({ cfg: 4 }, { negative: bench().text });
      expect(relativeL2(guided!.data, plain!.data)).toBeLessThan(TOLERANCE);
    });

    test('every sampler runs, the same twice', async () => {
      for (const sampler of [
        'euler_ancestral',
        'heun',
        'dpmpp_2m',
        'dpmpp_2m_sde',
        'uni_pc',
        'lcm',
        'ddim',
      ]) {
        const [first] = await bench().run({ sampler, steps: 3 });
        const [second] = await bench().run({ sampler, steps: 3 });
        expect(first!.data, sampler).toEqual(second!.data);
      }
    });

    test('progress counts blocks, steps show the denoised latents', async () => {
      const blocks: number[] = [];
      const done: number[] = [];
      await bench().run(
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
      await expect(bench().run({}, { onStep, signal: controller.signal, replays })).rejects.toMatchObject({
        code: 'ERR_CANCELLED',
      });
    });

    test('replayed from a recording: the same bits, guided and in batches too; every block is told of', async () => {
      const cases: [GenerateOptions, Partial<SampleTask>][] = [
        [{}, {}],
        [{ count: 2, sampler: 'heun' }, {}],
        [{ cfg: 4 }, { negative: { ...bench().text, hidden: bench().text.hidden.map((value) => -value) } }],
      ];
      for (const [more, task] of cases) {
        const blocks: number[] = [];
        const seen: number[] = [];
        const onBlock = (done: number, total: number) => blocks.push(done / total);
        const onStep = async (step: number, denoised: () => Promise<Planes>) => {
          seen.push((await denoised()).data.length * step);
        };
        const replayed = await bench().run(more, { ...task, replays: true, onBlock, onStep });
        expect(replayed, JSON.stringify(more)).toEqual(await bench().run(more, task));
        expect(blocks.at(-1)).toBe(1);
        expect(seen).toHaveLength(steps);
      }
    });
  },
);

describeFamilies(
  (name) => `${name}: skip-layer guidance`,
  ['sd3'],
  (bench) => {
    test('changes the picture while it is on, and without guidance by a prompt too', async () => {
      const layers = { layers: [0], scale: 2.5 };
      const [plain] = await bench().run();
      const [skipping] = await bench().run({ skipLayers: { ...layers, start: 0, end: 1 } });
      const [never] = await bench().run({ skipLayers: { ...layers, start: 1, end: 1 } });
      expect(relativeL2(skipping!.data, plain!.data)).toBeGreaterThan(1e-2);
      expect(never!.data).toEqual(plain!.data);
      const [alone] = await bench().run({ cfg: 1, skipLayers: { ...layers, start: 0, end: 1 } });
      const [cond] = await bench().run({ cfg: 1 });
      expect(relativeL2(alone!.data, cond!.data)).toBeGreaterThan(1e-2);
    });
  },
);
