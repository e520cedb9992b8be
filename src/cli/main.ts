/** `kotoba`: parses the command line, runs one command, turns whatever happens into a message and an exit code. */
import { Command, CommanderError } from 'commander';
import { KotobaError } from '../errors.js';
import { benchCommand } from './bench.js';
import { compareCommand } from './compare.js';
import { convertCommand } from './convert.js';
import { demoCommand } from './demo.js';
import { diffCommand } from './diff.js';
import { doctorCommand } from './doctor.js';
import { encodeCommand } from './encode.js';
import { EXIT, EXIT_CODES_HELP, exitCodeOf } from './exit_codes.js';
import { forwardCommand } from './forward.js';
import { generateCommand } from './generate.js';
import { inspectCommand } from './inspect.js';
import { processIo, type CliContext, type Io } from './io.js';
import { pullCommand } from './pull.js';
import { hasColours, styleFor } from './text.js';
import { tokensCommand } from './tokens.js';
import { kotobaVersion } from './version.js';

/** In the order `kotoba --help` lists them. */
const COMMANDS: readonly ((context: CliContext) => Command)[] = [
  demoCommand,
  generateCommand,
  compareCommand,
  encodeCommand,
  tokensCommand,
  inspectCommand,
  convertCommand,
  diffCommand,
  pullCommand,
  forwardCommand,
  doctorCommand,
  benchCommand,
];

const HELP = `
Examples:
  $ kotoba demo
  $ kotoba generate "a red circle to the left of a blue square"
  $ kotoba compare "a green triangle above a red star" --seeds 1,2,3
  $ kotoba encode "a sparrow on a girl's hand" --clip-l clip_l.safetensors --t5 t5xxl-Q8_0.gguf
  $ kotoba inspect sd3_medium_incl_clips.safetensors
  $ kotoba tokens "a (sparrow:1.3) on a hand" --dialect a1111

Files are given by path, or by name: names are searched in --models-dir and in the folders of KOTOBA_MODELS
(ComfyUI's and Forge's layouts are understood), then in what kotoba pull has fetched.

Environment:
  KOTOBA_MODELS   folders of model files, separated by "${process.platform === 'win32' ? ';' : ':'}"
  KOTOBA_DEVICE   auto, cpu, cuda, cuda:N; default: auto
  KOTOBA_THREADS  CPU threads; default: every core this process may use
  KOTOBA_ISA      CPU instruction set: plain, avx2, avxvnni, avx512, avx512vnni, amx; default: the best there is
  KOTOBA_DEBUG    1: errors with their stack
  NO_COLOR        no colours

${EXIT_CODES_HELP}`;

/**
 * Runs one command line.
 * @param argv as process.argv: the first two entries are not looked at
 * @returns the exit code; never throws
 */
export async function main(argv: readonly string[], io: Io = processIo()): Promise<number> {
  const abort = new AbortController();
  const context: CliContext = { io, signal: abort.signal, exitCode: EXIT.ok };
  let interruptedWith: number = EXIT.interrupted;
  const stopListening = io.onInterrupt((exitCode) => {
    interruptedWith = exitCode;
    abort.abort();
  });
  try {
    await program(context).parseAsync(argv);
    return context.exitCode;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return EXIT.ok; // --help and --version
    const known = error instanceof CommanderError ? usageError(error) : error;
    report(known, argv, io);
    const exitCode = exitCodeOf(known);
    return exitCode === EXIT.interrupted ? interruptedWith : exitCode;
  } finally {
    stopListening();
  }
}

function program(context: CliContext): Command {
  const { stdout, stderr, env } = context.io;
  const style = styleFor(stdout, env);
  const kotoba = new Command('kotoba')
    .description(
      'Words into pictures: Flux.1 and its text encoders (CLIP, Long-CLIP, T5), from every file people have',
    )
    .version(kotobaVersion())
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void stdout.write(text),
      writeErr: (text) => void stderr.write(text),
      outputError: () => undefined, // main reports it, once
      getOutHelpWidth: () => Math.min(stdout.columns ?? 100, 110),
      getErrHelpWidth: () => Math.min(stderr.columns ?? 100, 110),
      getOutHasColors: () => hasColours(stdout, env),
      getErrHasColors: () => hasColours(stderr, env),
    })
    .configureHelp({ styleTitle: (text) => style.bold(text) })
    .addHelpText('after', HELP);
  for (const make of COMMANDS) {
    const command = make(context);
    command.copyInheritedSettings(kotoba);
    for (const sub of command.commands) sub.copyInheritedSettings(kotoba);
    kotoba.addCommand(command);
  }
  return kotoba;
}

function usageError(error: CommanderError): KotobaError {
  if (error.code === 'commander.help') return new KotobaError('ERR_ARGUMENT', 'no command given');
  return new KotobaError('ERR_ARGUMENT', `${error.message.replace(/^error: /, '')}; see kotoba --help`);
}

/** One line for a person; with --json an object on stdout. A stack only where KOTOBA_DEBUG asks for one. */
function report(error: unknown, argv: readonly string[], { stdout, stderr, env }: Io): void {
  const code = error instanceof KotobaError ? error.code : 'ERR_INTERNAL';
  const said = error instanceof Error ? error.message : String(error);
  const message =
    code === 'ERR_INTERNAL' ? `${said}. This is a bug in kotoba; KOTOBA_DEBUG=1 shows where` : said;
  const debug = env['KOTOBA_DEBUG'];
  const hasStack = debug !== undefined && debug !== '' && debug !== '0' && error instanceof Error;
  const end = argv.indexOf('--');
  if (argv.slice(0, end < 0 ? argv.length : end).includes('--json'))
    stdout.write(`${JSON.stringify({ error: { code, message } }, null, 2)}\n`);
  else {
    const style = styleFor(stderr, env);
    stderr.write(`${style.red('kotoba:')} ${code}: ${withoutControls(message)}\n`);
  }
  if (hasStack) stderr.write(`${error.stack}\n`);
}

/** Messages quote names from files: an escape sequence in one must not reach the terminal. Lines stay. */
function withoutControls(text: string): string {
  return text.replace(
    /[^\P{Cc}\n\t]/gu,
    (char) => `\\u${char.codePointAt(0)!.toString(16).padStart(4, '0')}`,
  );
}
