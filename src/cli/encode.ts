/** `kotoba encode`: prompts through any number of text encoders, each at its own precision, into one file. */
import { Command, Option } from 'commander';
import { KotobaError } from '../errors.js';
import type { Slot } from '../formats/index.js';
import type { EncodeOptions, Encoding, Precision, TextEncoder } from '../index.js';
import { modelDirs } from '../pipeline/find_model.js';
import type { ClipFlavour, Overflow, PromptDialect, TokenizedPrompt } from '../text/index.js';
import {
  checkOutput,
  outputTensors,
  requireOneArray,
  writeOutput,
  type SlotResult,
} from './encode_output.js';
import { runOf, printRuns, warningsOf, type EncoderRun } from './encode_report.js';
import { deviceOption, openDevice, threadsOption, vramOption, type DeviceFlags } from './device.js';
import { encoderSources, type EncoderFiles, type EncoderSource } from './encoder_sources.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { progressLine } from './progress.js';
import { readPrompts } from './prompts.js';
import { counted, styleFor } from './text.js';

export interface EncodeCommandOptions extends EncoderFiles, DeviceFlags {
  output: string;
  precision?: option.PerSlot<Precision>;
  clipSkip?: option.PerSlot<number>;
  finalNorm: boolean;
  hiddenStates?: boolean;
  dialect: PromptDialect;
  overflow?: Overflow;
  t5Length?: option.T5LengthValue;
  t5Tokenizer?: string;
  clipFlavour: ClipFlavour;
  config?: option.PerSlot<Readonly<Record<string, unknown>>>;
  promptFile: readonly string[];
  modelsDir: readonly string[];
  json?: boolean;
}

const HELP = `
Examples:
  SDXL's or Flux's encoders, T5 faster with 8-bit activations:
    $ kotoba encode "a sparrow on a girl's hand" --clip-l clip_l.safetensors --clip-g clip_g.safetensors
    $ kotoba encode "a sparrow" --clip-l clip_l.safetensors --t5 t5xxl_fp16.safetensors \\
        --precision fp32 --precision t5=int8 --t5-length flux-dev
  Every encoder of a checkpoint, with a better CLIP-L in the place of its own:
    $ kotoba encode "a sparrow" --model sd_xl_base_1.0.safetensors --clip-l ViT-L-14-GmP-TE-only.safetensors
  Long prompts in a Long-CLIP, a prompt a line, machine-readable report:
    $ kotoba encode --prompt-file prompts.txt --clip Long-ViT-L-14-GmP.safetensors -o long.safetensors --json

Tensors written, F32 (token_ids: I32), SLOT being clip_l, clip_g, t5 and so on:
  SLOT.hidden           [batch, tokens, width]  the conditioning, prompt weights applied
  SLOT.pooled           [batch, width]          CLIP, at the first end-of-text
  SLOT.projected        [batch, projection]     where the file has a projection
  SLOT.hidden_states.N  [batch, tokens, width]  with --hidden-states; 0 is the embedding
  SLOT.token_ids        [batch, tokens]
Where prompts have different lengths, SLOT.I.hidden [tokens, width] and so on for prompt I = 0, 1, …
A .npy file holds SLOT.hidden of one encoder. __metadata__ has prompts, files, precisions and versions.`;

export function encodeCommand(context: CliContext): Command {
  return new Command('encode')
    .description('embeddings of prompts, into a .safetensors or .npy file')
    .argument('[prompts...]', 'prompts; - reads them from stdin, one a line')
    .option('--clip-l <file>', 'CLIP-L, CLIP-GmP or Long-CLIP-L: SD1, SDXL, SD3, Flux')
    .option('--clip-g <file>', 'CLIP-G: SDXL, SD3')
    .option('--t5 <file>', 'T5-XXL or Flan-T5-XXL: SD3, Flux')
    .option('--clip <file>', 'any other CLIP; may be repeated', option.repeated)
    .option(
      '--model <file>',
      'every text encoder in a checkpoint or diffusers folder; may be repeated',
      option.repeated,
    )
    .option('-o, --output <file>', '.safetensors or .npy', 'embeddings.safetensors')
    .addOption(
      new Option(
        '--precision <value>',
        'auto, fp32 (exact), int8 (CPU, faster), fp16 or bf16 (GPU), or for one encoder: t5=bf16; may be repeated',
      ).argParser(option.perSlot(option.oneOf(option.PRECISION_NAMES))),
    )
    .addOption(option.dialectOption())
    .addOption(
      new Option(
        '--clip-skip <n>',
        "2: CLIP's last layer but one, and so on; also clip_g=2; may be repeated",
      ).argParser(option.perSlot(option.wholeNumber(1))),
    )
    .option('--no-final-norm', "CLIP's layer as it is, as SDXL and SD3 take it")
    .option('--hidden-states', 'write every layer too')
    .addOption(option.t5LengthOption())
    .addOption(option.overflowOption())
    .addOption(option.t5TokenizerOption())
    .addOption(option.clipFlavourOption())
    .addOption(
      new Option(
        '--config <file|json>',
        "what the file does not tell, in Hugging Face's keys; also t5=FILE",
      ).argParser(option.perSlot(option.parseConfig)),
    )
    .addOption(
      new Option('--prompt-file <file>', 'more prompts, one a line; may be repeated')
        .default([], 'none')
        .argParser(option.repeated),
    )
    .addOption(option.modelsDirOption())
    .addOption(deviceOption())
    .addOption(vramOption())
    .addOption(threadsOption())
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action((prompts: string[], options: EncodeCommandOptions) => encode(context, prompts, options));
}

async function encode(context: CliContext, given: string[], options: EncodeCommandOptions): Promise<void> {
  const { io } = context;
  const sources = encoderSources(options, modelDirs(options.modelsDir, io.env));
  const slots = sources.map(({ slot }) => slot);
  option.requireSlots('--precision', options.precision, slots);
  option.requireSlots('--clip-skip', options.clipSkip, slots);
  option.requireSlots('--config', options.config, slots);
  checkOutput(options.output, sources);
  const prompts = await readPrompts(given, options.promptFile, io.stdin);
  const { runs, results } = await runAll(context, sources, prompts, options);
  if (context.signal.aborted) throw new KotobaError('ERR_CANCELLED', 'cancelled before anything was written');
  const output = await writeOutput(options.output, outputTensors(results), {
    prompts,
    runs,
    dialect: options.dialect,
  });
  const warnings = runs.flatMap(warningsOf);
  const style = styleFor(io.stderr, io.env);
  for (const warning of warnings) io.stderr.write(`${style.yellow('kotoba: warning:')} ${warning}\n`);
  if (options.json)
    io.stdout.write(
      `${JSON.stringify({ prompts, encoders: runs.map(({ prompts: _, ...run }) => run), output, warnings }, null, 2)}\n`,
    );
  else printRuns(context, runs, output);
}

interface Loaded {
  readonly source: EncoderSource;
  readonly encoder: TextEncoder;
  readonly loadSeconds: number;
}

interface Prepared extends Loaded {
  readonly tokenizeSeconds: number;
  readonly tokenized: readonly TokenizedPrompt[];
}

/** Everything that can be wrong with files and prompts is found before the first layer runs. */
async function runAll(
  context: CliContext,
  sources: readonly EncoderSource[],
  prompts: readonly string[],
  options: EncodeCommandOptions,
): Promise<{ runs: EncoderRun[]; results: SlotResult[] }> {
  const { TextEncoder } = await import('../index.js'); // loads the addon
  await using device = await openDevice(context, options);
  const loaded: Loaded[] = [];
  try {
    for (const source of sources) {
      const started = performance.now();
      const encoder = await TextEncoder.load(source.path, {
        device,
        slot: source.slot,
        precision: option.valueFor(options.precision, source.slot),
        config: configFor(options, source.slot, sources.length),
        t5Tokenizer: options.t5Tokenizer,
        clipFlavour: options.clipFlavour,
        residency: 'lean', // each encoder runs once
      });
      loaded.push({ source, encoder, loadSeconds: (performance.now() - started) / 1000 });
    }
    return await encodeAll(context, await prepare(context, loaded, prompts, options), options);
  } finally {
    for (const { encoder } of loaded) await encoder[Symbol.asyncDispose]();
  }
}

/** Tokenizes every prompt for every encoder: a missing vocabulary or a prompt too long shows here. */
async function prepare(
  context: CliContext,
  loaded: readonly Loaded[],
  prompts: readonly string[],
  options: EncodeCommandOptions,
): Promise<Prepared[]> {
  const prepared: Prepared[] = [];
  const line = progressLine(context);
  for (const { source, encoder, loadSeconds } of loaded) {
    line.say(`splitting ${counted(prompts.length, 'prompt')} for ${source.slot}`);
    const started = performance.now();
    const encodeOptions = optionsFor(context, source.slot, encoder, options);
    const tokenized: TokenizedPrompt[] = [];
    for (const prompt of prompts) tokenized.push(await encoder.tokenize(prompt, encodeOptions));
    requireOneArray(
      options.output,
      loaded.length,
      tokenized.map(({ chunks }) => chunks),
    );
    const tokenizeSeconds = (performance.now() - started) / 1000;
    prepared.push({ source, encoder, loadSeconds, tokenizeSeconds, tokenized });
  }
  line.clear();
  return prepared;
}

async function encodeAll(
  context: CliContext,
  prepared: readonly Prepared[],
  options: EncodeCommandOptions,
): Promise<{ runs: EncoderRun[]; results: SlotResult[] }> {
  const runs: EncoderRun[] = [];
  const results: SlotResult[] = [];
  for (const { source, encoder, loadSeconds, tokenizeSeconds, tokenized } of prepared) {
    const started = performance.now();
    const encodings = await encodeWithProgress(context, source.slot, encoder, tokenized, options);
    const timing = { loadSeconds, tokenizeSeconds, encodeSeconds: (performance.now() - started) / 1000 };
    const tokenizer = await encoder.tokenizer();
    runs.push(runOf({ source, encoder, tokenizer, encodings, timing, dialect: options.dialect }));
    results.push({ slot: source.slot, encodings });
    await encoder[Symbol.asyncDispose](); // its mapped weights may leave memory before the next one's come
  }
  return { runs, results };
}

async function encodeWithProgress(
  context: CliContext,
  slot: Slot,
  encoder: TextEncoder,
  prompts: readonly TokenizedPrompt[],
  options: EncodeCommandOptions,
): Promise<Encoding[]> {
  const line = progressLine(context);
  const job = encoder.encodeTokenized(prompts, optionsFor(context, slot, encoder, options));
  try {
    line.update(slot, 0, encoder.network.depth);
    for await (const { done, total } of job.progress()) line.update(slot, done, total);
    return await job;
  } finally {
    line.clear();
  }
}

/** Clip skip and the final norm are questions of CLIP: T5 always gives its last state, normed. */
function optionsFor(
  { signal }: CliContext,
  slot: Slot,
  encoder: TextEncoder,
  options: EncodeCommandOptions,
): EncodeOptions {
  const isClip = encoder.part.family === 'clip';
  const clipSkip = isClip ? option.valueFor(options.clipSkip, slot) : undefined;
  const { depth } = encoder.network;
  if (clipSkip !== undefined && clipSkip > depth)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `--clip-skip: expected 1 to ${depth} for ${slot}, which has ${depth} layers, got ${clipSkip}`,
    );
  return {
    signal,
    dialect: options.dialect,
    layout: {
      ...(options.overflow && { overflow: options.overflow }),
      ...(!isClip && options.t5Length),
    },
    clipSkip,
    norm: isClip && !options.finalNorm ? 'none' : 'final',
    hiddenStates: options.hiddenStates ? 'all' : undefined,
  };
}

/** `{"t5": {…}}` is for t5; a flat config can be meant only where there is one encoder. */
function configFor(options: EncodeCommandOptions, slot: Slot, encoders: number) {
  const { config } = options;
  if (config?.slots.has(slot)) return config.slots.get(slot);
  const nested = config?.all?.[slot];
  if (nested !== undefined) return config?.all;
  const isFlat = config?.all !== undefined && !Object.values(config.all).some((v) => typeof v === 'object');
  if (isFlat && encoders > 1)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `--config: ${encoders} encoders are given, so say which one it is for: --config ${slot}=FILE or '{"${slot}": {…}}'`,
    );
  return encoders === 1 ? config?.all : undefined;
}
