/** `kotoba bench`: kernels, encoders and pictures on this machine, beside others on the same data. */
import { Command, InvalidArgumentError } from 'commander';
import type { BenchFileName } from '../../bench/files.js';
import type { DType } from '../formats/index.js';
import type { DeviceOptions } from '../runtime/device.js';
import { deviceOption, PEER_HELP, precisionsOption, type BenchPrecision } from './bench_options.js';
import { generateBench } from './bench_generate.js';
import { goalsBench, plotBench } from './bench_report.js';
import { EXIT } from './exit_codes.js';
import type { CliContext } from './io.js';
import { names, numbers } from './lists.js';
import * as option from './options.js';

const ENCODE_HELP = `
Files of full size with random weights are made once, in KOTOBA_BENCH_DIR (default: the system's temporary folder);
a T5 takes 2.7 to 10 GB there. --peer COMMAND starts another program that speaks the protocol in bench/peer.ts;
${PEER_HELP}

Examples:
  $ kotoba bench encode --files clip_l_f32,t5_q4_0 --tokens 77,256 --threads 1,2
  $ kotoba bench encode --files t5_q8_0 --peer ./peer-encode --output results.json
  $ kotoba bench encode --device cuda --files t5_f16,t5_q4_k --tokens 512 --batches 1,8,64 --peer torch`;

interface EncodeBenchFlags {
  device: string;
  files?: string[];
  tokens?: number[];
  batches?: number[];
  threads?: number[];
  precisions?: BenchPrecision[];
  runs: number;
  deadline?: number;
  size: 'full' | 'tiny';
  peer?: string;
  output?: string;
  json?: boolean;
}

export function benchCommand(context: CliContext): Command {
  return new Command('bench')
    .description(
      'measure kernels, whole encoders or whole pictures on this machine, and show what was measured',
    )
    .addCommand(encodeBench(context))
    .addCommand(generateBench(context))
    .addCommand(opsBench(context))
    .addCommand(plotBench(context))
    .addCommand(goalsBench(context));
}

function encodeBench({ io }: CliContext): Command {
  return new Command('encode')
    .description('text encoders end to end: time, GFLOP/s, load, memory, error')
    .addOption(deviceOption())
    .option('--files <names>', 'which files (default: all but the 10 GB ones)', names)
    .option('--tokens <list>', 'T5 lengths (default: 77,256,512)', numbers)
    .option('--batches <list>', 'prompts at once (default: 1)', numbers)
    .option('--threads <list>', 'thread counts of the CPU (default: 1,2)', numbers)
    .addOption(precisionsOption())
    .option('--runs <n>', 'timed runs of each', option.wholeNumber(1), 3)
    .option('--deadline <n>', 'seconds after which no further case is begun', option.wholeNumber(1))
    .option('--size <size>', 'full or tiny, to try the bench itself', 'full')
    .option('--peer <command>', 'another program to run beside, or torch')
    .option('--output <file>', 'write the results as JSON')
    .addOption(option.jsonOption())
    .addHelpText('after', ENCODE_HELP)
    .action(async (flags: EncodeBenchFlags) => {
      const bench = await import('../../bench/encode.js');
      const files = flags.files as BenchFileName[] | undefined;
      const unknown = files?.find((name) => !bench.benchFileNames.includes(name));
      if (unknown !== undefined)
        throw new InvalidArgumentError(`--files: expected some of ${bench.benchFileNames.join(', ')}`);
      const report = await bench.runEncodeBench({
        device: flags.device,
        batches: flags.batches,
        deadline: flags.deadline,
        ...(files && { files }),
        ...(flags.tokens && { tokens: flags.tokens }),
        ...(flags.threads && { threads: flags.threads }),
        ...(flags.precisions && { precisions: flags.precisions }),
        runs: flags.runs,
        size: flags.size,
        peer: flags.peer,
        log: (line) => void (flags.json ? io.stderr : io.stdout).write(`${line}\n`),
      });
      if (flags.output) (await import('../../bench/report.js')).writeReport(flags.output, report);
      if (flags.json) io.stdout.write(`${JSON.stringify(report)}\n`);
    });
}

const OPS_HELP = `
Peers on the CPU are OpenBLAS and oneDNN where they are installed (Debian: libopenblas0-pthread, libdnnl2). On a GPU
--peer COMMAND starts a program that speaks the protocol in bench/torch_ops.ts; ${PEER_HELP}
On cuda-sim tiny cases are checked, and nothing is timed.

Examples:
  $ kotoba bench ops --filter '^linear 77x' --types F32,Q8_0 --threads 1
  $ kotoba bench ops --instructions avx2 --output ops.json
  $ kotoba bench ops --device cuda --peer torch --deadline 500 --output ops.json`;

interface OpsBenchFlags {
  device: string;
  peer?: string;
  deadline?: number;
  tiny?: boolean;
  check?: boolean;
  filter?: RegExp;
  threads?: number[];
  seconds?: number;
  types?: string[];
  precisions?: BenchPrecision[];
  instructions?: string;
  output?: string;
  json?: boolean;
}

function opsBench(context: CliContext): Command {
  const { io, signal } = context;
  return new Command('ops')
    .description('single kernels: µs, GFLOP/s, GB/s, and how many times a peer')
    .addOption(deviceOption())
    .option('--filter <pattern>', 'only cases whose name matches this regular expression', pattern)
    .option('--threads <list>', 'thread counts of the CPU (default: 1 and all)', numbers)
    .option('--seconds <n>', 'time for each case (default: 1; on a GPU 0.25)', seconds)
    .option('--tiny', 'tiny cases of every op')
    .option('--check', 'run each case once and check it, without timing')
    .option('--deadline <n>', 'seconds after which no further case is begun', option.wholeNumber(1))
    .option('--types <list>', 'weight types, for example F32,F16,Q8_0', names)
    .addOption(precisionsOption())
    .option('--peer <command>', 'on a GPU: another program to run beside, or torch')
    .option('--instructions <set>', 'instruction set to force (default: the best)')
    .option('--output <file>', 'write the results as JSON')
    .addOption(option.jsonOption())
    .addHelpText('after', OPS_HELP)
    .action(async (flags: OpsBenchFlags) => {
      const { runOpsBench } = await import('../../bench/ops.js');
      const { torchCommand } = await import('../../bench/torch_ops.js');
      const report = await runOpsBench({
        device: flags.device,
        peer: flags.peer === 'torch' ? torchCommand('ops.py') : flags.peer,
        deadline: flags.deadline,
        tiny: flags.tiny,
        check: flags.check,
        filter: flags.filter,
        threads: flags.threads,
        seconds: flags.seconds,
        types: flags.types as DType[] | undefined,
        precisions: flags.precisions,
        instructions: flags.instructions as DeviceOptions['instructions'],
        json: flags.output,
        signal,
        log: (line) => void (flags.json ? io.stderr : io.stdout).write(`${line}\n`),
      });
      if (flags.json) io.stdout.write(`${JSON.stringify(report)}\n`);
      if (report.wrong.length > 0) context.exitCode = EXIT.failed; // a kernel gave a wrong result
    });
}

function seconds(value: string): number {
  const parsed = Number(value);
  if (!(parsed > 0 && parsed < 3600)) throw new InvalidArgumentError('expected seconds, more than 0.');
  return parsed;
}

function pattern(value: string): RegExp {
  try {
    return new RegExp(value);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}
