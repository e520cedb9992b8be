/** A1111's text as web UIs write and read it, and our JSON: what goes in comes back. */
import { expect, test } from 'vitest';
import { formatInfotext, parseInfotext } from '../../src/image/infotext.js';
import { metadataTexts, parseMetadata, type GenerationInfo } from '../../src/image/metadata.js';
import { decodePng, encodePng } from '../../src/image/png.js';

const INFO: GenerationInfo = {
  prompt: 'a red circle, on blue: "quoted"\nsecond line 言葉',
  negativePrompt: 'blurry, text',
  seed: 4294967296,
  width: 64,
  height: 96,
  steps: 4,
  solver: 'dpmpp_2m',
  schedule: 'sgm_uniform',
  sigmas: [1, 0.75, 0.5, 0.25, 0],
  cfg: 1,
  guidance: 3.5,
  strength: 0.6,
  noise: 'cpu',
  device: 'cpu',
  parts: {
    transformer: { file: 'flux1, mine.safetensors', sha256: '0123456789abcdef'.repeat(4), precision: 'fp32' },
    vae: { file: 'ae.safetensors' },
    clip_l: { file: 'clip_l.safetensors', precision: 'fp32', dtype: 'F16' },
    t5: { file: 'flan-t5-Q8_0.gguf', precision: 'int8', dtype: 'Q8_0' },
  },
  version: '0.2.0',
};

test('the text is what A1111 and Forge write', () => {
  expect(metadataTexts(INFO).get('parameters')).toBe(
    'a red circle, on blue: "quoted"\nsecond line 言葉\n' +
      'Negative prompt: blurry, text\n' +
      'Steps: 4, Sampler: DPM++ 2M, Schedule type: SGM Uniform, CFG scale: 1, Distilled CFG Scale: 3.5, ' +
      'Seed: 4294967296, Size: 64x96, Model hash: 0123456789, Model: "flux1, mine", Denoising strength: 0.6, ' +
      'RNG: CPU, Module 1: ae, Module 2: clip_l, Module 3: flan-t5-Q8_0, Version: kotoba 0.2.0',
  );
});

test('our JSON gives everything back, through a PNG', async () => {
  const picture = { width: 1, height: 1, rgb: new Uint8Array(3) };
  const { texts } = decodePng(await encodePng(picture, metadataTexts(INFO)));
  expect(parseMetadata(texts)).toEqual({ source: 'kotoba', info: INFO });
  const { prompt, seed, width, height, steps, solver, schedule, cfg, noise, parts, version } = INFO;
  const least = { prompt, seed, width, height, steps, solver, schedule, cfg, noise, parts, version };
  expect(parseMetadata(metadataTexts(least))?.info).toEqual(least);
});

test("without it, A1111's text gives what it has", () => {
  const texts = new Map([['parameters', metadataTexts(INFO).get('parameters')!]]);
  const {
    prompt,
    negativePrompt,
    seed,
    width,
    height,
    steps,
    solver,
    schedule,
    cfg,
    guidance,
    strength,
    noise,
  } = INFO;
  expect(parseMetadata(texts)).toEqual({
    source: 'parameters',
    info: {
      ...{
        prompt,
        negativePrompt,
        seed,
        width,
        height,
        steps,
        solver,
        schedule,
        cfg,
        guidance,
        strength,
        noise,
      },
      parts: {
        transformer: { file: 'flux1, mine' },
        module_1: { file: 'ae' },
        module_2: { file: 'clip_l' },
        module_3: { file: 'flan-t5-Q8_0' },
      },
    },
  });
});

test("a web UI's own text", () => {
  const text =
    "girl with an artist's beret, (blue eyes:1.2), [desert]\nNegative prompt: ugly, bad: anatomy\n" +
    'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x768, Model hash: 45dee52b, ' +
    'Lora hashes: "a: 1b, c: \\"d\\"", Version: v1.10.1';
  const { prompt, negativePrompt, settings } = parseInfotext(text);
  expect(prompt).toBe("girl with an artist's beret, (blue eyes:1.2), [desert]");
  expect(negativePrompt).toBe('ugly, bad: anatomy');
  expect(settings.get('Lora hashes')).toBe('a: 1b, c: "d"');
  expect([...settings.keys()].length).toBe(8);
  expect(formatInfotext({ prompt, negativePrompt, settings })).toBe(text);
  expect(parseMetadata(new Map([['parameters', text]]))?.info).toMatchObject({
    solver: 'euler_ancestral',
    noise: 'philox',
    width: 512,
    height: 768,
  });
});

test.each([
  ['a,b', '"a,b"'],
  ['a:b', '"a:b"'],
  ['a\nb', '"a\\nb"'],
  ['a "b"', 'a "b"'],
  ['a, "b" \\ 言', '"a, \\"b\\" \\\\ 言"'],
])('value %j is written as %s and read back', (value, written) => {
  const settings = new Map([['Model', value], ['Steps', '1'], ['Seed', '2']]); // prettier-ignore
  const text = formatInfotext({ prompt: 'p', negativePrompt: '', settings });
  expect(text).toBe(`p\nModel: ${written}, Steps: 1, Seed: 2`);
  expect(parseInfotext(text)).toEqual({ prompt: 'p', negativePrompt: '', settings });
});

test('prompts alone, an empty text, and settings too few to be settings', () => {
  expect(parseInfotext('just: words')).toEqual({
    prompt: 'just: words',
    negativePrompt: '',
    settings: new Map(),
  });
  expect(parseInfotext('')).toEqual({ prompt: '', negativePrompt: '', settings: new Map() });
  expect(parseInfotext('Negative prompt: only').negativePrompt).toBe('only');
  expect(parseMetadata(new Map())).toBeUndefined();
});

test('values of a wrong type are left out, a broken JSON falls back, nothing reaches a prototype', () => {
  const read = (json: string) => parseMetadata(new Map([['kotoba', json], ['parameters', 'p']])); // prettier-ignore
  const json =
    '{"prompt":"x","seed":-1,"steps":"4","parts":{"t5":{"file":3}},"sigmas":[1,"2"],"__proto__":{"cfg":1},"constructor":2}';
  expect(read(json)?.info).toEqual({ prompt: 'x' });
  expect(read('{"prompt":')).toMatchObject({ source: 'parameters', info: { prompt: 'p' } });
  expect(read('[1]')?.source).toBe('parameters');
});

test('a text of a million characters takes no time', () => {
  const start = performance.now();
  for (const text of [
    'a'.repeat(1e6),
    'a '.repeat(5e5),
    '"\\'.repeat(5e5),
    'a: "b'.repeat(2e5),
    'a: b, '.repeat(1e5),
  ])
    parseInfotext(text);
  expect(performance.now() - start).toBeLessThan(20_000); // quadratic would be minutes
});

test('a seed beyond 2^53 is kept exactly, in both texts', () => {
  const seed = 2n ** 64n - 1n;
  const texts = metadataTexts({ ...INFO, seed });
  expect(texts.get('parameters')).toContain('Seed: 18446744073709551615,');
  expect(parseMetadata(texts)!.info.seed).toBe(seed);
  expect(parseMetadata(new Map([['parameters', texts.get('parameters')!]]))!.info.seed).toBe(seed);
  const small = metadataTexts({ ...INFO, seed: 7n });
  expect(JSON.parse(small.get('kotoba')!)).toMatchObject({ seed: 7 });
  expect(parseMetadata(small)!.info.seed).toBe(7);
});
