/** `kotoba compare` on checkpoints that bundle their encoders: another encoder, another precision, none. */
import { readdirSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { parseMetadata, readPicture } from '../../src/image/index.js';
import { tinyBench } from '../support/tiny_bench.js';
import { TINY, writeNetwork } from '../../bench/tiny/checkpoints.js';
import { TINY_T5_GGUF, tinyClip } from '../../bench/tiny/networks.js';
import { run } from './run.js';

const bench = tinyBench();
const SIZE = ['--size', '32', '--steps', '2', '--force'] as const;

interface Report {
  readonly columns: readonly {
    readonly label: string;
    readonly encoders: Readonly<Record<string, { path: string }>>;
  }[];
  readonly cells: readonly {
    readonly column: string;
    readonly mae: number;
    readonly embedding: Readonly<Record<string, { relativeL2: number } | null>>;
  }[];
  readonly settings: Readonly<Record<string, unknown>>;
}

async function compare(...args: readonly string[]): Promise<Report> {
  const command = ['compare', 'a sparrow', '-o', bench.path('grid.png'), ...SIZE, ...args, '--json'];
  const { code, stderr, json } = await run(command);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return json() as Report;
}

const labels = ({ columns }: Report): string[] => columns.map(({ label }) => label);

let gmp: string;
let other: string;
beforeAll(async () => {
  const { clip_l: width } = TINY;
  gmp = await writeNetwork(bench.path('gmp.safetensors'), tinyClip({ width, projection: width, seed: 3 }));
  other = await writeNetwork(
    bench.path('other.safetensors'),
    tinyClip({ width, projection: width, seed: 4 }),
  );
});

describe('columns', () => {
  test.each(['sd1', 'sdxl', 'sd3'] as const)('%s: the model’s own CLIP-L against another', async (kind) => {
    const report = await compare('--model', await bench.checkpoint(kind), '--clip-l', gmp);
    expect(labels(report)).toEqual([kind, 'gmp']);
    const [, cell] = report.cells;
    expect(cell!.mae).toBeGreaterThan(1);
    expect(cell!.embedding['clip_l']!.relativeL2).toBeGreaterThan(0.1);
    if (kind !== 'sd1') expect(cell!.embedding['clip_g']!.relativeL2).toBe(0);
  });

  test('two files, and one encoder at two precisions', async () => {
    const model = ['--model', await bench.checkpoint('sdxl')];
    expect(labels(await compare(...model, '--clip-l', gmp, '--clip-l', `${other}@int8`))).toEqual([
      'gmp fp32',
      'other int8',
    ]);
    const rounded = await compare(...model, '--precision', 'fp32', '--precision', 'clip_g=int8');
    expect(labels(rounded)).toEqual(['CLIP-G fp32', 'CLIP-G int8']);
    expect(rounded.cells[1]!.embedding['clip_l']!.relativeL2).toBe(0);
    expect(rounded.cells[1]!.embedding['clip_g']!.relativeL2).toBeGreaterThan(0);
  });

  test('SD3 with and without T5, in either order', async () => {
    const model = ['--model', await bench.checkpoint('sd3')];
    const cells = bench.path('cells');
    const without = await compare(...model, '--t5', 'none', '--cells', cells);
    expect(labels(without)).toEqual(['sd3', 'no T5']);
    expect(without.cells[1]!.mae).toBeGreaterThan(1);
    expect(without.cells[1]!.embedding['t5']).toBe(null);
    const [first, second] = readdirSync(cells).sort();
    const partsOf = async (name: string) =>
      Object.keys(parseMetadata((await readPicture(`${cells}/${name}`)).texts)!.info.parts!);
    expect(await partsOf(first!)).toContain('t5');
    expect(await partsOf(second!)).not.toContain('t5');
    const withIt = await compare(...model, '--t5', 'none', '--t5', TINY_T5_GGUF);
    expect(labels(withIt)).toEqual(['no T5', 'model.f32']);
    expect(withIt.cells[1]!.mae).toBeCloseTo(without.cells[1]!.mae, 5);
    expect(withIt.cells[1]!.embedding['t5']).toBe(null);
  });

  test('how the pictures were made is told', async () => {
    const path = await bench.checkpoint('sd1', { name: 'some_lcm.safetensors' });
    const report = await compare('--model', path, '--clip-l', gmp, '--profile', 'a1111');
    expect(report.settings).toMatchObject({ preset: 'lcm', profile: 'a1111', noise: 'philox', cfg: 1 });
  });
});

test('on a terminal: what differs, and what an artist should look at', async () => {
  const args = ['--model', await bench.checkpoint('sdxl'), '--clip-l', gmp, ...SIZE];
  const { code, stdout } = await run(['compare', 'a sparrow', '-o', bench.path('grid.png'), ...args]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^embeddings +CLIP-L rel\. L2 +cosine +prompt$/m); // CLIP-G is the same: it is left out
  expect(stdout).toMatch(/^reference +sdxl$/m);
});

describe('what is refused', () => {
  test.each<[string, 'sd1' | 'sdxl', string[], RegExp]>([
    ['nothing to compare', 'sdxl', [], /nothing to compare: give /],
    [
      'none for a model without T5',
      'sd1',
      ['--t5', 'none'],
      /SD1 UNet.* takes the CLIP-L text encoder \(--clip-l\)/,
    ],
    ['a CLIP-G for SD1', 'sd1', ['--clip-g', 'GMP'], /--clip-g .*takes the CLIP-L text encoder/],
  ])('%s', async (_, kind, options, message) => {
    const args = options.map((arg) => (arg === 'GMP' ? gmp : arg));
    const result = await run(['compare', 'x', '--model', await bench.checkpoint(kind), ...args]);
    expect(result).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(message) as string });
  });
});
