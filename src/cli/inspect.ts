/** `kotoba inspect`: what a file is, which slot it fits, what is missing, how many of its bytes would be read. */
import { Command, Option } from 'commander';
import { KotobaError } from '../errors.js';
import { modelDirs, findModel } from '../pipeline/find_model.js';
import { EXIT } from './exit_codes.js';
import { inspectFile, type Inspection } from './inspect_file.js';
import { inspectionText } from './inspect_text.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { printable, styleFor, widthOf } from './text.js';

interface InspectOptions {
  tensors?: boolean;
  config?: Readonly<Record<string, unknown>>;
  modelsDir: readonly string[];
  json?: boolean;
}

const HELP = `
Examples:
  $ kotoba inspect t5xxl_fp16.safetensors
  $ kotoba inspect flan-t5-xxl/                       # a folder of shards, or any one shard
  $ kotoba inspect *.safetensors --json | jq '.files[] | {path, slots: [.parts[].slot]}'

Only headers are read: a file of 44 GB takes milliseconds. Exit code 1 if a file cannot be read or holds no network
known here; a network with missing tensors is shown, with what is missing.`;

export function inspectCommand(context: CliContext): Command {
  return new Command('inspect')
    .description('what a file is, what it fits, what would be read of it')
    .argument('<files...>', 'files, shards, index.json, folders, or names')
    .option('--tensors', 'list every tensor')
    .addOption(
      new Option('--config <file|json>', "what the file does not tell, in Hugging Face's keys").argParser(
        option.parseConfig,
      ),
    )
    .addOption(option.modelsDirOption())
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action((files: string[], options: InspectOptions) => inspect(context, files, options));
}

interface Failure {
  readonly path: string;
  readonly error: { readonly code: string; readonly message: string };
}

async function inspect(context: CliContext, files: string[], options: InspectOptions): Promise<void> {
  const { io } = context;
  const dirs = modelDirs(options.modelsDir, io.env);
  const results: (Inspection | Failure)[] = [];
  for (const [i, name] of files.entries()) {
    const result = await attempt(name, dirs, options);
    results.push(result);
    if (context.signal.aborted) throw new KotobaError('ERR_CANCELLED', 'cancelled');
    if ('error' in result) context.exitCode = EXIT.failed;
    if (!options.json) print(context, result, i > 0);
  }
  if (options.json) io.stdout.write(`${JSON.stringify({ files: results }, null, 2)}\n`);
}

/** A bad file among many is reported in its place, and the others are still looked at. */
async function attempt(
  name: string,
  dirs: readonly string[],
  options: InspectOptions,
): Promise<Inspection | Failure> {
  try {
    return await inspectFile(findModel(name, dirs), options);
  } catch (error) {
    if (!(error instanceof KotobaError)) throw error;
    return { path: name, error: { code: error.code, message: error.message } };
  }
}

function print({ io }: CliContext, result: Inspection | Failure, isNext: boolean): void {
  if ('error' in result) {
    const style = styleFor(io.stderr, io.env);
    const lines = result.error.message.split('\n').map(printable).join('\n');
    io.stderr.write(`${style.red('kotoba:')} ${result.error.code}: ${lines}\n`);
    return;
  }
  const lines = inspectionText(result, styleFor(io.stdout, io.env), widthOf(io.stdout));
  io.stdout.write(`${isNext ? '\n' : ''}${lines.join('\n')}\n`);
}
