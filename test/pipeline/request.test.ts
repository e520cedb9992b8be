/** Options of a request: defaults, and every value that is refused. */
import { describe, expect, test } from 'vitest';
import type { FluxConfig } from '../../src/formats/index.js';
import type { GenerateOptions } from '../../src/pipeline/image_types.js';
import { resolveRequest } from '../../src/pipeline/request.js';

const schnell = { guidance_embed: false } as FluxConfig;
const dev = { guidance_embed: true } as FluxConfig;
const picture = { width: 4, height: 4, rgb: new Uint8Array(48) };

describe('defaults', () => {
  test('schnell: 4 even steps, no guidance', () => {
    const request = resolveRequest({}, schnell, 1024);
    expect(request).toMatchObject({ width: 1024, height: 1024, steps: 4, sampler: 'euler', cfg: 1 });
    expect(request.sigmas).toEqual([1, 0.75, 0.5, 0.25, 0]);
    expect(request.guidance).toBeUndefined();
    expect(request.seeds).toHaveLength(1);
  });

  test('dev: 28 steps shifted by the size of the picture, guidance 3.5', () => {
    const large = resolveRequest({}, dev, 1024);
    const small = resolveRequest({ width: 256, height: 256 }, dev, 1024);
    expect(large).toMatchObject({ steps: 28, guidance: 3.5 });
    expect(large.sigmas[14]).toBeGreaterThan(small.sigmas[14]!);
  });

  test('random seeds differ', () => {
    const seeds = Array.from({ length: 4 }, () => resolveRequest({}, schnell, 64).seeds[0]);
    expect(new Set(seeds).size).toBeGreaterThan(1);
  });

  test('picture i has seed + i, wrapping at 2^64', () => {
    expect(resolveRequest({ seed: 2n ** 64n - 1n, count: 2 }, schnell, 64).seeds).toEqual([
      2n ** 64n - 1n,
      0n,
    ]);
  });

  test('strength leaves out the first steps', () => {
    const { sigmas } = resolveRequest({ image: picture, strength: 0.5 }, schnell, 64);
    expect(sigmas).toEqual([0.5, 0.25, 0]);
  });
});

test.each<[GenerateOptions, RegExp]>([
  [{ width: 100 }, /width.*multiple of 16.*96 and 112/],
  [{ height: 0 }, /height/],
  [{ width: 1e9 }, /width.*16384/],
  [{ width: NaN }, /width/],
  [{ steps: 0 }, /steps/],
  [{ steps: 1.5 }, /steps/],
  [{ seed: -1 }, /seed/],
  [{ seed: 0.5 }, /seed/],
  [{ seed: 2n ** 64n }, /seed/],
  [{ count: 0 }, /count/],
  [{ sampler: 'eulr' }, /eulr.*euler/],
  [{ schedule: 'karas' }, /karas.*karras/],
  [{ guidance: NaN }, /guidance/],
  [{ cfg: -1 }, /cfg/],
  [{ negativePrompt: 'blurry' }, /negativePrompt.*cfg/],
  [{ strength: 0.5 }, /strength.*image/],
  [{ image: picture, strength: 0 }, /strength/],
  [{ image: picture, strength: 2 }, /strength/],
  [{ noise: 'cuda' as 'torch' }, /noise.*torch or philox/],
  [{ tile: 3 }, /tile/],
])('refused: %o', (options, message) => {
  expect(() => resolveRequest(options, dev, 1024)).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) as string }),
  );
});
