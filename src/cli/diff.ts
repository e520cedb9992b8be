/** `kotoba diff`: how far two files of one network are apart, tensor by tensor and layer by layer. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { writeAtomically } from '../atomic_file.js';
import { tensorDifferences } from '../convert/tensor_difference.js';
import { KotobaError } from '../errors.js';
import { openModel, type ModelFile, type Part, type Slot } from '../formats/index.js';
import { findModel, modelDirs } from '../pipeline/find_model.js';
import { Device } from '../runtime/device.js';
import { layerFindings, tensorFindings, tensorLooks } from './diff_findings.js';
import { DEFAULT_PROMPTS, promptDifferences, type PromptDifference } from './diff_layers.js';
import { comparedNetworks } from './diff_networks.js';
import { plotOf } from './diff_plot.js';
import { diffReport, printDiff, worstDistance, type Difference } from './diff_report.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { requireNoInput, requireWritableFile } from './output_path.js';
import { progressLine } from './progress.js';
import { readPrompts } from './prompts.js';

export interface DiffFlags {
  slot?: Slot;
  prompt: readonly string[];
  promptFile: readonly string[];
  config?: Readonly<Record<string, unknown>>;
  t5Tokenizer?: string;
  layers: boolean;
  top: number;
  failAbove?: number;
  plot?: string;
  threads?: number;
  modelsDir: readonly string[];
  json?: boolean;
}

const HELP = `
Examples:
  What 8 bits cost T5-XXL, tensor by tensor and after each of its layers:
    $ kotoba diff t5xxl_fp16.safetensors t5-v1_1-xxl-encoder-Q8_0.gguf --t5-tokenizer spiece.model
  Is this download damaged, or another fine-tune?
    $ kotoba diff clip_l.safetensors ViT-L-14-GmP.safetensors --plot diff.html
  The encoder inside a checkpoint against a file of its own, in a script:
    $ kotoba diff sd_xl_base_1.0.safetensors clip_g.safetensors --slot clip_g --json --fail-above 0.001

Tensors stored alike are measured by what is usual among them, so that of two types as different as F16 and Q4_K a single
scaled, exchanged or damaged tensor comes first. Layers run at FP32 whatever the types, on four prompts unless --prompt
says otherwise: 0 is the embedding, i the output of block i. cosine is of the token that is least alike.`;

export function diffCommand(context: CliContext): Command {
  return new Command('diff')
    .description('two files of one network: what differs, by how much, and what it looks like')
    .argument('<a>', 'a file, a folder of shards, or a name')
    .argument('<b>', 'another one, of any container and types')
    .addOption(
      new Option('--slot <slot>', 'which network, where the files hold several').argParser(option.parseSlot),
    )
    .addOption(
      new Option('--prompt <text>', 'run the layers on this; may be repeated')
        .default([], 'four of different kinds')
        .argParser(option.repeated),
    )
    .addOption(
      new Option('--prompt-file <file>', 'prompts, one a line; may be repeated')
        .default([], 'none')
        .argParser(option.repeated),
    )
    .addOption(
      new Option('--config <file|json>', "what the files do not tell, in Hugging Face's keys").argParser(
        option.parseConfig,
      ),
    )
    .addOption(option.t5TokenizerOption())
    .option('--no-layers', 'tensors only')
    .addOption(new Option('--top <n>', 'tensors shown').argParser(option.wholeNumber(1)).default(12))
    .addOption(
      new Option('--fail-above <x>', 'exit code 1 where a relative L2 is larger').argParser(parseDistance),
    )
    .option('--plot <file>', 'draw it: .html or .png')
    .addOption(
      new Option('--threads <n>', 'CPU threads (default: all cores)').argParser(option.wholeNumber(1)),
    )
    .addOption(option.modelsDirOption())
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action((a: string, b: string, flags: DiffFlags) => diff(context, [a, b], flags));
}

function parseDistance(text: string): number {
  const value = text.trim() === '' ? NaN : Number(text);
  if (!(value >= 0)) throw new InvalidArgumentError(`expected a number from 0, got "${text}".`);
  return value;
}

async function diff(context: CliContext, names: readonly [string, string], flags: DiffFlags): Promise<void> {
  const { io, signal } = context;
  const dirs = modelDirs(flags.modelsDir, io.env);
  const open = (name: string): ModelFile => openModel(findModel(name, dirs));
  const files: [ModelFile, ModelFile] = [open(names[0]), open(names[1])];
  const parts = comparedNetworks(files, flags);
  if (flags.plot !== undefined) requirePlot(flags.plot, files);

  const progress = progressLine(context);
  const started = performance.now();
  await using device = Device.open('cpu', { threads: flags.threads });
  try {
    const onProgress = (done: number, total: number): void =>
      progress.update('tensors', done, total, `tensor ${done} of ${total}`);
    const tensors = await tensorDifferences(device, ...parts, { signal, onProgress });
    const looks = await tensorLooks(device, parts, tensors, signal);
    const { prompts, skipped } = await layers(context, device, { files, parts, flags, progress });
    const found: Difference = {
      files: [describe(files[0], parts[0]), describe(files[1], parts[1])],
      slot: parts[0].slot,
      tensors,
      looks,
      only: [missingIn(parts[0], parts[1]), missingIn(parts[1], parts[0])],
      prompts,
      skipped,
      findings: [...tensorFindings(tensors), ...layerFindings(prompts)],
      seconds: (performance.now() - started) / 1000,
    };
    progress.clear();
    if (flags.plot !== undefined) await writeAtomically(flags.plot, [await plotOf(found, flags.plot)]);
    if (flags.json) io.stdout.write(`${JSON.stringify(diffReport(found), null, 2)}\n`);
    else printDiff(context, found, flags);
    if (flags.failAbove !== undefined && !(worstDistance(found) <= flags.failAbove)) context.exitCode = 1;
  } finally {
    progress.clear();
  }
}

const describe = ({ path }: ModelFile, { description, bytesRead }: Part) => ({
  path,
  description,
  bytesRead,
});

const missingIn = (part: Part, other: Part): string[] =>
  [...part.tensors.keys()].filter((name) => !other.tensors.has(name));

interface LayersJob {
  readonly files: readonly [ModelFile, ModelFile];
  readonly parts: readonly [Part, Part];
  readonly flags: DiffFlags;
  readonly progress: ReturnType<typeof progressLine>;
}

/** Tensors can be compared without vocabulary and config; layers cannot: an error only where prompts were asked for. */
async function layers(
  { io, signal }: CliContext,
  device: Device,
  { files, parts, flags, progress }: LayersJob,
): Promise<{ prompts: PromptDifference[]; skipped: string | undefined }> {
  const isAsked = flags.prompt.length + flags.promptFile.length > 0;
  const isEncoder = parts[0].family === 'clip' || parts[0].family === 't5';
  if (isAsked && !(flags.layers && isEncoder))
    throw new KotobaError('ERR_ARGUMENT', `--prompt: expected two text encoders, and no --no-layers`);
  if (!flags.layers || !isEncoder) return { prompts: [], skipped: undefined };
  try {
    const prompts = isAsked ? await readPrompts(flags.prompt, flags.promptFile, io.stdin) : DEFAULT_PROMPTS;
    const { config, t5Tokenizer } = flags;
    const onLayer = (done: number, total: number): void => progress.update('layers', done, total);
    const options = { prompts, config, t5Tokenizer, signal, onLayer };
    return { prompts: await promptDifferences(device, files, parts, options), skipped: undefined };
  } catch (error) {
    const isMissing =
      error instanceof KotobaError && ['ERR_TOKENIZER_MISSING', 'ERR_MODEL_CONFIG'].includes(error.code);
    if (!isMissing || isAsked) throw error;
    const [first, ...more] = error.message.split('\n');
    return { prompts: [], skipped: `${first}${more.length > 0 ? ' … --prompt TEXT tells all of it' : ''}` };
  }
}

function requirePlot(path: string, files: readonly ModelFile[]): void {
  if (!/\.(html?|png)$/i.test(path))
    throw new KotobaError('ERR_ARGUMENT', `--plot: expected a .html or .png file, got ${path}`);
  requireWritableFile('--plot', path);
  requireNoInput(
    '--plot',
    path,
    files.flatMap((file) => file.files.map((one) => one.path)),
  );
}
