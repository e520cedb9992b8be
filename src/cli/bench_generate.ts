/** `kotoba bench generate`: pictures end to end on this machine, beside another program on the same files. */
import { Command, InvalidArgumentError, Option } from 'commander';
import type { ImageFileSize, ImageModelName } from '../../bench/image_files.js';
import { deviceOption, PEER_HELP, precisionsOption, type BenchPrecision } from './bench_options.js';
import { decimal, parseSize, type PictureSize } from './image_options.js';
import type { CliContext } from './io.js';
import { names, numbers } from './lists.js';
import * as option from './options.js';

const HELP = `
Models: flux_q4_0, flux_q8_0, flux_q4_k, flux_f16 (Flux.1 schnell's shape with random weights), sd1_f16, sd1_f32 (Stable
Diffusion 1.5's), small (the trained model that ships). The random files are made once, in KOTOBA_BENCH_DIR (default: the
system's temporary folder): flux_q4_0 takes 10 GB there with its encoders, flux_q8_0 18, flux_f16 34, sd1_f16 2, sd1_f32
4. A run starts with nothing loaded and ends so.
On a GPU the model is loaded before the first run and stays.
--peer COMMAND starts another program that speaks the protocol in bench/generate_peer.ts; ${PEER_HELP}

Examples:
  $ kotoba bench generate --files small --threads 1,2
  $ kotoba bench generate --peer ./peer-generate --output results.json
  $ kotoba bench generate --files sd1_f16 --steps 4 --cfg 7 --peer ./peer-generate
  $ kotoba bench generate --device cuda --files flux_q8_0 --size 1024x1024 --steps 4 --peer torch`;

interface GenerateBenchFlags {
  device: string;
  files?: string[];
  size?: PictureSize;
  steps: number;
  cfg: number;
  threads?: number[];
  precisions?: BenchPrecision[];
  runs: number;
  fileSize: ImageFileSize;
  peer?: string;
  output?: string;
  json?: boolean;
}

export function generateBench({ io }: CliContext): Command {
  return new Command('generate')
    .description('pictures end to end: time of each phase, GFLOP/s, memory, agreement')
    .addOption(deviceOption())
    .option('--files <names>', 'which models (default: flux_q4_0)', names)
    .option('--size <WxH>', 'pixels (default: 256x256; small: 64x64)', parseSize)
    .option('--steps <n>', 'steps of the solver', option.wholeNumber(1), 1)
    .option('--cfg <n>', 'guidance against the empty prompt, 1: none', decimal, 1)
    .option('--threads <list>', 'thread counts of the CPU (default: 2)', numbers)
    .addOption(precisionsOption())
    .option('--runs <n>', 'timed runs of each, after one untimed', option.wholeNumber(1), 3)
    .addOption(
      new Option('--file-size <size>', 'of the random models; mini and tiny are to try the bench itself')
        .choices(['full', 'mini', 'tiny'])
        .default('full'),
    )
    .option('--peer <command>', 'another program to run beside, or torch')
    .option('--output <file>', 'write the results as JSON')
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action(async (flags: GenerateBenchFlags) => {
      const bench = await import('../../bench/generate.js');
      const files = flags.files as ImageModelName[] | undefined;
      if (files?.some((name) => !bench.imageModelNames.includes(name)))
        throw new InvalidArgumentError(`--files: expected some of ${bench.imageModelNames.join(', ')}`);
      const report = await bench.runGenerateBench({
        ...flags.size,
        device: flags.device,
        files,
        steps: flags.steps,
        cfg: flags.cfg,
        threads: flags.threads,
        precisions: flags.precisions,
        runs: flags.runs,
        fileSize: flags.fileSize,
        peer: flags.peer,
        log: (line) => void (flags.json ? io.stderr : io.stdout).write(`${line}\n`),
      });
      if (flags.output) (await import('../../bench/report.js')).writeReport(flags.output, report);
      if (flags.json) io.stdout.write(`${JSON.stringify(report)}\n`);
    });
}
