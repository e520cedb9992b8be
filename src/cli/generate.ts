/** `kotoba generate`: prompts into PNG files that carry how they were made. */
import { randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { Command, Option } from 'commander';
import { KotobaError } from '../errors.js';
import { writePng } from '../image/index.js';
import {
  ENCODER_SLOTS,
  type GenerateOptions,
  type GenerateProgress,
  type GenerateResult,
} from '../pipeline/image_types.js';
import type { Precision } from '../pipeline/precision.js';
import { MAX_SEED } from '../sampling/index.js';
import { openDevice } from './device.js';
import { pictureTexts } from './image_info.js';
import { imageModel, imageModelDirs, imageModelFiles, type PartFiles } from './image_models.js';
import {
  DENOISER_SLOTS,
  addModelOptions,
  addRunOptions,
  addSamplingOptions,
  denoiserValue,
  encoderSettings,
  parseSeed,
  samplingOptions,
  type ImageCommandOptions,
} from './image_options.js';
import {
  MOST_HASHED_BYTES,
  hashWeights,
  partInfos,
  partSources,
  partReport,
  type Hashes,
  type PartSource,
} from './image_parts.js';
import { finish, showOn, withPipeline, type RunningPipeline } from './image_run.js';
import { generateReport, printGenerate, type WrittenPicture } from './generate_report.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { makeFolder, requireNoInput } from './output_path.js';
import { isFolderName, picturePaths, type PlannedPicture } from './picture_names.js';
import { checkPreview, writePreview } from './preview_file.js';
import { progressLine, type ProgressLine } from './progress.js';
import { readPrompts } from './prompts.js';
import { styleFor } from './text.js';
import { printWarnings } from './text_warnings.js';

export interface GenerateCommandOptions extends ImageCommandOptions {
  output?: string;
  clipL?: string;
  clipG?: string;
  clipH?: string;
  t5?: string;
  precision?: option.PerSlot<Precision>;
  seed?: bigint;
  count: number;
  preview?: string;
  hash?: boolean;
}

const HELP = `
Examples:
  The small model that ships; the file is called after prompt and seed:
    $ kotoba generate "a red circle to the left of a blue square"
  A checkpoint with everything inside, and the same with a better CLIP-L:
    $ kotoba generate "a sparrow on a girl's hand" --model sd_xl_base_1.0.safetensors --seed 1
    $ kotoba generate "a sparrow on a girl's hand" --model sd_xl_base_1.0.safetensors --seed 1 --clip-l clip-gmp
  Flux.1 with a better T5, 8-bit activations in the T5 only:
    $ kotoba generate "a sparrow on a girl's hand" -o sparrow.png --size 1024x768 --model flux1-schnell.safetensors \\
        --vae ae.safetensors --clip-l clip_l.safetensors --t5 flan-t5-xxl-Q8_0.gguf --precision t5=int8
  Four seeds, watched while they come:
    $ kotoba generate "a yellow star" --seed 1 --count 4 -o stars/ --preview now.png
  From a picture, and in a part of it only:
    $ kotoba generate "a green star" --image star.png --strength 0.6 -o green.png
    $ kotoba generate "a green star" --image star.png --mask middle.png --strength 1 -o middle-green.png

--output is a .png file, in whose name {prompt}, {seed} and {n} are replaced, or a folder ("pictures/"). Several
pictures of one name are numbered: out-1.png, out-2.png. Picture i of a prompt has the seed SEED + i.
--precision is for all parts, or for one: transformer or unet (with the autoencoder), vae, clip_l, clip_g, t5. fp32 and int8 are the
CPU's, fp32, fp16 and bf16 a GPU's; auto is fp32 on the CPU, and on a GPU what the file's weights are stored in: fp32 for
F32, fp16 for F16, bf16 for BF16, FP8 and GGUF's quantised types.

Every PNG holds its settings twice: as the text that A1111 and Forge show ("parameters"), and as JSON with files,
SHA-256, precisions, seed and noise levels ("kotoba"). Files over 2 GB are hashed only with --hash.`;

export function generateCommand(context: CliContext): Command {
  const command = new Command('generate')
    .description('pictures from prompts: SD1, SDXL, SD3, Flux.1, or the small model that ships')
    .argument('[prompts...]', 'prompts; - reads them from stdin, one a line')
    .optionsGroup('Output:')
    .option('-o, --output <file|folder>', 'where to write (default: {prompt}-{seed}.png)')
    .addOption(new Option('--seed <n>', 'of the first picture (default: random)').argParser(parseSeed))
    .addOption(
      new Option('--count <n>', 'pictures of each prompt').argParser(option.wholeNumber(1)).default(1),
    )
    .option('--preview <file>', 'write what is becoming of it after every step')
    .option('--hash', 'put hashes of files over 2 GB into the PNG too');
  addModelOptions(command)
    .option('--clip-l <file>', "CLIP-L, CLIP-GmP or Long-CLIP-L (default: the model's)")
    .option('--clip-g <file>', "CLIP-G of SDXL and SD3 (default: the model's)")
    .option('--clip-h <file>', "CLIP-H of SD2 (default: the model's)")
    .option('--t5 <file>', "T5-XXL or Flan-T5-XXL; none: SD3 without it (default: the model's)")
    .addOption(
      new Option(
        '--precision <value>',
        'auto, fp32 (exact), int8 (CPU, faster), fp16 or bf16 (GPU), or for one part: t5=bf16; may be repeated',
      ).argParser(option.perSlot(option.oneOf(option.PRECISION_NAMES))),
    );
  return addRunOptions(addSamplingOptions(command))
    .addHelpText('after', HELP)
    .action((prompts: string[], options: GenerateCommandOptions) => generate(context, prompts, options));
}

/** All that is decided before the model is opened. */
interface Plan {
  readonly prompts: readonly string[];
  /** of each prompt's pictures, in order */
  readonly seeds: readonly bigint[];
  /** [prompt × count] */
  readonly paths: readonly string[];
  readonly sources: readonly PartSource[];
  readonly generate: GenerateOptions;
}

async function generate(
  context: CliContext,
  given: string[],
  options: GenerateCommandOptions,
): Promise<void> {
  const { io } = context;
  const files = imageModelFiles(options, imageModelDirs(context, options.modelsDir));
  requireEffect(options, files);
  const plan = await planned(context, given, options, partSources(files));
  const model = imageModel(files, (slot) =>
    encoderSettings(slot, options, option.valueFor(options.precision, slot)),
  );
  const denoiser = denoiserValue(options.precision);
  const vae = options.precision?.slots.get('vae') ?? denoiser;
  const run = { ...options, precision: { denoiser, vae } };
  await using device = await openDevice(context, options);
  const { done, hashes } = await whileHashing(context, plan.sources, options, async (hashing) => ({
    done: await withPipeline(model, run, device, (running) =>
      runAll(context, running, plan, options, hashing),
    ),
    hashes: await hashing,
  }));
  const { precisions } = done.results[0]!;
  const report = generateReport({
    ...done,
    parts: plan.sources.map((source) => partReport(source, precisions, hashes)),
    isShipped: options.model === undefined,
    prompts: plan.prompts,
  });
  printWarnings(context, report.warnings);
  if (options.json) io.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  else printGenerate(context, report);
}

/** @throws KotobaError ERR_ARGUMENT for what is said about an encoder that this model does without */
function requireEffect(options: GenerateCommandOptions, files: PartFiles): void {
  const encoders = ENCODER_SLOTS.filter((slot) => files[slot] !== undefined);
  option.requireSlots('--precision', options.precision, [...DENOISER_SLOTS, ...encoders, 'vae']);
  option.requireSlots('--config', options.config, [...DENOISER_SLOTS, ...encoders]);
  if (files.t5 === undefined && options.t5Length !== undefined)
    throw new KotobaError('ERR_ARGUMENT', '--t5-length: expected none for a model without T5');
}

/** Hashes the files beside the work, and no longer than the work goes on. */
async function whileHashing<T>(
  { signal }: CliContext,
  sources: readonly PartSource[],
  { hash }: GenerateCommandOptions,
  work: (hashing: Promise<Hashes>) => Promise<T>,
): Promise<T> {
  const failed = new AbortController();
  const most = hash ? Infinity : MOST_HASHED_BYTES;
  const hashing = hashWeights(sources, most, AbortSignal.any([signal, failed.signal]));
  hashing.catch(() => undefined); // reported where it is awaited
  try {
    return await work(hashing);
  } finally {
    failed.abort();
  }
}

async function planned(
  context: CliContext,
  given: readonly string[],
  options: GenerateCommandOptions,
  sources: readonly PartSource[],
): Promise<Plan> {
  const overwrite = options.force ? 'allow' : 'refuse';
  const prompts = await readPrompts(given, options.promptFile, context.io.stdin);
  const first = options.seed ?? BigInt(randomBytes(4).readUInt32LE());
  const seeds = Array.from({ length: options.count }, (_, i) => (first + BigInt(i)) & MAX_SEED);
  const pictures = prompts.flatMap((prompt) => seeds.map((seed): PlannedPicture => ({ prompt, seed })));
  const paths = picturePaths(options.output, pictures, overwrite);
  const inputs = [...sources.map(({ report }) => report.file), ...(options.image ? [options.image] : [])];
  for (const path of paths) requireNoInput('--output', path, inputs);
  if (options.preview !== undefined) {
    await checkPreview(options.preview, overwrite);
    requireNoInput('--preview', options.preview, inputs);
  }
  const sampling = await samplingOptions(context, options);
  const generate = {
    ...sampling,
    seed: first,
    count: options.count,
    preview: options.preview !== undefined,
  };
  return { prompts, seeds, paths, sources, generate };
}

interface Done {
  readonly pictures: readonly WrittenPicture[];
  readonly results: readonly GenerateResult[];
  readonly loadSeconds: number;
  readonly device: RunningPipeline['device']['info'];
}

/** Prompt by prompt; each one's pictures are on disk before the next begins. */
async function runAll(
  context: CliContext,
  { pipeline, device, loadSeconds }: RunningPipeline,
  plan: Plan,
  options: GenerateCommandOptions,
  hashing: Promise<Hashes>,
): Promise<Done> {
  const results: GenerateResult[] = [];
  const pictures: WrittenPicture[] = [];
  for (const [i, prompt] of plan.prompts.entries()) {
    const line = progressLine(context);
    const prefix = plan.prompts.length > 1 ? `${i + 1}/${plan.prompts.length} ` : '';
    try {
      const job = pipeline.generate(prompt, plan.generate);
      const result = await finish(job, showOn(line, prefix), previewWriter(context, line, options.preview));
      if (context.signal.aborted)
        throw new KotobaError('ERR_CANCELLED', 'cancelled before the picture was written');
      line.say('writing');
      const paths = plan.paths.slice(i * options.count);
      pictures.push(
        ...(await writeAll(result, { prompt, paths, plan, options, device, hashes: await hashing })),
      );
      results.push(result);
    } finally {
      line.clear();
    }
  }
  return { pictures, results, loadSeconds, device: device.info };
}

/** A preview that cannot be written is no reason to lose the picture: it is said, once. */
function previewWriter({ io }: CliContext, line: ProgressLine, path: string | undefined) {
  if (path === undefined) return undefined;
  let failed = false;
  return async ({ preview, detail }: GenerateProgress): Promise<void> => {
    if (failed || !preview) return;
    try {
      await writePreview(path, preview, detail);
    } catch (error) {
      failed = true;
      line.clear();
      io.stderr.write(
        `${styleFor(io.stderr, io.env).yellow('kotoba: warning:')} --preview: ${(error as Error).message}\n`,
      );
    }
  };
}

interface Writing {
  readonly prompt: string;
  readonly paths: readonly string[];
  readonly plan: Plan;
  readonly options: GenerateCommandOptions;
  readonly device: RunningPipeline['device'];
  readonly hashes: Hashes;
}

async function writeAll(
  result: GenerateResult,
  { prompt, paths, plan, options, device, hashes }: Writing,
): Promise<WrittenPicture[]> {
  const parts = partInfos(plan.sources, result.precisions, hashes);
  if (isFolderName(options.output)) await makeFolder('--output', dirname(paths[0]!));
  const written: WrittenPicture[] = [];
  for (const [i, { picture, seed }] of result.pictures.entries()) {
    const path = paths[i]!;
    const texts = pictureTexts({ prompt, seed, settings: result, options, parts, device: device.info.name });
    await writePng(path, picture, texts);
    const { width, height } = picture;
    written.push({ path, prompt, seed: String(seed), width, height, bytes: statSync(path).size });
  }
  return written;
}
