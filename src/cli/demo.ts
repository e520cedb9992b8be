/** `kotoba demo`: pictures, the encoder-swap grid and a precision grid with the model that ships, and a page of them. */
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { KotobaError } from '../errors.js';
import { writeAtomically } from '../atomic_file.js';
import { drawGrid, writePng, type Picture } from '../image/index.js';
import { compareGrid } from '../pipeline/compare_grid.js';
import type { CompareResult } from '../pipeline/compare.js';
import type { GenerateResult } from '../pipeline/image_types.js';
import { shippedModel } from '../pipeline/shipped_model.js';
import { runCompare } from './compare.js';
import { compareReport } from './compare_report.js';
import {
  deviceOption,
  deviceText,
  openDevice,
  threadsOption,
  vramOption,
  type DeviceFlags,
} from './device.js';
import {
  DEMO_PROMPTS,
  DEMO_SEED,
  NEXT_COMMANDS,
  demoGrids,
  generateCommandFor,
  type DemoGrid,
} from './demo_plan.js';
import { GENERATOR, demoPage, type DemoPicture } from './demo_page.js';
import { peakMemoryBytes } from './generate_report.js';
import { pictureTexts } from './image_info.js';
import { imageModelFiles } from './image_models.js';
import { MOST_HASHED_BYTES, hashWeights, partInfos, partSources } from './image_parts.js';
import { finish, showOn, withPipeline, type RunningPipeline } from './image_run.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { makeFolder, requireWritableFolder } from './output_path.js';
import { slug } from './picture_names.js';
import { progressLine } from './progress.js';
import { bytesText, counted, printable, secondsText, styleFor, table } from './text.js';

interface DemoOptions extends DeviceFlags {
  output: string;
  force?: boolean;
  json?: boolean;
}

const HELP = `
Example:
  $ kotoba demo --output ~/kotoba-demo

Needs no download and no GPU. Writes index.html, which shows everything; pictures/; pictures.png, all of them on one
sheet; encoders.png, an ordinary T5 against a better one at the same seeds; precision.png, that T5 in fewer bits; and
the numbers of both grids as JSON.`;

export function demoCommand(context: CliContext): Command {
  return new Command('demo')
    .description('pictures and the encoder-swap grid, with the small model that ships')
    .option('--output <folder>', 'where to write', 'kotoba-demo')
    .addOption(deviceOption())
    .addOption(vramOption())
    .addOption(threadsOption())
    .option('--force', 'write into a folder that holds other files')
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action((options: DemoOptions) => demo(context, options));
}

/** Everything is made before anything is written: a cancelled demo leaves nothing. */
async function demo(context: CliContext, options: DemoOptions): Promise<void> {
  const started = performance.now();
  const { io } = context;
  checkFolder(options);
  imageModelFiles({}, []); // is the model here?
  await using device = await openDevice(context, options);
  const made = await withPipeline(shippedModel(), { residency: 'keep' }, device, (running) =>
    makeAll(context, running),
  );
  if (context.signal.aborted) throw new KotobaError('ERR_CANCELLED', 'cancelled before anything was written');
  const files = await writeAll(context, options.output, made, started);
  const seconds = (performance.now() - started) / 1000;
  if (options.json) {
    const report = {
      output: options.output,
      files,
      next: NEXT_COMMANDS,
      seconds,
      peakMemoryBytes: peakMemoryBytes(),
    };
    io.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  } else print(context, options.output, made, seconds);
}

/** @throws KotobaError ERR_FILE_WRITE, ERR_FILE_EXISTS for a folder with anything but a demo in it */
function checkFolder({ output, force }: DemoOptions): void {
  requireWritableFolder('--output', output);
  if (force || !existsSync(output) || readdirSync(output).length === 0) return;
  const page = join(output, 'index.html');
  const isOurs =
    existsSync(page) && statSync(page).isFile() && readFileSync(page, 'utf8').includes(GENERATOR);
  if (!isOurs)
    throw new KotobaError(
      'ERR_FILE_EXISTS',
      `--output ${output}: holds other files; give another folder, or --force to write into this one`,
    );
}

interface Made {
  readonly results: readonly GenerateResult[];
  readonly grids: readonly { readonly grid: DemoGrid; readonly result: CompareResult }[];
  readonly device: RunningPipeline['device']['info'];
}

async function makeAll(context: CliContext, running: RunningPipeline): Promise<Made> {
  const results: GenerateResult[] = [];
  const line = progressLine(context);
  try {
    for (const [i, prompt] of DEMO_PROMPTS.entries()) {
      const job = running.pipeline.generate(prompt, { seed: DEMO_SEED, signal: context.signal });
      results.push(await finish(job, showOn(line, `picture ${i + 1}/${DEMO_PROMPTS.length} `)));
    }
  } finally {
    line.clear();
  }
  const grids: Made['grids'][number][] = [];
  for (const grid of demoGrids(running.device))
    grids.push({
      grid,
      result: await runCompare(context, running, {
        prompts: grid.prompts,
        seeds: grid.seeds,
        columns: grid.columns,
      }),
    });
  return { results, grids, device: running.device.info };
}

async function writeAll(
  { signal }: CliContext,
  folder: string,
  made: Made,
  started: number,
): Promise<string[]> {
  const { results, grids, device } = made;
  await makeFolder('--output', join(folder, 'pictures'));
  const files: string[] = [];
  const add = async (name: string, write: (path: string) => Promise<void>): Promise<void> => {
    await write(join(folder, name));
    files.push(join(folder, name));
  };
  const sources = partSources(imageModelFiles({}, []));
  const hashes = await hashWeights(sources, MOST_HASHED_BYTES, signal);
  const parts = partInfos(sources, results[0]!.precisions, hashes);
  const pictures = DEMO_PROMPTS.map(demoPicture);
  for (const [i, { prompt, file }] of pictures.entries()) {
    const result = results[i]!;
    const { picture, seed } = result.pictures[0]!;
    const texts = pictureTexts({ prompt, seed, settings: result, options: {}, parts, device: device.name });
    await add(file, (path) => writePng(path, picture, texts));
  }
  await add('pictures.png', (path) => writePng(path, sheet(results)));
  for (const { grid, result } of grids) {
    await add(`${grid.name}.png`, (path) => writePng(path, compareGrid(result, { title: grid.title })));
    const report = JSON.stringify(compareReport(result, { grid: `${grid.name}.png` }), null, 2);
    await add(`${grid.name}.json`, (path) => writeAtomically(path, [Buffer.from(`${report}\n`)]));
  }
  const page = demoPage({
    pictures,
    grids: grids.map(({ grid }) => grid),
    next: NEXT_COMMANDS,
    made: madeText(made, (performance.now() - started) / 1000),
  });
  await add('index.html', (path) => writeAtomically(path, [Buffer.from(page)]));
  return files;
}

function demoPicture(prompt: string, i: number): DemoPicture {
  const file = `${i + 1}-${slug(prompt)}.png`;
  return { prompt, file: `pictures/${file}`, command: generateCommandFor(prompt, file) };
}

const SHEET_COLUMNS = 4;

function sheet(results: readonly GenerateResult[]): Picture {
  const cells = results.map(({ pictures }, i) => ({
    picture: pictures[0]!.picture,
    caption: DEMO_PROMPTS[i]!,
  }));
  const rows = Array.from({ length: Math.ceil(cells.length / SHEET_COLUMNS) }, (_, row) => ({
    label: '',
    cells: cells.slice(row * SHEET_COLUMNS, (row + 1) * SHEET_COLUMNS),
  }));
  return drawGrid({
    title: 'Kotoba’s small model',
    columns: Array<string>(SHEET_COLUMNS).fill(''),
    rows,
    minSide: 192,
  });
}

function madeText({ results, grids, device }: Made, seconds: number): string {
  const pictures = results.length + grids.reduce((sum, { result }) => sum + result.pictures, 0);
  return (
    `${counted(pictures, 'picture')} in ${secondsText(seconds)} on ` +
    `${deviceText({ ...device, device: device.name, processor: device.description })}.`
  );
}

function print({ io }: CliContext, folder: string, made: Made, seconds: number): void {
  const style = styleFor(io.stdout, io.env);
  const file = (name: string): string => style.bold(printable(join(folder, name)));
  const rows = [
    [file('index.html'), 'everything on one page: open it in a browser'],
    [file('pictures.png'), `${counted(made.results.length, 'prompt')}, drawn by the small model that ships`],
    ...made.grids.map(({ grid, result }) => [
      file(`${grid.name}.png`),
      `${grid.title}: ${differenceText(result)}`,
    ]),
  ];
  const lines = [
    madeText(made, seconds).replace(/\.$/, `, at most ${bytesText(peakMemoryBytes())} of memory`),
    '',
    ...table(rows, { indent: '  ' }),
    '',
    style.bold('Next'),
    ...NEXT_COMMANDS.map((command) => `  ${style.dim('$')} ${command}`),
  ];
  io.stdout.write(`${lines.join('\n')}\n`);
}

/** "12 of 12 cells differ by more than another seed would make" */
function differenceText({ rows }: CompareResult): string {
  const cells = rows.flatMap((row) => row.cells.slice(1));
  const beyond = cells.filter(({ belowSeedNoise }) => belowSeedNoise === false).length;
  return `${beyond} of ${counted(cells.length, 'picture')} differ by more than another seed makes`;
}
