/** `kotoba compare`: the same prompts and seeds with several text encoders or precisions, as one labelled grid. */
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { KotobaError } from '../errors.js';
import { writeAtomically } from '../atomic_file.js';
import { writePng } from '../image/index.js';
import {
  compareEncoders,
  type CompareColumn,
  type CompareOptions,
  type CompareResult,
} from '../pipeline/compare.js';
import { compareGrid } from '../pipeline/compare_grid.js';
import { chosenEncoders, requireEncoders } from '../pipeline/conditioning/encoder_widths.js';
import type { ImageModel } from '../pipeline/image_types.js';
import type { Device } from '../runtime/device.js';
import {
  compareColumns,
  encoderFiles,
  parseEncoderFile,
  parsePrecisionEntry,
  type ColumnOptions,
} from './compare_columns.js';
import { openDevice } from './device.js';
import { compareReport, printCompare, type CompareFiles } from './compare_report.js';
import { pictureTexts } from './image_info.js';
import { completed, imageModelDirs, partFile, partsOfModel, type PartFiles } from './image_models.js';
import {
  CONFIG_SLOTS,
  addModelOptions,
  addRunOptions,
  addSamplingOptions,
  parseSeed,
  samplingOptions,
  type ImageCommandOptions,
} from './image_options.js';
import { MOST_HASHED_BYTES, hashWeights, partInfos, partSources, type PartSource } from './image_parts.js';
import { showOn, withPipeline, type RunningPipeline } from './image_run.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import {
  makeFolder,
  requireNew,
  requireNoInput,
  requireWritableFile,
  requireWritableFolder,
} from './output_path.js';
import { slug } from './picture_names.js';
import { progressLine, type ProgressLine } from './progress.js';
import { readPrompts } from './prompts.js';

export interface CompareCommandOptions
  extends ImageCommandOptions, Omit<ColumnOptions, 'model' | 'config' | 't5Tokenizer'> {
  output: string;
  seeds: readonly bigint[];
  cells?: string;
  report?: string;
}

const HELP = `
Examples:
  The model that ships: its ordinary T5 against its better one, at three seeds:
    $ kotoba compare "a green triangle to the left of a red circle" --seeds 1,2,3
  What a better encoder changes in Flux.1, and what 8-bit activations do to it:
    $ kotoba compare "a sparrow on a girl's hand" --model flux1-schnell.safetensors --vae ae.safetensors \\
        --clip-l clip_l.safetensors --t5 t5xxl_fp16.safetensors --t5 flan-t5-xxl-Q8_0.gguf \\
        --t5 flan-t5-xxl-Q8_0.gguf@int8 -o grid.png
  A better CLIP-L in a checkpoint that bundles its own:
    $ kotoba compare "a sparrow" --model sd_xl_base_1.0.safetensors --clip-l clip-gmp-vit-l-14
  Two CLIPs at two precisions, four columns, each cell as a PNG of its own and the numbers as JSON:
    $ kotoba compare "a sparrow" --clip-l clip_l.safetensors --clip-l long_clip.safetensors \\
        --precision fp32 --precision int8 --cells cells --report compare.json --model flux.safetensors

Columns are every --t5 with every --clip-l and --clip-g at every --precision, the first one being the reference; rows
are the prompts and their seeds. A single encoder is compared with the model's own. FILE@PRECISION is for that file
alone; --precision is of the encoders only, and may name them: t5=int8,clip_l=fp32.

MAE, PSNR and SSIM are of a cell's picture against the reference column's; T5's states are compared by relative L2 and
by the cosine of the worst token. A cell is grey where no measure is beyond seed noise: the median over pairs of seeds
of the same prompt and encoder. With one seed, a second one is drawn of the reference for it, and not shown.`;

export function compareCommand(context: CliContext): Command {
  const command = new Command('compare')
    .description('the same seed with several text encoders: one labelled grid, and how much differs')
    .argument('[prompts...]', 'prompts; - reads them from stdin, one a line')
    .optionsGroup('Output:')
    .option('-o, --output <file>', 'the grid, a .png file', 'compare.png')
    .option('--cells <folder>', 'write every cell as a PNG too')
    .option('--report <file>', 'write what --json prints into a file')
    .addOption(new Option('--seeds <list>', 'for example 1,2,3').argParser(parseSeeds).default([0n], '0'));
  addModelOptions(command)
    .addOption(encoderOption('--t5', 'a T5, or none where SD3 is to do without'))
    .addOption(encoderOption('--clip-l', 'a CLIP-L'))
    .addOption(encoderOption('--clip-g', 'a CLIP-G, of SDXL and SD3'))
    .addOption(encoderOption('--clip-h', 'a CLIP-H, of SD2'))
    .addOption(
      new Option(
        '--precision <value>',
        'of the encoders: auto, fp32, int8 (CPU), fp16, bf16 (GPU), or for one: t5=bf16; may be repeated',
      ).argParser(parsePrecisionEntry),
    );
  return addRunOptions(addSamplingOptions(command))
    .addHelpText('after', HELP)
    .action((prompts: string[], options: CompareCommandOptions) => compare(context, prompts, options));
}

const encoderOption = (flag: string, what: string): Option =>
  new Option(`${flag} <file[@precision]>`, `${what}; may be repeated`).argParser(parseEncoderFile);

function parseSeeds(text: string): bigint[] {
  const seeds = text.split(',').map(parseSeed);
  if (new Set(seeds).size < seeds.length)
    throw new InvalidArgumentError(`expected different seeds, got "${text}".`);
  return seeds;
}

async function compare(context: CliContext, given: string[], options: CompareCommandOptions): Promise<void> {
  const { io } = context;
  option.requireSlots('--config', options.config, CONFIG_SLOTS);
  const dirs = imageModelDirs(context, options.modelsDir);
  const own = partsOfModel(options.model, dirs);
  const vae = options.vae === undefined ? own.vae : partFile('vae', options.vae, dirs);
  await using device = await openDevice(context, options);
  const columns = columnsOf(options, { ...own, ...(vae !== undefined && { vae }) }, dirs, device);
  const files = checkedFiles(options, [own.denoiser, vae!, ...columns.flatMap(filesOf)]);
  const prompts = await readPrompts(given, options.promptFile, io.stdin);
  const sampling = await samplingOptions(context, options);
  const model: ImageModel = {
    denoiser: own.denoiser,
    vae: vae!,
    encoders: chosenEncoders({}, columns[0]!.encoders),
  };
  const compareOptions = { ...sampling, prompts, columns, seeds: options.seeds };
  await withPipeline(model, { ...options, precision: undefined }, device, async (running) => {
    for (const { encoders } of columns)
      requireEncoders(chosenEncoders({}, encoders), running.pipeline.denoiser);
    const result = await runCompare(context, running, compareOptions);
    const written = await writeAll(context, { result, options, files, model, device });
    const report = compareReport(result, written);
    const json = JSON.stringify(report, null, 2);
    if (files.report !== undefined) await writeAtomically(files.report, [Buffer.from(`${json}\n`)]);
    if (options.json) io.stdout.write(`${json}\n`);
    else printCompare(context, result, report);
  });
}

const filesOf = ({ encoders }: CompareColumn): string[] =>
  Object.values(chosenEncoders({}, encoders)).map(({ path }) => path);

/** @throws KotobaError ERR_ARGUMENT for parts that neither the model nor an option gives */
function columnsOf(
  options: CompareCommandOptions,
  own: Partial<PartFiles> & Pick<PartFiles, 'denoiser'>,
  dirs: readonly string[],
  device: Device,
): CompareColumn[] {
  const given = Object.entries(encoderFiles(options)).map(([slot, [first]]) => [slot, first!.name]);
  completed({ ...Object.fromEntries(given), ...own }, options.model);
  return compareColumns(options, own, dirs, device);
}

function checkedFiles(options: CompareCommandOptions, inputs: readonly string[]): CompareFiles {
  const { output, report, cells, force } = options;
  if (!/\.png$/i.test(output))
    throw new KotobaError('ERR_ARGUMENT', `--output: expected a .png file, got ${output}`);
  for (const [name, path] of [
    ['--output', output],
    ['--report', report],
  ] as const) {
    if (path === undefined) continue;
    requireWritableFile(name, path);
    requireNoInput(name, path, options.image === undefined ? inputs : [...inputs, options.image]);
    if (!force) requireNew(name, path);
  }
  if (cells !== undefined) {
    requireWritableFolder('--cells', cells);
    if (!force) requireNew('--cells', cells);
  }
  return { grid: output, report, cells };
}

/** With a progress line that names the cell. */
export async function runCompare(
  context: CliContext,
  { pipeline }: Pick<RunningPipeline, 'pipeline'>,
  options: CompareOptions,
): Promise<CompareResult> {
  const line = progressLine(context);
  try {
    const job = compareEncoders(pipeline, { ...options, signal: context.signal });
    for await (const { done, total, column, generate } of job.progress())
      showCell(line, `${done + 1}/${total} ${column.label}: `, generate);
    const result = await job;
    if (context.signal.aborted)
      throw new KotobaError('ERR_CANCELLED', 'cancelled before anything was written');
    return result;
  } finally {
    line.clear();
  }
}

function showCell(
  line: ProgressLine,
  prefix: string,
  progress: Parameters<ReturnType<typeof showOn>>[0] | undefined,
): void {
  if (progress) showOn(line, prefix)(progress);
}

interface Writing {
  readonly result: CompareResult;
  readonly options: CompareCommandOptions;
  readonly files: CompareFiles;
  readonly model: ImageModel;
  readonly device: RunningPipeline['device'];
}

async function writeAll(context: CliContext, writing: Writing): Promise<CompareFiles> {
  const { result, files } = writing;
  await writePng(files.grid, compareGrid(result));
  if (files.cells === undefined) return files;
  return { ...files, pictures: await writeCells(context, writing, files.cells) };
}

/** Named by row and column, so that a folder listing has the order of the grid. */
async function writeCells(
  { signal }: CliContext,
  { result, options, model, device }: Writing,
  folder: string,
): Promise<string[][]> {
  await makeFolder('--cells', folder);
  const { columns, rows, settings } = result;
  const { denoiser, vae } = model;
  const perColumn = columns.map(({ encoders }): PartSource[] => {
    const paths = Object.entries(encoders).map(([slot, { path }]) => [slot, path]);
    return partSources({ denoiser, vae, ...Object.fromEntries(paths) });
  });
  const hashes = await hashWeights(perColumn.flat(), MOST_HASHED_BYTES, signal);
  const paths: string[][] = [];
  for (const [r, { prompt, seed, cells }] of rows.entries()) {
    const ofRow: string[] = [];
    for (const { column, picture } of cells) {
      const name = [
        pad(r + 1, rows.length),
        pad(column + 1, columns.length),
        slug(columns[column]!.label),
        seed,
      ];
      const path = join(folder, `${name.join('-')}.png`);
      const parts = partInfos(perColumn[column]!, columns[column]!.precisions, hashes);
      const origin = { prompt, seed, settings, options, parts, device: device.info.name };
      await writePng(path, picture, pictureTexts(origin));
      ofRow.push(path);
    }
    paths.push(ofRow);
  }
  return paths;
}

const pad = (value: number, of: number): string => String(value).padStart(String(of).length, '0');
