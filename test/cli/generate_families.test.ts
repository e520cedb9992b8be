/** `kotoba generate` and `inspect` on checkpoints of every family: what they write, say and refuse. */
import { existsSync, writeFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { writeSafetensors } from '../../src/formats/write.js';
import { parseMetadata, readPicture, writePng } from '../../src/image/index.js';
import { normal } from '../support/reference.js';
import { pictureOf, PROMPT, tinyBench } from '../support/tiny_bench.js';
import { TINY, tinyModel, writeDiffusers, writeNetwork, writeSplit } from '../../bench/tiny/checkpoints.js';
import { TINY_SPIECE, TINY_T5_GGUF, tinyClip } from '../../bench/tiny/networks.js';
import { readTensors } from './read_tensors.js';
import { run } from './run.js';

const bench = tinyBench();
const SIZE = ['--size', '32', '--steps', '3', '--seed', '5', '--precision', 'fp32'] as const;

interface Report {
  readonly parts: readonly { readonly slot: string; readonly file: string }[];
  readonly settings: Readonly<Record<string, unknown>>;
}

let outputs = 0;
const newOutput = (): string => bench.path(`out-${outputs++}.png`);

async function generate(...args: readonly string[]): Promise<{ report: Report; out: string }> {
  const out = newOutput();
  const { code, stderr, json } = await run(['generate', PROMPT, '-o', out, ...SIZE, ...args, '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return { report: json() as Report, out };
}

async function infoOf(out: string) {
  const { texts } = await readPicture(out);
  return { info: parseMetadata(texts)!.info, parameters: texts.get('parameters')! };
}

let gmp: string;
let wide: string;
beforeAll(async () => {
  const { clip_l: width } = TINY;
  gmp = await writeNetwork(bench.path('gmp.safetensors'), tinyClip({ width, projection: width, seed: 3 }));
  wide = await writeNetwork(bench.path('wide.safetensors'), tinyClip({ width: 48, activation: 'gelu' }));
});

describe('what is written', () => {
  test.each([
    ['sd1', ['unet', 'clip_l', 'vae']],
    ['sdxl', ['unet', 'clip_l', 'clip_g', 'vae']],
    ['sdxl_refiner', ['unet', 'clip_g', 'vae']],
    ['sd35_medium', ['transformer', 'clip_l', 'clip_g', 't5', 'vae']],
  ] as const)('%s: the library’s picture, its parts by their names', async (kind, slots) => {
    const path = await bench.checkpoint(kind);
    const { report, out } = await generate('--model', path);
    const { width, height, rgb } = await readPicture(out);
    expect({ width, height, rgb: Uint8Array.from(rgb) }).toEqual(await pictureOf(await bench.pipeline(path)));
    expect(report.parts.map(({ slot }) => slot)).toEqual(slots);
    expect(report.settings).toMatchObject({ width: 32, steps: 3, profile: 'comfy', preset: 'base' });
    const { info, parameters } = await infoOf(out);
    expect(Object.keys(info.parts!)).toEqual(slots);
    expect(info).toMatchObject({ seed: 5, steps: 3, noise: 'cpu', profile: 'comfy' });
    expect(info).not.toHaveProperty('preset');
    // A1111 and Forge list as modules what is not in the checkpoint.
    expect(parameters).toContain(`Model: ${kind}, `);
    expect(parameters).not.toContain('Module');
  });

  test('what was said, in the picture', async () => {
    const path = await bench.checkpoint('sdxl', { name: 'sdxl_lightning_4step.safetensors' });
    const said = ['--profile', 'a1111', '--clip-skip', '1', '--negative', 'mist', '--cfg', '3'];
    const { out } = await generate('--model', path, '--clip-l', gmp, ...said);
    const { info, parameters } = await infoOf(out);
    expect(info).toMatchObject({
      preset: 'lightning',
      profile: 'a1111',
      clipSkip: 1,
      noise: 'philox',
      cfg: 3,
    });
    expect(info.parts!['clip_l']!.file).toBe('gmp.safetensors');
    expect(parameters).toMatch(/Negative prompt: mist\n.*Clip skip: 1.*Module 1: gmp, Version/s);
  });

  test('skip-layer guidance and a mask are in it too', async () => {
    const { out } = await generate('--model', await bench.checkpoint('sd35_medium'), '--slg', '2.5:0');
    expect((await infoOf(out)).info.skipLayers).toEqual({ scale: 2.5, layers: [0] });
    const mask = bench.path('mask.png');
    const half = Uint8Array.from({ length: 3 * 32 * 32 }, (_, i) => (i < 3 * 16 * 32 ? 255 : 0));
    await writePng(mask, { width: 32, height: 32, rgb: half });
    const model = await bench.checkpoint('sd1_inpainting');
    const masked = await generate('--model', model, '--image', out, '--mask', mask);
    expect((await infoOf(masked.out)).info).toMatchObject({ masked: true });
  });
});

describe('files', () => {
  test('split ones and a folder of diffusers give the checkpoint’s picture', async () => {
    const networks = tinyModel('sdxl');
    const { denoiser, vae, clip_l, clip_g } = await writeSplit(bench.path('split'), networks);
    const folder = await writeDiffusers(bench.path('diffusers'), networks);
    const [whole, split, diffusers] = [
      await generate('--model', await bench.checkpoint('sdxl')),
      await generate('--model', denoiser, '--vae', vae, '--clip-l', clip_l!, '--clip-g', clip_g!),
      await generate('--model', folder),
    ];
    const expected = await readPicture(whole.out);
    for (const { out } of [split, diffusers])
      expect(Buffer.from((await readPicture(out)).rgb).equals(Buffer.from(expected.rgb))).toBe(true);
  });

  test('T5 from a GGUF, another or none', async () => {
    const bare = await bench.checkpoint('sd3', { name: 'bare.safetensors', without: ['t5'] });
    const whole = await bench.checkpoint('sd3');
    const [own, given, none, absent] = [
      await generate('--model', whole, '--t5-tokenizer', TINY_SPIECE),
      await generate('--model', bare, '--t5', TINY_T5_GGUF),
      await generate('--model', whole, '--t5', 'none'),
      await generate('--model', bare),
    ];
    const bytes = async ({ out }: typeof own) => Buffer.from((await readPicture(out)).rgb);
    expect((await bytes(own)).equals(await bytes(given))).toBe(true);
    expect((await bytes(none)).equals(await bytes(absent))).toBe(true);
    expect((await bytes(own)).equals(await bytes(none))).toBe(false);
    expect(none.report.parts.map(({ slot }) => slot)).not.toContain('t5');
  });
});

describe('what is refused, before anything runs', () => {
  test.each<[string, 'sd1' | 'sdxl' | 'sd35_medium', string[], number, RegExp]>([
    [
      'a T5 for SD1',
      'sd1',
      ['--t5', TINY_T5_GGUF],
      2,
      /--t5 .*SD1 UNet.* takes the CLIP-L text encoder \(--clip-l\)/,
    ],
    [
      'another width',
      'sd1',
      ['--clip-l', 'WIDE'],
      1,
      /ERR_MODEL_SLOT: .*wide.* 48 values a token, but .*takes 16 from CLIP-L/,
    ],
    [
      'a precision of a part that is not there',
      'sd1',
      ['--precision', 't5=int8'],
      2,
      /--precision t5=….*unet, clip_l, vae/,
    ],
    ['a config of one', 'sdxl', ['--config', 't5={}'], 2, /--config t5=….*unet, clip_l, clip_g/],
    ['a T5 length without T5', 'sdxl', ['--t5-length', '77'], 2, /--t5-length: .*without T5/],
    ['a shift', 'sdxl', ['--shift', '3'], 2, /shift: expected none for a UNet/],
    [
      'a preset of another family',
      'sd35_medium',
      ['--preset', 'lcm'],
      2,
      /preset: expected base, turbo .*"lcm"/,
    ],
    ['skipped layers of a UNet', 'sd1', ['--slg', '2.5'], 2, /skipLayers: expected an SD3/],
    ['blocks that are not there', 'sd35_medium', ['--slg', '2:5'], 2, /blocks from 0 to 1, got 5/],
    ['a clip skip beyond the layers', 'sd1', ['--clip-skip', '9'], 2, /clipSkip: expected 1 to 2, got 9/],
    ['a size that cannot be halved', 'sd1', ['--size', '40'], 2, /multiple of 16 .*32 and 48 are near/],
    [
      'a mask without a picture',
      'sd1',
      ['--mask', 'WIDE'],
      2,
      /--mask: needs a picture to start from: --image/,
    ],
    [
      'an autoencoder of another family',
      'sd1',
      ['--vae', 'SD3'],
      1,
      /expected the autoencoder of SD1, got Flux \/ SD3 VAE/,
    ],
  ])('%s', async (_, kind, options, code, message) => {
    const sd3 = await bench.checkpoint('sd3');
    const args = options.map((arg) => (arg === 'WIDE' ? wide : arg === 'SD3' ? sd3 : arg));
    const out = newOutput();
    const result = await run([
      'generate',
      PROMPT,
      '-o',
      out,
      '--model',
      await bench.checkpoint(kind),
      ...args,
    ]);
    expect(result).toMatchObject({ code, stdout: '', stderr: expect.stringMatching(message) as string });
    expect(result.stderr).not.toMatch(/\n\s+at |undefined/);
    expect(existsSync(out)).toBe(false);
  });

  test('a UNet alone: every missing part with its option', async () => {
    const { denoiser } = await writeSplit(bench.path('alone'), tinyModel('sdxl'));
    const { code, stderr } = await run(['generate', PROMPT, '--model', denoiser]);
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /missing: .*\(--clip-l FILE\), .*\(--clip-g FILE\) and the autoencoder \(--vae FILE\)/,
    );
  });

  test('a model that cannot do without T5', async () => {
    const { code, stderr } = await run(['generate', PROMPT, '--t5', 'none']);
    expect(code).toBe(2);
    expect(stderr).toMatch(/--t5 none: Flux\.1 .* cannot do without a T5: leave the option out/);
  });
});

test('what of a prompt had no effect is said, once a prompt', async () => {
  const file = bench.path('prompts.txt');
  const long = Array.from({ length: 100 }, (_, i) => 'abcdefgh'[i % 8]).join(' ');
  writeFileSync(file, `${long}\nshort\n`);
  const model = await bench.checkpoint('sd1');
  const args = ['--model', model, '--profile', 'bfl', '--prompt-file', file, '-o', bench.path('said/')];
  const { code, stderr } = await run(['generate', ...args, ...SIZE]);
  expect(code).toBe(0);
  expect(stderr).toMatch(/^kotoba: warning: clip_l: the last 25 tokens of prompt 1 \("a b.*\) had no effect/);
  expect(stderr.match(/warning/g)).toHaveLength(1);
});

test('inspect says what makes pictures with a file, and what is missing', async () => {
  const whole = await run(['inspect', await bench.checkpoint('sdxl')]);
  expect(whole.stdout).toMatch(/\$ kotoba generate "[^"]+" --model \S+sdxl\.safetensors\n/);
  expect(whole.stdout).toMatch(/unet +SDXL UNet.*attends to tokens of 40.*predicts the noise \(eps\)/s);
  const v = await bench.checkpoint('sd1', {
    name: 'v.safetensors',
    markers: ['v_pred', 'ztsnr'],
    without: ['clip_l', 'vae'],
  });
  const { stdout } = await run(['inspect', v]);
  expect(stdout).toMatch(/predicts\s+velocities \(v\), from pure noise on/);
  expect(stdout).toMatch(
    /kotoba generate .*--model \S+ --clip-l clip_l\.safetensors --vae vae\.safetensors\n/,
  );
});

test('forward runs a UNet out of a checkpoint, and out of a folder of diffusers', async () => {
  const [inputs, output] = [bench.path('in.safetensors'), bench.path('forward.safetensors')];
  const tensor = (shape: number[]) => {
    const count = shape.reduce((a, b) => a * b, 1);
    return { data: normal(count, count), shape };
  };
  const given = { x: [2, 4, 4, 4], context: [2, 3, TINY.clip_l], timesteps: [2] };
  const tensors = Object.entries(given).map(([name, shape]) => [name, tensor(shape)] as const);
  await writeSafetensors(inputs, new Map(tensors));
  const forward = async (file: string) => {
    const args = [file, '--slot', 'unet', '--inputs', inputs, '-o', output];
    const { code, stderr } = await run(['forward', ...args]);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    return readTensors(output).tensors.get('out')!;
  };
  const folder = await writeDiffusers(bench.path('forwarded'), tinyModel('sd1'));
  const expected = await forward(await bench.checkpoint('sd1'));
  expect(await forward(folder)).toEqual(expected);
  expect(await forward(`${folder}/unet`)).toEqual(expected);
});
