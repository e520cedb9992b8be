/** Steps that repeat run as CUDA graphs, and give the bits of the ops one by one. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import { shippedModel } from '../../src/pipeline/shipped_model.js';
import { TextEncoder } from '../../src/pipeline/text_encoder.js';
import type { Device } from '../../src/runtime/device.js';
import { describeGpus, openTarget } from '../support/devices.js';
import { golden } from '../support/golden.js';

describeGpus((target) => {
  let device: Device;
  beforeAll(() => {
    device = openTarget(target);
  });
  afterAll(() => device.close());

  /** Graphs made and launched, and why the last recording is none, since the last call. */
  let before = { graphs: 0, launched: 0 };
  function graphsSince() {
    const { graphs, launched, refusal } = device.native.describe();
    const since = { graphs: graphs - before.graphs, launched: launched - before.launched, refusal };
    before = { graphs, launched };
    return since;
  }

  test('the denoising step', { timeout: 180_000 }, async () => {
    const options = { seed: 3, width: 32, height: 32, steps: 3 } as const;
    const pictures = [];
    for (const replay of ['never', 'auto'] as const) {
      await using pipeline = await ImagePipeline.load(shippedModel(), { device, replay });
      graphsSince();
      pictures.push((await pipeline.generate('a red circle', options)).pictures[0]!.picture);
      // The first step brings the weights and runs op by op, as may the second where they are late; then comes the graph.
      const { graphs, launched, refusal } = graphsSince();
      expect({ graphs, refusal }, replay).toEqual({ graphs: replay === 'auto' ? 1 : 0, refusal: '' });
      expect(replay === 'auto' ? [1, 2] : [0], replay).toContain(launched);
    }
    expect(pictures[1]).toEqual(pictures[0]);
  });

  test('an encoder in a service', { timeout: 180_000 }, async () => {
    const options = { device, input: 'ids', precision: 'bf16' } as const;
    const file = golden('encoders/t5_tiny/model.safetensors');
    await using plain = await TextEncoder.load(file, { ...options, replay: 'never' });
    await using encoder = await TextEncoder.load(file, options);
    graphsSince();
    for (const first of [3, 9, 27, 81, 5]) {
      const tokens = { ids: Int32Array.from({ length: 6 }, (_, i) => first + i), batch: 1 };
      expect(await encoder.encodeTokens(tokens)).toEqual(await plain.encodeTokens(tokens));
    }
    // The first one runs op by op, for it may be the only one of its shape.
    expect(graphsSince()).toEqual({ graphs: 1, launched: 4, refusal: '' });
  });
});
