/** `kotoba demo`: everything is there, the page's links work, and the commands it shows make the same pictures. */
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { parseMetadata, pictureDistance, readPicture } from '../../src/image/index.js';
import { run, temporaryFolder, type RunResult } from './run.js';

const dir = temporaryFolder();
let demo: RunResult;
let page: string;
const folder = (): string => dir.join('demo');
beforeAll(async () => {
  demo = await run(['demo', '--output', folder()]);
  page = readFileSync(join(folder(), 'index.html'), 'utf8');
}, 120_000);

/** Arguments of a command as the page shows it. */
function argumentsOf(command: string): string[] {
  return [...command.matchAll(/"([^"]*)"|(\S+)/g)].map((match) => match[1] ?? match[2]!);
}

const unescaped = (html: string): string =>
  html.replaceAll('&quot;', '"').replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');
const commands = (): string[] =>
  [...page.matchAll(/<pre>([^]*?)<\/pre>/g)].flatMap((match) => unescaped(match[1]!).split('\n'));

describe('what it leaves', () => {
  test('pictures, a sheet, two grids with their numbers, a page', () => {
    expect(demo).toMatchObject({ code: 0, stderr: '' });
    const files = readdirSync(folder()).sort();
    expect(files).toEqual([
      'encoders.json',
      'encoders.png',
      'index.html',
      'pictures',
      'pictures.png',
      'precision.json',
      'precision.png',
    ]);
    expect(readdirSync(join(folder(), 'pictures'))).toHaveLength(8);
  });

  test('what it says: where to look, how long it took, what to try next', () => {
    for (const name of ['index.html', 'pictures.png', 'encoders.png', 'precision.png'])
      expect(demo.stdout).toContain(join(folder(), name));
    expect(demo.stdout).toMatch(/^\d+ pictures in [\d.]+ m?s on cpu .*, at most .* of memory\n/);
    expect(demo.stdout).toMatch(/Next\n {2}\$ npx kotoba generate .*\n {2}\$ npx kotoba compare /);
  });

  test('every picture carries its settings', async () => {
    for (const name of readdirSync(join(folder(), 'pictures'))) {
      const { texts, width, height } = await readPicture(join(folder(), 'pictures', name));
      expect({ width, height }).toEqual({ width: 64, height: 64 });
      expect(parseMetadata(texts)?.info).toMatchObject({
        seed: 1,
        steps: 4,
        parts: { t5: { precision: 'fp32' } },
      });
    }
  });

  test('the page loads nothing from outside, and every link of it is there', () => {
    const links = [...page.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => unescaped(match[1]!));
    expect(links.length).toBeGreaterThan(16);
    for (const link of links) {
      expect(link).not.toMatch(/^[a-z]+:|^\//);
      expect(existsSync(join(folder(), link)), link).toBe(true);
    }
    expect(page).not.toContain('<script');
  });

  test('the better T5 changes pictures, the same T5 at fp32 does not', () => {
    const numbers = (name: string) =>
      JSON.parse(readFileSync(join(folder(), `${name}.json`), 'utf8')) as {
        columns: { label: string }[];
        cells: { columnIndex: number; mae: number }[];
      };
    const encoders = numbers('encoders');
    expect(encoders.columns.map(({ label }) => label)).toEqual(['t5', 'flan_t5']);
    for (const { columnIndex, mae } of encoders.cells) expect(mae > 0).toBe(columnIndex > 0);
    const [first, second] = numbers('precision').columns.map(({ label }) => label);
    expect([first, second]).toEqual([expect.stringMatching(/fp32$/), expect.stringMatching(/int8$/)]);
  });
});

describe('the commands it shows', () => {
  test('make the same pictures', async () => {
    const generates = commands().filter((line) => /^npx kotoba generate .* -o [^-]/.test(line));
    expect(generates).toHaveLength(8);
    for (const command of generates.slice(4, 6)) {
      const args = argumentsOf(command).slice(2);
      const name = args.at(-1)!;
      const out = dir.join(name);
      const { code, stderr } = await run([...args.slice(0, -1), out]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      const [ours, theirs] = [await readPicture(out), await readPicture(join(folder(), 'pictures', name))];
      expect(pictureDistance(ours, theirs).mae).toBe(0);
      expect(parseMetadata(ours.texts)).toEqual(parseMetadata(theirs.texts));
    }
  });

  test('make the same grids', async () => {
    const compares = commands().filter((line) => /^npx kotoba compare .* -o /.test(line));
    expect(compares).toHaveLength(2);
    for (const command of compares) {
      const args = argumentsOf(command).slice(2);
      const name = args.at(-1)!;
      const { code, stderr, json } = await run([...args.slice(0, -1), dir.join(name), '--json']);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      const cells = (json() as { cells: object[] }).cells;
      const shown = readFileSync(join(folder(), name.replace('.png', '.json')), 'utf8');
      expect(cells).toEqual((JSON.parse(shown) as { cells: object[] }).cells);
    }
  });

  test('to try next are commands that exist', async () => {
    for (const command of commands().filter((line) => line.startsWith('npx kotoba'))) {
      const { stderr, code } = await run([...argumentsOf(command).slice(2), '--help']);
      expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
    }
  });
});

describe('where it writes', () => {
  test('again into its own folder', async () => {
    const { code, json } = await run(['demo', '--output', folder(), '--json']);
    expect(code).toBe(0);
    const { files, next } = json() as { files: string[]; next: string[] };
    expect(files).toHaveLength(14);
    for (const file of files) expect(existsSync(file), file).toBe(true);
    expect(next.length).toBeGreaterThan(1);
  }, 60_000);

  test('not into a folder with other files, a file, or a place that takes none', async () => {
    const other = dir.join('other');
    mkdirSync(other);
    writeFileSync(join(other, 'index.html'), 'mine');
    const refused = await run(['demo', '--output', other]);
    expect(refused).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/ERR_FILE_EXISTS.*--force/) as string,
    });
    expect(readdirSync(other)).toEqual(['index.html']);
    for (const place of [join(other, 'index.html'), join(other, 'index.html', 'x')])
      expect(await run(['demo', '--output', place])).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('ERR_FILE_WRITE') as string,
      });
  });

  test.each([
    [/picture 2\/8/, 'picture 8/8'],
    [/3\/16 t5: drawing/, '16/16'],
  ])('Ctrl-C at %s: 130, and no folder is left', async (interruptAt, last) => {
    const out = dir.join('cancelled');
    const result = await run(['demo', '--output', out], { terminal: 100, interruptAt });
    expect(result).toMatchObject({ code: 130, stdout: '' });
    expect(result.stderr, 'it stops there').not.toContain(last);
    expect(existsSync(out)).toBe(false);
  });
});
