/** `kotoba generate` end to end on the small model that ships: what it writes, what it says, what it refuses. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { parseMetadata, readPicture, writePng, type Picture } from '../../src/image/index.js';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import { shippedModel } from '../../src/pipeline/shipped_model.js';
import { golden } from '../support/golden.js';
import { run, temporaryFolder } from './run.js';

const PROMPT = 'a red circle on a blue background';
const dir = temporaryFolder();
const model = shippedModel();

interface Report {
  pictures: { path: string; prompt: string; seed: string; width: number; height: number; bytes: number }[];
  model: string;
  parts: { slot: string; file: string; precision: string; sha256?: string }[];
  settings: { steps: number; sampler: string; sigmas: number[] };
  encodes: number;
  seconds: Record<string, number>;
}

const sameBytes = (a: Picture, b: Picture): boolean => Buffer.from(a.rgb).equals(Buffer.from(b.rgb));

/** Runs it, and fails with what it said. */
async function generate(...args: string[]): Promise<Report> {
  const { code, stderr, json } = await run(['generate', ...args, '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return json() as Report;
}

describe('what is written', () => {
  test('the library’s picture, with how it was made inside', async () => {
    const out = dir.join('one.png');
    const report = await generate(PROMPT, '--seed', '7', '-o', out);
    const written = await readPicture(out);
    await using pipeline = await ImagePipeline.load(model);
    const { pictures, sigmas } = await pipeline.generate(PROMPT, { seed: 7 });
    expect(sameBytes(written, pictures[0]!.picture)).toBe(true);
    expect(report.pictures).toEqual([
      { path: out, prompt: PROMPT, seed: '7', width: 64, height: 64, bytes: readFileSync(out).length },
    ]);

    const info = parseMetadata(written.texts)?.info;
    expect(info).toMatchObject({
      prompt: PROMPT,
      seed: 7,
      steps: 4,
      solver: 'euler',
      schedule: 'flux',
      cfg: 1,
    });
    expect(info).toMatchObject({ width: 64, height: 64, noise: 'cpu', device: 'cpu', sigmas });
    expect(info?.version).toMatch(/^\d+\.\d+\.\d+/);
    expect(Object.keys(info!.parts!)).toEqual(['transformer', 'clip_l', 't5', 'vae']);
    const hash = createHash('sha256').update(readFileSync(model.vae)).digest('hex');
    expect(info!.parts!['vae']).toEqual({
      file: 'ae.safetensors',
      precision: 'fp32',
      dtype: 'F16',
      sha256: hash,
    });
    expect(info!.parts!['t5']!.file).toBe('flan_t5/model.safetensors');
    expect(JSON.stringify(info), 'no folder of this machine').not.toContain(dirname(model.vae));
    const text = written.texts.get('parameters')!;
    expect(text).toMatch(
      /^a red circle on a blue background\nSteps: 4, Sampler: Euler, .*Seed: 7, Size: 64x64, Model hash: [0-9a-f]{10}, /,
    );
  });

  test('without --output: named after prompt and seed, in the current folder', async () => {
    const here = process.cwd();
    const folder = dir.join('here');
    mkdirSync(folder);
    process.chdir(folder);
    try {
      const [first] = (await generate('A red circle, please!')).pictures;
      expect(first!.path).toMatch(/^a-red-circle-please-\d+\.png$/);
      expect(readdirSync(folder)).toEqual([first!.path]);
    } finally {
      process.chdir(here);
    }
  });

  test('several seeds are numbered, and each is the picture of its seed alone', async () => {
    const report = await generate(PROMPT, '--seed', '3', '--count', '2', '-o', dir.join('seeds.png'));
    expect(report.pictures.map(({ path, seed }) => [path, seed])).toEqual([
      [dir.join('seeds-1.png'), '3'],
      [dir.join('seeds-2.png'), '4'],
    ]);
    expect(report.encodes).toBe(2);
    await generate(PROMPT, '--seed', '4', '-o', dir.join('four.png'));
    const [third, second, alone] = await Promise.all(
      ['seeds-1.png', 'seeds-2.png', 'four.png'].map((name) => readPicture(dir.join(name))),
    );
    expect(sameBytes(second!, alone!)).toBe(true);
    expect(sameBytes(third!, second!)).toBe(false);
  });

  test('several prompts, into a folder that is made; a file of prompts', async () => {
    const file = dir.join('prompts.txt');
    writeFileSync(file, 'a green star\n');
    const folder = dir.join('new', 'folder/');
    const report = await generate('a red ring', '--prompt-file', file, '--seed', '5', '-o', folder);
    expect(report.pictures.map(({ path }) => path)).toEqual([
      join(folder, 'a-red-ring-5.png'),
      join(folder, 'a-green-star-5.png'),
    ]);
    expect(readdirSync(folder).sort()).toEqual(['a-green-star-5.png', 'a-red-ring-5.png']);
  });

  test('another T5 by its name, parts at precisions of their own', async () => {
    const options = ['--precision', 'fp32', '--precision', 't5=int8', '-o', dir.join('parts.png')];
    const report = await generate(PROMPT, '--t5', 't5', ...options);
    expect(report.parts.map(({ slot, precision }) => `${slot} ${precision}`)).toEqual([
      'transformer fp32',
      'clip_l fp32',
      't5 int8',
      'vae fp32',
    ]);
    expect(report.parts[2]!.file).toBe(join(dirname(model.denoiser), 't5'));
    const other = await generate(PROMPT, '--precision', 'transformer=int8', '-o', dir.join('int8.png'));
    expect(other.parts.map(({ precision }) => precision)).toEqual(['int8', 'fp32', 'fp32', 'int8']);
    const apart = ['--precision', 'int8', '--precision', 'vae=fp32', '-o', dir.join('apart.png')];
    const last = await generate(PROMPT, ...apart);
    expect(last.parts.map(({ precision }) => precision)).toEqual(['int8', 'int8', 'int8', 'fp32']);
    expect(report.model).toBe('shipped');
  });

  test('size, steps, sampler and schedule as asked', async () => {
    const size = ['--size', '96x48', '--steps', '3', '--sampler', 'heun', '--schedule', 'karras'];
    const report = await generate(PROMPT, ...size, '-o', dir.join('size.png'));
    expect(report.settings).toMatchObject({
      width: 96,
      height: 48,
      steps: 3,
      sampler: 'heun',
      schedule: 'karras',
    });
    expect(report.settings.sigmas).toHaveLength(4);
    expect(await readPicture(dir.join('size.png'))).toMatchObject({ width: 96, height: 48 });
    const wide = await generate(PROMPT, '--width', '80', '--height', '64', '-o', dir.join('wide.png'));
    expect(wide.pictures[0]).toMatchObject({ width: 80, height: 64 });
  });

  test('what else decides a picture is in it too: a seed of 64 bits, dialect, T5’s length', async () => {
    const out = dir.join('all.png');
    const seed = '18446744073709551615';
    await generate(
      PROMPT,
      '--seed',
      seed,
      '--dialect',
      'a1111',
      '--t5-length',
      'sd3',
      '--noise',
      'philox',
      '-o',
      out,
    );
    const { texts } = await readPicture(out);
    expect(parseMetadata(texts)?.info).toMatchObject({
      seed: BigInt(seed),
      dialect: 'a1111',
      t5Length: 'sd3',
      noise: 'philox',
    });
    expect(texts.get('parameters')).toContain(`Seed: ${seed},`);
  });

  test('from a picture: the less strength, the nearer to it', async () => {
    const start = { width: 64, height: 64, rgb: new Uint8Array(64 * 64 * 3).fill(200) };
    const image = dir.join('start.png');
    await writePng(image, start);
    const distance = async (strength: string): Promise<number> => {
      const out = dir.join(`strength-${strength}.png`);
      await generate(PROMPT, '--image', image, '--strength', strength, '--seed', '1', '-o', out);
      const { rgb, texts } = await readPicture(out);
      expect(parseMetadata(texts)?.info.strength).toBe(Number(strength));
      return rgb.reduce((sum, value) => sum + Math.abs(value - 200), 0);
    };
    expect(await distance('0.25')).toBeLessThan(await distance('1'));
  });

  test('every all-in-one part can be swapped: the model given part by part is the same picture', async () => {
    const { denoiser, vae, encoders } = model;
    const clip = ['--clip-l', encoders.clip_l.path, '--t5', encoders.t5.path];
    await generate(
      PROMPT,
      '--model',
      denoiser,
      '--vae',
      vae,
      ...clip,
      '--seed',
      '7',
      '-o',
      dir.join('given.png'),
    );
    await generate(PROMPT, '--seed', '7', '-o', dir.join('shipped.png'));
    const [a, b] = [await readPicture(dir.join('given.png')), await readPicture(dir.join('shipped.png'))];
    expect(sameBytes(a, b)).toBe(true);
  });
});

describe('what is said', () => {
  test('which files at which precision, how long each phase took, where to look', async () => {
    const out = dir.join('said.png');
    const { code, stdout, stderr } = await run(['generate', PROMPT, '--seed', '9', '-o', out]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^The small model that ships with Kotoba .*--model/);
    for (const slot of ['transformer', 'clip_l', 't5', 'vae'])
      expect(stdout).toMatch(new RegExp(`^${slot} +fp32 `, 'm'));
    for (const file of [model.denoiser, model.vae]) expect(stdout).toContain(file);
    expect(stdout).toMatch(/picture +64 × 64, 4 steps of euler, schedule flux/);
    expect(stdout).toMatch(
      /took +[\d.]+ m?s \(load .*, encode .*, sample .*, decode .*\), at most .* of memory/,
    );
    expect(stdout).toContain(`${out}  seed 9`);
  });

  test('a progress line on a terminal: phases and steps, taken away at the end', async () => {
    const { stderr } = await run(['generate', PROMPT, '-o', dir.join('tty.png')], { terminal: 100 });
    expect(stderr).toMatch(/reading the prompt/);
    expect(stderr).toMatch(/drawing +.*step 1 of 4/);
    expect(stderr.endsWith('\r\x1b[K')).toBe(true);
  });

  test('--preview: a whole PNG after each step, written again without asking, but no other file', async () => {
    const preview = dir.join('preview.png');
    for (const seed of ['1', '2'])
      await generate(PROMPT, '--seed', seed, '--preview', preview, '-o', dir.join(`previewed-${seed}.png`));
    const { texts, width } = await readPicture(preview);
    expect(texts.get('kotoba-preview')).toMatch(/^step [1-4] of 4$/);
    expect(width).toBe(64);
    const other = dir.join('previewed-1.png');
    const before = readFileSync(other);
    const refused = await run(['generate', PROMPT, '--preview', other, '-o', dir.join('no.png')]);
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('ERR_FILE_EXISTS') as string });
    expect(readFileSync(other).equals(before)).toBe(true);
  });
});

describe('what is refused, before anything runs', () => {
  const t5 = golden('encoders/t5_tiny_gguf/model.f32.gguf');
  const { denoiser, vae, encoders } = model;
  const start = (): string => dir.join('start.png');

  test.each<[string, string[], number, RegExp]>([
    [
      'an autoencoder as T5',
      ['--t5', vae],
      1,
      /ERR_MODEL_SLOT: --t5 .*T5 text encoder.*VAE.*that is for --vae/,
    ],
    ['a T5 as autoencoder', ['--vae', t5], 1, /ERR_MODEL_SLOT: --vae .*autoencoder.*that is for --t5/],
    ['a T5 as model', ['--model', t5], 1, /ERR_MODEL_SLOT: --model .*transformer.*that is for --t5/],
    ['a T5 of another width', ['--t5', t5], 1, /ERR_MODEL_SLOT: .*64 values.*128/],
    [
      'a transformer alone: every missing part with its option',
      ['--model', denoiser],
      2,
      /ERR_ARGUMENT: --model .*CLIP-L text encoder \(--clip-l FILE\), the T5 text encoder \(--t5 FILE\) and the autoencoder \(--vae FILE\)/,
    ],
    [
      'a model without T5',
      ['--model', denoiser, '--vae', vae, '--clip-l', encoders.clip_l.path],
      2,
      /missing: the T5 text encoder \(--t5 FILE\)\n/,
    ],
    ['a file that is not there', ['--t5', './nope.gguf'], 1, /ERR_FILE_NOT_FOUND: \.\/nope\.gguf/],
    ['an unknown name', ['--t5', 'flan'], 1, /ERR_FILE_NOT_FOUND: flan/],
    ['a size between multiples of 16', ['--size', '100x64'], 2, /ERR_ARGUMENT: .*100.*96 and 112/],
    ['an absurd size', ['--size', '1000000x1000000'], 2, /ERR_ARGUMENT: .*1000000/],
    ['no size', ['--size', '0x64'], 2, /ERR_ARGUMENT/],
    ['a size that is none', ['--size', 'big'], 2, /WIDTHxHEIGHT.*"big"/],
    ['size and width', ['--size', '64', '--width', '64'], 2, /cannot be used with/],
    ['an unknown sampler', ['--sampler', 'eular'], 2, /Allowed choices are euler, .*uni_pc/],
    ['an unknown schedule', ['--schedule', 'x'], 2, /Allowed choices are flux, .*kl_optimal/],
    ['no steps', ['--steps', '0'], 2, /whole number from 1/],
    ['a strength above 1', ['--image', 'IMAGE', '--strength', '1.5'], 2, /--strength: expected .*1\.5/],
    ['a strength of 0', ['--image', 'IMAGE', '--strength', '0'], 2, /--strength: expected more than 0/],
    ['a strength of nothing', ['--strength', '0.5'], 2, /--image FILE/],
    ['an image that is none', ['--image', vae], 1, /ERR_IMAGE_FORMAT.*ae\.safetensors/],
    ['a negative prompt without CFG', ['--negative', 'x'], 2, /negativePrompt: .*cfg above 1/],
    ['a CFG that is no number', ['--cfg', 'much'], 2, /expected a number, got "much"/],
    ['a seed beyond 64 bits', ['--seed', '18446744073709551616'], 2, /from 0 to 18446744073709551615/],
    ['a seed below 0', ['--seed=-1'], 2, /from 0 to/],
    [
      'a precision of a part that has none',
      ['--precision', 'clip_b=int8'],
      2,
      /transformer, unet, clip_l, t5, vae/,
    ],
    ['a precision of this device', ['--precision', 'fp16'], 2, /auto, fp32, int8/],
    ['a device of another version', ['--device', 'cuda'], 1, /ERR_DEVICE/],
  ])('%s', async (_, options, code, message) => {
    const out = dir.join('refused.png');
    if (!existsSync(start())) await writePng(start(), { width: 1, height: 1, rgb: new Uint8Array(3) });
    const args = options.map((arg) => (arg === 'IMAGE' ? start() : arg));
    const result = await run(['generate', PROMPT, '-o', out, ...args]);
    expect(result).toMatchObject({ code, stdout: '', stderr: expect.stringMatching(message) as string });
    expect(result.stderr).not.toMatch(/\n\s+at /);
    expect(existsSync(out)).toBe(false);
  });

  test.each<[string, string, number, RegExp]>([
    ['a name of another kind', 'x.jpg', 2, /expected a \.png file, or a folder.*x\.jpg/],
    ['a folder that is not there', 'nope/x.png', 1, /ERR_FILE_WRITE.*nope/],
    ['a file as folder', 'start.png/x.png', 1, /ERR_FILE_WRITE/],
    ['a folder below a file', 'start.png/', 1, /ERR_FILE_WRITE/],
  ])('output: %s', async (_, name, code, message) => {
    if (!existsSync(start())) await writePng(start(), { width: 1, height: 1, rgb: new Uint8Array(3) });
    const result = await run(['generate', PROMPT, '-o', `${dir.path}/${name}`]);
    expect(result).toMatchObject({ code, stdout: '', stderr: expect.stringMatching(message) as string });
  });

  test('an output that is there, unless --force says so', async () => {
    const out = dir.join('there.png');
    writeFileSync(out, 'mine');
    const refused = await run(['generate', PROMPT, '-o', out]);
    expect(refused).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/ERR_FILE_EXISTS.*--force/) as string,
    });
    expect(readFileSync(out, 'utf8')).toBe('mine');
    await generate(PROMPT, '-o', out, '--force');
    expect(await readPicture(out)).toMatchObject({ width: 64 });
  });

  test('a model file as output, even with --force', async () => {
    const file = dir.join('weights.png'); // a name is no proof of what is in a file
    copyFileSync(vae, file);
    const result = await run(['generate', PROMPT, '--vae', file, '-o', file, '--force']);
    expect(result).toMatchObject({ code: 1, stderr: expect.stringContaining('is an input too') as string });
    expect(readFileSync(file).equals(readFileSync(vae))).toBe(true);
  });

  test('two pictures of one name, no prompt at all', async () => {
    const twice = await run(['generate', PROMPT, '--count', '2', '-o', dir.join('{prompt}.png')]);
    expect(twice).toMatchObject({ code: 2, stderr: expect.stringMatching(/\{n\} or \{seed\}/) as string });
    expect(await run(['generate'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('prompts') as string,
    });
  });
});

test('Ctrl-C in the middle: 130, and nothing is left', async () => {
  const folder = dir.join('cancelled');
  mkdirSync(folder);
  const result = await run(['generate', PROMPT, '--steps', '200', '-o', join(folder, 'out.png')], {
    terminal: 100,
    interruptAt: /drawing/,
  });
  expect(result).toMatchObject({ code: 130, stdout: '' });
  expect(result.stderr).toContain('ERR_CANCELLED');
  expect(result.stderr, 'it does not run to its end first').not.toContain('step 150 of 200');
  expect(readdirSync(folder)).toEqual([]);
});

test('a disk that takes no more: a coded error, and nothing is left', () => {
  const folder = dir.join('full');
  mkdirSync(folder);
  const here = dirname(fileURLToPath(import.meta.url));
  const tsx = createRequire(import.meta.url).resolve('tsx');
  // A limit of 1 kB a file stands for a full disk: writing fails in the middle with EFBIG instead of ENOSPC.
  const script = 'ulimit -f 1; exec "$@"';
  const command = [process.execPath, '--import', tsx, join(here, 'kotoba_process.ts')];
  const args = ['-c', script, 'bash', ...command, 'generate', PROMPT, '-o', join(folder, 'out.png')];
  const env = { ...process.env, TSX_DISABLE_CACHE: '1' };
  const { status, stderr, stdout } = spawnSync('bash', args, { encoding: 'utf8', env });
  expect({ status, stdout, stderr }).toMatchObject({
    status: 1,
    stdout: '',
    stderr: expect.stringMatching(/^kotoba: ERR_FILE_WRITE: .*out\.png: cannot write: /) as string,
  });
  expect(readdirSync(folder)).toEqual([]);
});
