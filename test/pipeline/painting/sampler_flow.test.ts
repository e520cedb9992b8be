/** SD3 and Flux against golden/diffusion/e2e: noise, schedule, guidance, solver and picture together. */
import { expect, test } from 'vitest';
import { TOLERANCE, describeFamilies } from '../../support/golden_sampling.js';
import { maxAbsDifference, relativeL2 } from '../../support/reference.js';

describeFamilies(
  (name) => `golden ${name}`,
  ['sd3'],
  (bench) => {
    test.each(['euler', 'dpmpp_2m'])('%s', async (sampler) => {
      const options = { sampler, schedule: 'normal' };
      const { sigmas } = bench().request(options);
      expect(maxAbsDifference(sigmas, bench().data('sigmas_sd3infer_shift3'))).toBeLessThan(1e-6);
      const [latents] = await bench().run(options);
      expect(relativeL2(latents!.data, bench().data(`${sampler}.latent`))).toBeLessThan(TOLERANCE);
    });

    test('the picture', async () => {
      const [latents] = await bench().run({ sampler: 'dpmpp_2m', schedule: 'normal' });
      expect(relativeL2(await bench().decode(latents!), bench().data('dpmpp_2m.image'))).toBeLessThan(
        TOLERANCE,
      );
    });
  },
);

describeFamilies(
  (name) => `golden ${name}`,
  ['flux_dev', 'flux_schnell'],
  (bench) => {
    test('schedule and latents', async () => {
      const { sigmas } = bench().request();
      expect(maxAbsDifference(sigmas, bench().data('timesteps'))).toBeLessThan(1e-6);
      const [latents] = await bench().run();
      expect(relativeL2(latents!.data, bench().data('latent'))).toBeLessThan(TOLERANCE);
    });
  },
);
