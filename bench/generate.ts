/**
 * From words to pictures on full-size files with random weights, or on the small model that ships: seconds of each
 * phase, GFLOP/s, peak RSS; ours in every precision and, if given, a peer on the same files and the same noise,
 * interleaved. The pictures are compared as well: they agree only if both pipelines do, from tokens to pixels.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { KotobaError } from '../src/errors.js';
import { pictureDistance, type Picture } from '../src/image/index.js';
import { fluxSchnell, makeSigmas } from '../src/sampling/index.js';
import {
  startGeneratePeer,
  type GeneratePeer,
  type GeneratePeerOptions,
  type GeneratePeerReady,
  type GeneratePeerRun,
} from './generate_peer.js';
import {
  imageModelNames,
  makeImageModel,
  type ImageFileSize,
  type ImageModelName,
  type MadeImageModel,
} from './image_files.js';
import { measuredCommit } from './report.js';
import { summarize, type Summary } from './stats.js';

export interface GenerateBenchOptions {
  /** Default: flux_q4_0. */
  readonly files?: readonly ImageModelName[] | undefined;
  /** Of the random files; default `full`. */
  readonly fileSize?: ImageFileSize | undefined;
  /** Where the random files are; default KOTOBA_BENCH_DIR. */
  readonly directory?: string | undefined;
  /** Pixels, multiples of 16. Default: 256 × 256, of the small model 64 × 64. */
  readonly width?: number | undefined;
  readonly height?: number | undefined;
  /** Default 1. */
  readonly steps?: number | undefined;
  /** Thread counts. Default 2. */
  readonly threads?: readonly number[] | undefined;
  readonly precisions?: readonly ('fp32' | 'int8')[] | undefined;
  /** A command that speaks the protocol of generate_peer.ts. */
  readonly peer?: string | undefined;
  /** Timed runs of each contender, after one untimed. Default 3. */
  readonly runs?: number | undefined;
  readonly log?: ((line: string) => void) | undefined;
}

/** What our own process adds to the protocol. */
type OwnReady = GeneratePeerReady & { bytes_used: number; instructions: string; cpu: string };
type OwnRun = GeneratePeerRun & { sample_flops: number; decode_flops: number; event_loop_delay_ms: number };

export const PHASES = ['load', 'encode', 'sample', 'decode', 'total'] as const;
export type Phase = (typeof PHASES)[number];

/** One contender on one case. */
export interface GenerateBenchResult {
  readonly file: ImageModelName;
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly threads: number;
  /** `fp32`, `int8` or `peer`. */
  readonly contender: string;
  /** `total` is from nothing loaded to the picture, with everything let go again. */
  readonly seconds: Readonly<Record<Phase, Summary>>;
  readonly secondsPerStep: number;
  /** Operations counted from the shapes / median wall second. */
  readonly gflops: { readonly sample: number; readonly decode: number };
  /** Process CPU time of the median run, seconds. */
  readonly cpuSeconds: number;
  readonly rssPeak: number;
  /** Bytes of the tensors that are used. */
  readonly bytesUsed: number;
  /** Longest delay of the JavaScript thread in any run, ms; ours only. */
  readonly eventLoopDelayMs?: number | undefined;
  /** Against our fp32's picture, dB; not for itself, nor for an identical picture. */
  readonly psnr?: number | undefined;
  /** ‖picture − fp32's‖ / ‖fp32's − its mean‖, over 8-bit channels. */
  readonly relativeError: number;
  /** Peer's median seconds / ours. */
  readonly timesPeer?: Readonly<Record<Phase, number>> | undefined;
}

export interface GenerateReport {
  readonly what: 'generate';
  readonly date: string;
  readonly commit: string;
  readonly cpu: string;
  readonly instructions: string;
  readonly results: readonly GenerateBenchResult[];
}

/** Node's arguments for our own process; run from source, as tsx and tests do, it is TypeScript. */
const SERVE = ['generate_serve.js', 'generate_serve.ts']
  .map((name) => fileURLToPath(new URL(name, import.meta.url)))
  .filter((path) => existsSync(path))
  .flatMap((path) => (path.endsWith('.ts') ? ['--import', 'tsx', path] : [path]));
const SEED = 42;

/** @throws KotobaError ERR_ARGUMENT for what a peer does wrong, and what our own pipeline says of bad options */
export async function runGenerateBench(options: GenerateBenchOptions = {}): Promise<GenerateReport> {
  const results: GenerateBenchResult[] = [];
  let instructions = '';
  const { fileSize: size, directory } = options;
  for (const file of options.files ?? (['flux_q4_0'] as const)) {
    const made = makeImageModel(file, { ...(size && { size }), ...(directory && { directory }) });
    for (const threads of options.threads ?? [2]) {
      const one = await runCase(made, threads, options);
      instructions = one.instructions;
      results.push(...one.results);
      for (const result of one.results) options.log?.(formatGenerateResult(result));
    }
  }
  const date = new Date().toISOString();
  const cpu = cpus()[0]?.model.trim() ?? '';
  return { what: 'generate', date, commit: measuredCommit(), cpu, instructions, results };
}

interface Contender {
  readonly name: string;
  readonly process: GeneratePeer;
  readonly runs: GeneratePeerRun[];
  picture?: Picture;
}

type Case = Pick<GenerateBenchResult, 'file' | 'width' | 'height' | 'steps' | 'threads'>;

async function runCase(
  made: MadeImageModel,
  threads: number,
  options: GenerateBenchOptions,
): Promise<{ results: GenerateBenchResult[]; instructions: string }> {
  const { width = made.side, height = made.side, steps = 1, runs = 3 } = options;
  const at: Case = { file: made.name, width, height, steps, threads };
  const sigmas = makeSigmas({ schedule: 'flux', model: fluxSchnell(), steps });
  const request = { model: made.model, prompt: made.prompt, width, height, sigmas, seed: SEED, threads };
  const folder = mkdtempSync(join(tmpdir(), 'kotoba-bench-'));
  const contenders: Contender[] = [];
  try {
    for (const [name, command] of commands(options))
      contenders.push(await startContender(name, { ...request, command }));
    for (const contender of contenders) await runOnce(contender, at, folder); // warms the page cache
    for (let i = 0; i < runs; i++) {
      // A B C, C B A, …: a drift of the machine hits all alike.
      const order = i % 2 ? [...contenders].reverse() : contenders;
      for (const contender of order) await runOnce(contender, at, folder);
    }
    return reportCase(contenders, at);
  } finally {
    for (const { process } of contenders) await process.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** fp32 comes first: the others' pictures are compared with its. */
function commands({
  precisions = ['fp32', 'int8'],
  peer,
}: GenerateBenchOptions): [string, string | string[]][] {
  const own = [...new Set(['fp32' as const, ...precisions])];
  const list = own.map((p): [string, string | string[]] => [
    p,
    [process.execPath, ...SERVE, '--precision', p],
  ]);
  return peer === undefined ? list : [...list, ['peer', peer]];
}

async function startContender(name: string, options: GeneratePeerOptions): Promise<Contender> {
  return { name, process: await startGeneratePeer(options), runs: [] };
}

async function runOnce(contender: Contender, { width, height }: Case, folder: string): Promise<void> {
  const path = join(folder, `${contender.name}.rgb`);
  const run = await contender.process.ask<GeneratePeerRun>('run', path);
  for (const phase of PHASES) {
    const seconds = secondsOf(run, phase);
    if (!(seconds >= 0))
      throw wrongAnswer(contender, `expected the seconds of '${phase}', received ${seconds}`);
  }
  const rgb = new Uint8Array(readFileSync(path));
  if (rgb.length !== width * height * 3)
    throw wrongAnswer(contender, `expected a picture of ${width * height * 3} bytes, received ${rgb.length}`);
  contender.runs.push(run);
  contender.picture = { width, height, rgb };
}

const secondsOf = (run: GeneratePeerRun, phase: Phase): number =>
  phase === 'total' ? run.seconds : run[`${phase}_seconds`];

function wrongAnswer({ name }: Contender, what: string): KotobaError {
  return new KotobaError('ERR_ARGUMENT', `${name}: ${what}`);
}

function reportCase(
  contenders: readonly Contender[],
  at: Case,
): { results: GenerateBenchResult[]; instructions: string } {
  const own = contenders[0]!;
  const { instructions } = own.process.ready as OwnReady;
  const results = contenders.map((contender) => resultOf(contender, own, at));
  const peer = results.find((r) => r.contender === 'peer');
  if (!peer) return { results, instructions };
  const timesPeer = (r: GenerateBenchResult): Record<Phase, number> =>
    perPhase((phase) => peer.seconds[phase].median / r.seconds[phase].median);
  return { results: results.map((r) => (r === peer ? r : { ...r, timesPeer: timesPeer(r) })), instructions };
}

function resultOf(contender: Contender, own: Contender, at: Case): GenerateBenchResult {
  const { sample_flops, decode_flops } = own.runs[0] as OwnRun;
  const { bytes_used } = own.process.ready as OwnReady;
  const timed = contender.runs.slice(1);
  const seconds = perPhase((phase) => summarize(timed.map((run) => secondsOf(run, phase))));
  const delays = contender.runs.flatMap((run) => (run as Partial<OwnRun>).event_loop_delay_ms ?? []);
  const { psnr } = pictureDistance(contender.picture!, own.picture!);
  return {
    ...at,
    contender: contender.name,
    seconds,
    secondsPerStep: seconds.sample.median / at.steps,
    gflops: {
      sample: sample_flops / seconds.sample.median / 1e9,
      decode: decode_flops / seconds.decode.median / 1e9,
    },
    cpuSeconds: summarize(timed.map((run) => run.cpu_seconds)).median,
    rssPeak: Math.max(...contender.runs.map((run) => run.rss_peak)),
    bytesUsed: bytes_used,
    eventLoopDelayMs: delays.length ? Math.max(...delays) : undefined,
    psnr: Number.isFinite(psnr) ? psnr : undefined,
    relativeError: relativeError(contender.picture!, own.picture!),
  };
}

function perPhase<T>(of: (phase: Phase) => T): Record<Phase, T> {
  return Object.fromEntries(PHASES.map((phase) => [phase, of(phase)])) as Record<Phase, T>;
}

function relativeError({ rgb }: Picture, { rgb: exact }: Picture): number {
  const mean = exact.reduce((sum, v) => sum + v, 0) / exact.length;
  let difference = 0;
  let spread = 0;
  for (const [i, value] of exact.entries()) {
    difference += (rgb[i]! - value) ** 2;
    spread += (value - mean) ** 2;
  }
  return Math.sqrt(difference / spread);
}

export function formatGenerateResult(r: GenerateBenchResult): string {
  const phase = (name: Phase): string => `${name} ${r.seconds[name].median.toFixed(2)} s`;
  const { sample, total } = r.seconds;
  const cells = [
    r.file.padEnd(9),
    `${r.width}x${r.height}`.padEnd(7),
    `${r.steps} steps`,
    `${r.threads} thr`,
    r.contender.padEnd(5),
    phase('load'),
    phase('encode'),
    `${r.secondsPerStep.toFixed(2)} s a step [${(sample.p5 / r.steps).toFixed(2)}, ${(sample.p95 / r.steps).toFixed(2)}]`,
    `${r.gflops.sample.toFixed(0)} GFLOP/s`.padStart(12),
    `${phase('decode')} ${r.gflops.decode.toFixed(0)} GFLOP/s`,
    `total ${total.median.toFixed(2)} s [${total.p5.toFixed(2)}, ${total.p95.toFixed(2)}]`,
    `RSS ${(r.rssPeak / 1e6).toFixed(0)}, weights ${(r.bytesUsed / 1e6).toFixed(0)} MB`,
    r.contender === 'fp32' ? '' : `error ${r.relativeError.toExponential(1)} ${psnrText(r)}`,
    r.eventLoopDelayMs === undefined ? '' : `loop ${r.eventLoopDelayMs.toFixed(1)} ms`,
    r.timesPeer === undefined ? '' : timesPeerText(r.timesPeer),
  ];
  return cells.filter(Boolean).join('  ');
}

const psnrText = ({ psnr }: GenerateBenchResult): string =>
  psnr === undefined ? '(identical)' : `(${psnr.toFixed(1)} dB)`;

const timesPeerText = (times: Readonly<Record<Phase, number>>): string =>
  `× peer: ${(['encode', 'sample', 'decode', 'total'] as const)
    .map((phase) => `${phase} ${times[phase].toFixed(2)}`)
    .join(', ')}`;

export { imageModelNames };
