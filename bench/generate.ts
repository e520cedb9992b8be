/**
 * From words to pictures on full-size files with random weights, or on the small model that ships: seconds of each
 * phase, GFLOP/s, peak RSS; ours in every precision and, if given, a peer on the same files and the same noise,
 * interleaved. The pictures are compared as well: they agree only if both pipelines do, from tokens to pixels.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KotobaError } from '../src/errors.js';
import { Device, type DeviceName } from '../src/runtime/device.js';
import type { OpPrecision } from '../src/runtime/ops.js';
import { fluxSchnell, makeSigmas, scaledLinear } from '../src/sampling/index.js';
import { startGeneratePeer, type GeneratePeerOptions, type GeneratePeerRun } from './generate_peer.js';
import {
  imageModelNames,
  makeImageModel,
  type ImageFileSize,
  type ImageModelName,
  type MadeImageModel,
} from './image_files.js';
import { formatGenerateResult, formatStepPeer } from './generate_print.js';
import {
  PHASES,
  resultOf,
  secondsOf,
  timesPeer,
  withoutTimes,
  type Case,
  type Contender,
  type GenerateBenchResult,
  type OwnRun,
} from './generate_result.js';
import { ownCommand, precisionsOf } from './own_process.js';
import { isGpu, isSimulated, runFacts, type RunFacts } from './report.js';
import { StepPeer, type StepPeerResult } from './step_peer.js';

export interface GenerateBenchOptions {
  /** Default `cpu`. On a simulated device everything runs, and no times are reported. */
  readonly device?: string | undefined;
  /** Whether the model is loaded before the first run and stays; default: on a GPU. Else a run begins with nothing. */
  readonly loaded?: boolean | undefined;
  /** Default: flux_q4_0. */
  readonly files?: readonly ImageModelName[] | undefined;
  /** Of the random files; default `full`. */
  readonly fileSize?: ImageFileSize | undefined;
  /** Where the random files are; default KOTOBA_BENCH_DIR. */
  readonly directory?: string | undefined;
  /** Pixels, multiples of 16. Default: 256 × 256, of the small model 64 × 64. */
  readonly width?: number | undefined;
  readonly height?: number | undefined;
  /** Guidance against the empty prompt. Default 1: none. */
  readonly cfg?: number | undefined;
  /** Default 1. */
  readonly steps?: number | undefined;
  /** Thread counts of the CPU. Default 2. */
  readonly threads?: readonly number[] | undefined;
  readonly precisions?: readonly OpPrecision[] | undefined;
  /** A command that speaks the protocol of generate_peer.ts; `torch`: PyTorch's Flux transformer, by its time a step. */
  readonly peer?: string | undefined;
  /** Timed runs of each contender, after one untimed. Default 3. */
  readonly runs?: number | undefined;
  readonly log?: ((line: string) => void) | undefined;
}

export interface GenerateReport extends RunFacts {
  readonly what: 'generate';
  readonly instructions: string;
  readonly results: readonly GenerateBenchResult[];
  /** Other programs that have the transformer alone. */
  readonly stepPeers?:
    readonly (StepPeerResult & Pick<GenerateBenchResult, 'file' | 'width' | 'height'>)[] | undefined;
}

const SEED = 42;

/** @throws KotobaError ERR_ARGUMENT for what a peer does wrong, and what our own pipeline says of bad options */
export async function runGenerateBench(options: GenerateBenchOptions = {}): Promise<GenerateReport> {
  const { device = 'cpu' } = options;
  const probe = Device.open(device as DeviceName);
  const facts = runFacts(device, probe.info);
  const { instructions } = probe.info;
  probe.close();
  let { versions } = facts;
  const results: GenerateBenchResult[] = [];
  const stepPeers: NonNullable<GenerateReport['stepPeers']>[number][] = [];
  const { fileSize: size, directory } = options;
  for (const file of options.files ?? (['flux_q4_0'] as const)) {
    const made = makeImageModel(file, { ...(size && { size }), ...(directory && { directory }) });
    for (const threads of isGpu(device) ? [0] : (options.threads ?? [2])) {
      const one = await runCase(made, threads, { ...options, device });
      versions = { ...versions, ...one.versions };
      results.push(...one.results);
      const { width, height } = one.results[0]!;
      stepPeers.push(...one.stepPeers.map((peer) => ({ file, width, height, ...peer })));
      for (const result of one.results) options.log?.(formatGenerateResult(result));
      for (const peer of one.stepPeers) options.log?.(formatStepPeer(peer));
    }
  }
  return {
    what: 'generate',
    ...facts,
    versions,
    instructions,
    results,
    ...(stepPeers.length && { stepPeers }),
  };
}

type DeviceOptions = GenerateBenchOptions & { readonly device: string };

interface CaseResults {
  readonly results: GenerateBenchResult[];
  readonly stepPeers: StepPeerResult[];
  readonly versions: Readonly<Record<string, string>>;
}

async function runCase(made: MadeImageModel, threads: number, options: DeviceOptions): Promise<CaseResults> {
  const { width = made.side, height = made.side, steps = 1, cfg = 1, runs = 3, device } = options;
  const loaded = options.loaded ?? isGpu(device);
  const at: Case = { file: made.name, width, height, steps, ...(cfg !== 1 && { cfg }), threads, loaded };
  const { model, prompt } = made;
  const request = { model, prompt, width, height, sigmas: sigmasOf(made, steps), cfg, seed: SEED, threads };
  const folder = mkdtempSync(join(tmpdir(), 'kotoba-bench-'));
  const contenders: Contender[] = [];
  const stepPeers: StepPeer[] = [];
  try {
    for (const [name, command] of commands({ ...options, loaded }))
      contenders.push(await startContender(name, { ...request, command }));
    for (const contender of contenders) await runOnce(contender, at, folder); // warms the page cache
    if (options.peer === 'torch' && made.family !== 'sd1' && !isSimulated(device)) {
      const textTokens = (contenders[0]!.runs[0] as OwnRun).text_tokens;
      stepPeers.push(
        ...(await StepPeer.startAll(device, { textTokens, imageTokens: (width * height) / 256, steps })),
      );
    }
    for (let i = 0; i < runs; i++) {
      // A B C, C B A, …: a drift of the machine hits all alike.
      const turns = [
        ...contenders.map((contender) => () => runOnce(contender, at, folder)),
        ...stepPeers.map((peer) => () => peer.run()),
      ];
      for (const turn of i % 2 ? turns.toReversed() : turns) await turn();
    }
    return reportCase(contenders, stepPeers, at, device);
  } finally {
    for (const { process } of contenders) await process.close();
    for (const peer of stepPeers) await peer.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Levels that other programs have too: stable-diffusion.cpp calls those of SD1 "discrete". */
function sigmasOf({ family }: MadeImageModel, steps: number): number[] {
  if (family === 'sd1') return makeSigmas({ schedule: 'normal', model: scaledLinear(), steps });
  return makeSigmas({ schedule: 'flux', model: fluxSchnell(), steps });
}

/** The first's picture is the one that the others are compared with. */
function commands({
  device,
  loaded,
  precisions,
  peer,
}: DeviceOptions): [string, string | readonly string[]][] {
  const list = precisionsOf(device, precisions).map((precision): [string, readonly string[]] => [
    precision,
    [...ownCommand('generate_serve', { device, precision }), ...(loaded ? ['--loaded'] : [])],
  ]);
  return peer === undefined || peer === 'torch' ? list : [...list, ['peer', peer]];
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

function wrongAnswer({ name }: Contender, what: string): KotobaError {
  return new KotobaError('ERR_ARGUMENT', `${name}: ${what}`);
}

function reportCase(
  contenders: readonly Contender[],
  stepPeers: readonly StepPeer[],
  at: Case,
  device: string,
): CaseResults {
  const own = contenders[0]!;
  const simulated = isSimulated(device);
  const all = contenders.map((contender) => resultOf(contender, own, at));
  const peer = all.find((r) => r.contender === 'peer');
  const compared = all.map((r) => (r === peer || !peer ? r : { ...r, timesPeer: timesPeer(peer, r) }));
  const ours = new Map(compared.map((r) => [r.contender, r.secondsPerStep!]));
  return {
    results: simulated ? compared.map(withoutTimes) : compared,
    stepPeers: stepPeers.map((each) => each.result(ours)),
    versions: Object.assign({}, ...stepPeers.map((each) => each.versions)) as Record<string, string>,
  };
}

export { formatGenerateResult, imageModelNames, PHASES };
