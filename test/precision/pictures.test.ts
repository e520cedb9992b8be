/** The shipped model's pictures at 16 bits on GPUs: close to those of fp32, and as right as the scorer finds those. */
import { expect, test } from 'vitest';
import { pictureDistance } from '../../src/image/index.js';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import { shippedModel } from '../../src/pipeline/shipped_model.js';
import { Device } from '../../src/runtime/device.js';
import { heldOut, judgePrompts } from '../pictures/adherence.js';
import { describeGpus, openTarget } from '../support/devices.js';
import type { SixteenBits } from '../support/rounded_ops.js';

/** dB against fp32; the first prompt of the demo reaches 71 and 61. A wrong kernel, not a rounded one, costs more. */
const CLOSE: Readonly<Record<SixteenBits, number>> = { fp16: 55, bf16: 42 };
/** One with an object, one with two: a simulated picture takes half a minute. */
const PROMPTS = [1, 2].map((count) => heldOut.prompts.find(({ objects }) => objects.length === count)!);

describeGpus((target) => {
  test.each<SixteenBits>(['fp16', 'bf16'])('%s', { timeout: 300_000 }, async (precision) => {
    await using cpu = Device.open('cpu');
    await using gpu = openTarget(target);
    await using exact = await ImagePipeline.load(shippedModel(), { device: cpu, precision: 'fp32' });
    const { denoiser, vae, encoders } = shippedModel();
    const model = {
      denoiser,
      vae,
      encoders: { clip_l: { ...encoders.clip_l, precision }, t5: { ...encoders.t5, precision } },
    };
    await using pipeline = await ImagePipeline.load(model, { device: gpu, precision });
    expect(pipeline.precisions).toEqual({
      denoiser: precision,
      vae: precision,
      clip_l: precision,
      t5: precision,
    });
    const judged = await judgePrompts(pipeline, PROMPTS);
    const reference = await judgePrompts(exact, PROMPTS);
    for (const [i, { prompt, picture, judgement }] of judged.entries()) {
      const { psnr } = pictureDistance(picture, reference[i]!.picture);
      expect(psnr, `${prompt}: ${psnr} dB`).toBeGreaterThan(CLOSE[precision]);
      expect(judgement.correct, prompt).toBe(reference[i]!.judgement.correct);
    }
    expect(reference.every(({ judgement }) => judgement.correct)).toBe(true);
  });
});
