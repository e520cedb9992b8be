/** The shipped model's pictures obey held-out prompts; figures in models/README.md. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import { SHIPPED_T5, shippedModel } from '../../src/pipeline/shipped_model.js';
import { heldOut, judgePrompts, scoreOf } from './adherence.js';

/** Five points under what was reached. */
const BOUND = { one: 0.95, two: 0.95 };

let pipeline: ImagePipeline;
beforeAll(async () => {
  pipeline = await ImagePipeline.load(shippedModel());
});
afterAll(async () => {
  await pipeline[Symbol.asyncDispose]();
});

test(`${heldOut.prompts.length} held-out prompts: everything right`, async () => {
  expect(heldOut.prompts.length).toBeGreaterThanOrEqual(100);
  const score = scoreOf(await judgePrompts(pipeline, heldOut.prompts));
  expect(score.one).toBeGreaterThanOrEqual(BOUND.one);
  expect(score.two).toBeGreaterThanOrEqual(BOUND.two);
});

test('the better T5 binds attributes to their objects where the ordinary one does not', async () => {
  const two = heldOut.prompts.filter(({ objects }) => objects.length === 2);
  const better = scoreOf(await judgePrompts(pipeline, two));
  const ordinary = scoreOf(await judgePrompts(pipeline, two, { encoders: { t5: SHIPPED_T5.t5() } }));
  expect(better.all - ordinary.all).toBeGreaterThan(0.15);
});
