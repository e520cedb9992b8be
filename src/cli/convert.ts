/** `kotoba convert`: makes one model file of another. */
import { resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import {
  containerOf,
  convertModel,
  extractedSlot,
  type ConvertOptions,
  type Converted,
} from '../convert/convert.js';
import { WRITTEN_TYPES, type TypeRule, type WrittenType } from '../convert/types.js';
import { KotobaError } from '../errors.js';
import { openModel, selectPart, type ModelFile, type Part, type Slot } from '../formats/index.js';
import { findModel, modelDirs } from '../pipeline/find_model.js';
import { Device } from '../runtime/device.js';
import { loadT5Vocabulary, type UnigramVocabulary } from '../text/index.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { requireNew, requireNoInput, requireWritableFile } from './output_path.js';
import { progressLine } from './progress.js';
import { bytesText, counted, printable, secondsText, styleFor } from './text.js';

interface ConvertFlags {
  extract?: Slot;
  type?: WrittenType;
  tensorType: readonly TypeRule[];
  clipL?: string;
  clipG?: string;
  clipH?: string;
  t5?: string;
  vae?: string;
  t5Tokenizer?: string;
  config?: Readonly<Record<string, unknown>>;
  threads?: number;
  force?: boolean;
  modelsDir: readonly string[];
  json?: boolean;
}

const HELP = `
Examples:
  Shards of 44 GB to the half that text encoding uses, in one file:
    $ kotoba convert flan-t5-xxl/ flan-t5-xxl-te.safetensors --extract t5
  Quantised, with its vocabulary inside, for any program that reads GGUF:
    $ kotoba convert flan-t5-xxl/ flan-t5-xxl-Q5_K.gguf --extract t5 --type Q5_K
  An encoder out of a checkpoint, and a better one put back:
    $ kotoba convert sd_xl_base_1.0.safetensors clip_g.safetensors --extract clip_g
    $ kotoba convert v1-5.safetensors v1-5-better.safetensors --clip-l ViT-L-14-GmP.safetensors
  A Flux transformer, two of its matrices finer than the rest:
    $ kotoba convert flux1-dev.safetensors flux1-dev.gguf --extract transformer --type Q4_K \\
        --tensor-type 'img_attn=Q6_K' --tensor-type 'txt_attn=Q6_K'

The output's name tells its kind: .safetensors or .gguf. Weights stay in their type unless --type says otherwise. With a
quantised --type, norms and biases are F32, and convolutions and what a network begins and ends with F16; rows that are
no whole blocks of 256 take the nearest type with blocks of 32. A file that is one network alone gets the names that
readers of the other kind expect: llama.cpp's for a T5, those of its original code for a UNet or a transformer. An encoder
that a checkpoint lacks is put where other programs look for it. The file appears under its name when it has been written,
read again and compared.`;

const kReplaceable = [
  ['clipL', 'clip_l'],
  ['clipG', 'clip_g'],
  ['clipH', 'clip_h'],
  ['t5', 't5'],
  ['vae', 'vae'],
] as const satisfies readonly (readonly [keyof ConvertFlags, Slot])[];

export function convertCommand(context: CliContext): Command {
  return new Command('convert')
    .description('merge shards, extract or put back encoders, change types, quantise')
    .argument('<in>', 'a file, a folder of shards, or a name')
    .argument('<out>', 'a .safetensors or .gguf file')
    .addOption(
      new Option(
        '--extract <slot>',
        'one network: clip_l, clip_g, clip_h, t5, transformer, unet, vae',
      ).argParser(option.parseSlot),
    )
    .addOption(
      new Option('--type <type>', `of the weights: ${WRITTEN_TYPES.join(', ')}`).argParser(
        option.oneOf(WRITTEN_TYPES),
      ),
    )
    .addOption(
      new Option('--tensor-type <pattern=type>', 'of tensors whose names match; may be repeated')
        .argParser((text: string, before: readonly TypeRule[]) => [...before, parseRule(text)])
        .default([], 'none'),
    )
    .option('--clip-l <file>', "the CLIP-L in the place of the input's own")
    .option('--clip-g <file>', "the CLIP-G in the place of the input's own")
    .option('--clip-h <file>', "the CLIP-H in the place of the input's own")
    .option('--t5 <file>', "the T5 in the place of the input's own")
    .option('--vae <file>', "the VAE in the place of the input's own")
    .addOption(option.t5TokenizerOption())
    .addOption(
      new Option('--config <file|json>', 'what the input does not tell, with --extract').argParser(
        option.parseConfig,
      ),
    )
    .addOption(
      new Option('--threads <n>', 'CPU threads (default: all cores)').argParser(option.wholeNumber(1)),
    )
    .option('--force', 'overwrite the output')
    .addOption(option.modelsDirOption())
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action((input: string, output: string, flags: ConvertFlags) => convert(context, input, output, flags));
}

function parseRule(text: string): TypeRule {
  const [, pattern = '', type = ''] = /^(.*)=([^=]*)$/s.exec(text) ?? [];
  if (!pattern || !WRITTEN_TYPES.includes(type as WrittenType))
    throw new InvalidArgumentError(
      `expected a pattern and a type, for example 'attn_v=Q6_K', got "${text}".`,
    );
  try {
    return { pattern: new RegExp(pattern), type: type as WrittenType };
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

async function convert(
  context: CliContext,
  name: string,
  output: string,
  flags: ConvertFlags,
): Promise<void> {
  const { io, signal } = context;
  const dirs = modelDirs(flags.modelsDir, io.env);
  const find = (file: string): ModelFile => openModel(findModel(file, dirs));
  const input = find(name);
  const replace = kReplaceable.flatMap(([flag, slot]) => {
    const file = flags[flag];
    if (file === undefined) return [];
    const model = find(file);
    return [{ slot, model, part: selectPart(model, { slot, allowUndecided: true }) }];
  });
  const inputs = [input, ...replace.map(({ model }) => model)].flatMap(({ files }) =>
    files.map(({ path }) => path),
  );
  requireNoInput('OUT', output, inputs);
  if (!flags.force) requireNew('OUT', output);
  requireWritableFile('OUT', output);

  const progress = progressLine(context);
  const started = performance.now();
  await using device = Device.open('cpu', { threads: flags.threads });
  const made = await convertModel(device, input, resolve(output), {
    extract: flags.extract,
    type: flags.type,
    rules: flags.tensorType,
    replace,
    config: flags.config,
    vocabulary: await vocabularyFor(input, replace, flags, output),
    signal,
    onProgress: (bytes, total, what) =>
      progress.update(what, bytes, total, `${bytesText(bytes)} of ${bytesText(total)}`),
  }).finally(() => progress.clear());
  report(
    context,
    output,
    made,
    (performance.now() - started) / 1000,
    replace.map(({ part }) => part),
    flags,
  );
}

/** Of a file that will be a T5 alone, in a GGUF. */
async function vocabularyFor(
  input: ModelFile,
  replace: ConvertOptions['replace'],
  flags: ConvertFlags,
  output: string,
): Promise<UnigramVocabulary | undefined> {
  const container = containerOf(output);
  const slot = extractedSlot(input, container, { extract: flags.extract, replace });
  if (slot !== 't5' || container !== 'gguf') {
    if (flags.t5Tokenizer !== undefined)
      throw new KotobaError('ERR_ARGUMENT', '--t5-tokenizer: is for a T5 that goes into a .gguf file');
    return undefined;
  }
  return loadT5Vocabulary({
    ...(flags.t5Tokenizer !== undefined && { explicitPath: flags.t5Tokenizer }),
    ...(input.container === 'gguf' && { metadata: input.metadata }),
    dirs: [input.weightsDir],
    weights: input.path,
  });
}

function report(
  { io }: CliContext,
  output: string,
  { container, bytes, tensors }: Converted,
  seconds: number,
  replaced: readonly Part[],
  { json }: ConvertFlags,
): void {
  const counts = new Map<string, number>();
  for (const { dtype } of tensors) counts.set(dtype, (counts.get(dtype) ?? 0) + 1);
  if (json) {
    const types = Object.fromEntries(counts);
    io.stdout.write(
      `${JSON.stringify({ path: output, container, bytes, seconds, types, tensors }, null, 2)}\n`,
    );
    return;
  }
  const style = styleFor(io.stdout, io.env);
  const types = [...counts].sort((a, b) => b[1] - a[1]).map(([type, count]) => `${count} ${type}`);
  io.stdout.write(
    `${style.bold(printable(output))}: ${bytesText(bytes)}, ${counted(tensors.length, 'tensor')} ` +
      `(${types.join(', ')}), read back and compared, ${secondsText(seconds)}\n`,
  );
  for (const { description } of replaced) io.stdout.write(`  with ${printable(description)}\n`);
}
