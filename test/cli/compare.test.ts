/** `kotoba compare` on the small model that ships: which columns a command line means, the grid, the numbers. */
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  compareColumns,
  parseEncoderFile,
  parsePrecisionEntry,
  shortNames,
} from '../../src/cli/compare_columns.js';
import { parseMetadata, pictureDistance, readPicture } from '../../src/image/index.js';
import { shippedModel } from '../../src/pipeline/shipped_model.js';
import { golden } from '../support/golden.js';
import { run, temporaryFolder } from './run.js';

const PROMPT = 'a green triangle to the left of a red circle';
const dir = temporaryFolder();
const model = shippedModel();
const shipped = dirname(model.denoiser);

interface Cell {
  column: string;
  columnIndex: number;
  prompt: string;
  seed: string;
  mae: number;
  psnr: number | null;
  ssim: number;
  belowSeedNoise: boolean | null;
  embedding: { t5: { relativeL2: number; worstCosine: number }; clip_l: { relativeL2: number } };
  file?: string;
}
interface Report {
  reference: string;
  columns: { label: string }[];
  seedNoise: ({ mae: number; psnr: number; ssim: number; pairs: number } | null)[];
  cells: Cell[];
  encodes: number;
  pictures: number;
}

async function compare(...args: string[]): Promise<Report> {
  const { code, stderr, json } = await run(['compare', ...args, '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return json() as Report;
}

describe('what it makes', () => {
  test('without any axis: the ordinary T5 that ships against the better one', async () => {
    const out = dir.join('default.png');
    const report = await compare(PROMPT, '-o', out);
    expect(report.columns.map(({ label }) => label)).toEqual(['t5', 'flan_t5']);
    const [reference, better] = report.cells;
    expect(reference).toMatchObject({ mae: 0, psnr: null, ssim: 1 });
    expect(better!.mae).toBeGreaterThan(0);
    expect(better!.embedding.t5.relativeL2).toBeGreaterThan(0);
    expect(better!.embedding.clip_l.relativeL2).toBe(0);
    expect(report.seedNoise[0], 'measured by a seed of its own').toMatchObject({ pairs: 1 });
    expect(report).toMatchObject({ pictures: 3, encodes: 3 });
    const grid = await readPicture(out);
    expect(grid.width).toBeGreaterThan(2 * 160);
  });

  test('a file compared with itself is exactly 0', async () => {
    const out = dir.join('itself.png');
    const { cells, encodes } = await compare(PROMPT, '--t5', 't5', '--t5', 't5', '--seeds', '1,2', '-o', out);
    expect(cells).toHaveLength(4);
    for (const cell of cells) {
      expect(cell).toMatchObject({ mae: 0, psnr: null, ssim: 1, belowSeedNoise: true });
      expect(cell.embedding.t5).toEqual({ relativeL2: 0, worstCosine: 1 });
    }
    expect(encodes, 'one T5 and one CLIP').toBe(2);
  });

  test('every cell is the picture that generate makes, and carries its settings', async () => {
    const cells = dir.join('cells');
    const args = ['--t5', 't5', '--t5', 'flan_t5@int8', '--seeds', '1,5', '--cells', cells];
    const report = await compare(PROMPT, 'a blue star', ...args, '-o', dir.join('cells.png'));
    expect(report.cells).toHaveLength(8);
    expect(readdirSync(cells).sort()).toEqual(
      ['1-1-t5-fp32-1', '1-2-flan-t5-int8-1', '2-1-t5-fp32-5', '2-2-flan-t5-int8-5']
        .flatMap((name) => `${name}.png`)
        .concat(
          ['3-1-t5-fp32-1', '3-2-flan-t5-int8-1', '4-1-t5-fp32-5', '4-2-flan-t5-int8-5'].map(
            (name) => `${name}.png`,
          ),
        ),
    );
    const cell = report.cells.find(
      ({ columnIndex, seed, prompt }) => columnIndex === 1 && seed === '5' && prompt === PROMPT,
    )!;
    const one = dir.join('one.png');
    await run(['generate', PROMPT, '--seed', '5', '--t5', 'flan_t5', '--precision', 't5=int8', '-o', one]);
    const [made, alone] = [await readPicture(cell.file!), await readPicture(one)];
    expect(pictureDistance(made, alone).mae).toBe(0);
    expect(parseMetadata(made.texts)).toEqual(parseMetadata(alone.texts));
    const reference = await readPicture(join(cells, '2-1-t5-fp32-5.png'));
    expect(cell.mae).toBe(pictureDistance(made, reference).mae);
  });

  test('encodes are distinct encoder × prompt; seed noise comes from the seeds given', async () => {
    const args = [
      '--t5',
      't5',
      '--t5',
      'flan_t5',
      '--precision',
      'fp32',
      '--precision',
      'int8',
      '--seeds',
      '1,2,3',
    ];
    const report = await compare(PROMPT, 'a blue star', ...args, '-o', dir.join('axes.png'));
    expect(report.columns.map(({ label }) => label)).toEqual([
      't5 fp32',
      't5 int8',
      'flan_t5 fp32',
      'flan_t5 int8',
    ]);
    expect(report).toMatchObject({ pictures: 24, encodes: 2 * (4 + 2) });
    expect(report.seedNoise.map((noise) => noise?.pairs)).toEqual([8, 8]);
    for (const { mae, psnr, ssim, belowSeedNoise, prompt } of report.cells) {
      const noise = report.seedNoise[prompt === PROMPT ? 0 : 1]!;
      const isWithin = mae <= noise.mae && (psnr ?? Infinity) >= noise.psnr && ssim >= noise.ssim;
      expect(belowSeedNoise).toBe(isWithin);
    }
  });

  test('--report writes what --json prints', async () => {
    const file = dir.join('report.json');
    const { stdout } = await run([
      'compare',
      PROMPT,
      '--report',
      file,
      '-o',
      dir.join('report.png'),
      '--json',
    ]);
    expect(readFileSync(file, 'utf8')).toBe(stdout);
  });

  test('tables for people', async () => {
    const out = dir.join('people.png');
    const { code, stdout, stderr } = await run(['compare', PROMPT, '--seeds', '1,2', '-o', out]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/pictures +MAE +PSNR dB +SSIM +seed +prompt\n/);
    expect(stdout).toMatch(/flan_t5( +[\d.]+){3} +(within seed noise +)?1 +a green triangle/);
    expect(stdout).toMatch(/embeddings +T5 rel\. L2 +worst cosine +prompt\n/);
    expect(stdout).toMatch(/made +4 pictures of 64 × 64 in 4 steps of euler, from 3 encodes/);
    expect(stdout).toMatch(/seed noise +MAE [\d.]+/);
    expect(stdout).toContain(out);
  });
});

describe('which columns a command line means', () => {
  const own = { ...model.encoders, t5: model.encoders.t5.path, clip_l: model.encoders.clip_l.path };
  const labels = (options: Parameters<typeof compareColumns>[0]): string[] =>
    compareColumns(options, own, [shipped], { isGpu: false }).map(({ label }) => label);
  const files = (...names: string[]) => names.map((name) => ({ name }));

  test('a single other encoder against the model’s own', () => {
    expect(labels({ t5: files('t5') })).toEqual(['flan_t5', 't5']);
  });

  test('precisions alone, for both encoders or for one', () => {
    const entries = (...texts: string[]) =>
      texts.reduce(
        (all, text) => parsePrecisionEntry(text, all),
        [] as ReturnType<typeof parsePrecisionEntry>,
      );
    expect(labels({ precision: entries('fp32', 'int8') })).toEqual(['fp32', 'int8']);
    expect(labels({ precision: entries('fp32', 't5=int8') })).toEqual(['T5 fp32', 'T5 int8']);
    expect(labels({ precision: entries('t5=int8,clip_l=fp32', 't5=fp32,clip_l=int8') })).toEqual([
      'T5 int8 + CLIP-L fp32',
      'T5 fp32 + CLIP-L int8',
    ]);
  });

  test('a precision on a file outranks the others; an @ in a name is none', () => {
    const columns = compareColumns(
      {
        t5: [{ name: 't5', precision: 'int8' }, { name: 'flan_t5' }],
        precision: [{ all: 'fp32', slots: new Map() }],
      },
      own,
      [shipped],
      { isGpu: false },
    );
    expect(columns.map(({ encoders }) => encoders.t5)).toMatchObject([
      { precision: 'int8' },
      { precision: 'fp32' },
    ]);
    expect(parseEncoderFile('a.gguf@int8')).toEqual([{ name: 'a.gguf', precision: 'int8' }]);
    expect(parseEncoderFile('me@home/a.gguf')).toEqual([{ name: 'me@home/a.gguf' }]);
    expect(parseEncoderFile('a@v2.gguf')).toEqual([{ name: 'a@v2.gguf' }]);
    writeFileSync(dir.join('a@int8'), '');
    expect(parseEncoderFile(dir.join('a@int8'))).toEqual([{ name: dir.join('a@int8') }]);
  });

  test('names are short, and tell files of one name apart', () => {
    const names = shortNames([
      '/m/t5xxl-Q8_0.gguf',
      '/a/model.safetensors',
      '/b/model.safetensors',
      '/c/flan_t5',
    ]);
    expect([...names.values()]).toEqual(['t5xxl-Q8_0', 'a/model', 'b/model', 'flan_t5']);
  });
});

describe('what is refused, before anything runs', () => {
  const t5 = golden('encoders/t5_tiny_gguf/model.f32.gguf');
  const { denoiser, vae, encoders } = model;
  test.each<[string, string[], number, RegExp]>([
    [
      'one column only',
      ['--model', denoiser, '--vae', vae, '--clip-l', encoders.clip_l.path, '--t5', 't5'],
      2,
      /nothing to compare/,
    ],
    [
      'a T5 of another width, named second',
      ['--t5', 't5', '--t5', t5],
      1,
      /ERR_MODEL_SLOT: .*64 values.*128/,
    ],
    ['a CLIP as T5', ['--t5', encoders.clip_l.path], 1, /ERR_MODEL_SLOT: --t5 .*that is for --clip-l/],
    [
      'missing parts',
      ['--model', denoiser, '--t5', 't5', '--t5', 'flan_t5'],
      2,
      /CLIP-L text encoder \(--clip-l FILE\) and the autoencoder \(--vae FILE\)/,
    ],
    ['an unknown precision of a file', ['--t5', 't5@int4'], 2, /auto, fp32, int8/],
    [
      'a precision of the transformer',
      ['--precision', 'transformer=int8'],
      2,
      /\(clip_l, clip_g, clip_h, t5\), got "transformer"/,
    ],
    ['seeds that are none', ['--seeds', '1,x'], 2, /whole number/],
    ['a seed twice', ['--seeds', '1,2,1'], 2, /different seeds/],
    ['an unknown sampler', ['--sampler', 'x'], 2, /Allowed choices are euler/],
    ['a size between multiples of 16', ['--size', '100'], 2, /96 and 112/],
    ['a report in no folder', ['--report', '/nope/x.json'], 1, /ERR_FILE_WRITE: --report/],
    ['cells below a file', ['--cells', join(denoiser, 'x')], 1, /ERR_FILE_WRITE: --cells/],
  ])('%s', async (_, options, code, message) => {
    const out = dir.join('refused.png');
    const result = await run(['compare', PROMPT, '-o', out, ...options]);
    expect(result).toMatchObject({ code, stdout: '', stderr: expect.stringMatching(message) as string });
    expect(existsSync(out)).toBe(false);
  });

  test('a column that does not fit, before any other column is drawn', async () => {
    const args = ['--t5', 't5', '--t5', t5, '-o', dir.join('late.png')];
    const { code, stderr } = await run(['compare', PROMPT, ...args], { terminal: 100 });
    expect(code).toBe(1);
    expect(stderr).not.toContain('drawing');
  });

  test('outputs that are there, or no PNG', async () => {
    const out = dir.join('there.png');
    writeFileSync(out, 'mine');
    const refused = await run(['compare', PROMPT, '-o', out]);
    expect(refused).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/ERR_FILE_EXISTS.*--force/) as string,
    });
    expect(readFileSync(out, 'utf8')).toBe('mine');
    const cells = dir.join('there');
    mkdirSync(cells);
    const folder = await run(['compare', PROMPT, '-o', dir.join('new.png'), '--cells', cells]);
    expect(folder).toMatchObject({ code: 1, stderr: expect.stringContaining('--cells') as string });
    expect(await run(['compare', PROMPT, '-o', 'grid.jpg'])).toMatchObject({ code: 2 });
  });
});

test('Ctrl-C in the middle: 130, and nothing is left', async () => {
  const folder = dir.join('cancelled');
  mkdirSync(folder);
  const files = [
    '-o',
    join(folder, 'grid.png'),
    '--cells',
    join(folder, 'cells'),
    '--report',
    join(folder, 'r.json'),
  ];
  const result = await run(['compare', PROMPT, '--seeds', '1,2,3,4', '--steps', '100', ...files], {
    terminal: 100,
    interruptAt: /2\/8 t5: drawing/,
  });
  expect(result).toMatchObject({ code: 130, stdout: '' });
  expect(result.stderr).toContain('ERR_CANCELLED');
  expect(result.stderr, 'it does not run to its end first').not.toContain('8/8');
  expect(readdirSync(folder)).toEqual([]);
});
