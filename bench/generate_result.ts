/** What a contender's runs come to: phases, rates, memory, and how its picture compares. */
import { pictureDistance, type Picture } from '../src/image/index.js';
import type { GeneratePeer, GeneratePeerReady, GeneratePeerRun } from './generate_peer.js';
import type { ImageModelName } from './image_files.js';
import { summarize, type Summary } from './stats.js';

/** What our own process adds to the protocol. */
export type OwnReady = GeneratePeerReady & { bytes_used: number };
export interface OwnRun extends GeneratePeerRun {
  readonly sample_flops: number;
  readonly decode_flops: number;
  readonly event_loop_delay_ms: number;
  readonly device_peak?: number;
  readonly text_tokens: number;
}

export const PHASES = ['load', 'encode', 'sample', 'decode', 'total'] as const;
export type Phase = (typeof PHASES)[number];

/** One contender on one case. */
export interface GenerateBenchResult {
  readonly file: ImageModelName;
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  /** Guidance against the empty prompt: two evaluations a step. Absent: none. */
  readonly cfg?: number | undefined;
  /** The CPU's; 0 on a GPU. */
  readonly threads: number;
  /** A precision of ours, or `peer`. */
  readonly contender: string;
  /** Whether the model was there before the run: `total` is then from the prompt to the picture. */
  readonly loaded?: boolean | undefined;
  /** `total` is from nothing loaded to the picture, with everything let go again. Absent on a simulated device. */
  readonly seconds?: Readonly<Record<Phase, Summary>> | undefined;
  readonly secondsPerStep?: number | undefined;
  /** Of a step, leaving out each run's first, in which the model may still be loaded. */
  readonly laterSteps?: Summary | undefined;
  /** Operations counted from the shapes / median wall second. */
  readonly gflops?: { readonly sample: number; readonly decode: number } | undefined;
  /** Process CPU time of the median run, seconds. */
  readonly cpuSeconds?: number | undefined;
  readonly rssPeak: number;
  /** Of the memory that the device's pool holds, bytes. */
  readonly devicePeak?: number | undefined;
  /** Bytes of the tensors that are used. */
  readonly bytesUsed: number;
  /** Longest delay of the JavaScript thread in any run, ms; ours only. */
  readonly eventLoopDelayMs?: number | undefined;
  /** Against the first contender's picture (fp32's, unless it was left out), dB; not for an identical one. */
  readonly psnr?: number | undefined;
  /** ‖picture − first's‖ / ‖first's − its mean‖, over 8-bit channels. */
  readonly relativeError: number;
  /** Peer's median seconds / ours. */
  readonly timesPeer?: Readonly<Record<Phase, number>> | undefined;
}

export interface Contender {
  readonly name: string;
  readonly process: GeneratePeer;
  readonly runs: GeneratePeerRun[];
  picture?: Picture;
}

export type Case = Pick<
  GenerateBenchResult,
  'file' | 'width' | 'height' | 'steps' | 'cfg' | 'threads' | 'loaded'
>;

export const secondsOf = (run: GeneratePeerRun, phase: Phase): number =>
  phase === 'total' ? run.seconds : run[`${phase}_seconds`];

export const timesPeer = (peer: GenerateBenchResult, r: GenerateBenchResult): Record<Phase, number> =>
  perPhase((phase) => peer.seconds![phase].median / r.seconds![phase].median);

/** A simulator's times say nothing. */
export function withoutTimes(r: GenerateBenchResult): GenerateBenchResult {
  const { file, width, height, steps, cfg, threads, contender, rssPeak, bytesUsed, psnr, relativeError } = r;
  return { file, width, height, steps, cfg, threads, contender, rssPeak, bytesUsed, psnr, relativeError };
}

export function resultOf(contender: Contender, own: Contender, at: Case): GenerateBenchResult {
  const { sample_flops, decode_flops } = own.runs[0] as OwnRun;
  const { bytes_used } = own.process.ready as OwnReady;
  const timed = contender.runs.slice(1);
  const seconds = perPhase((phase) => summarize(timed.map((run) => secondsOf(run, phase))));
  const delays = contender.runs.flatMap((run) => (run as Partial<OwnRun>).event_loop_delay_ms ?? []);
  const devicePeaks = contender.runs.flatMap((run) => (run as Partial<OwnRun>).device_peak ?? []);
  const later = timed.flatMap(({ step_seconds }) => step_seconds ?? []);
  const { psnr } = pictureDistance(contender.picture!, own.picture!);
  return {
    ...at,
    contender: contender.name,
    seconds,
    secondsPerStep: seconds.sample.median / at.steps,
    laterSteps: later.length ? summarize(later) : undefined,
    gflops: {
      sample: sample_flops / seconds.sample.median / 1e9,
      decode: decode_flops / seconds.decode.median / 1e9,
    },
    cpuSeconds: summarize(timed.map((run) => run.cpu_seconds)).median,
    rssPeak: Math.max(...contender.runs.map((run) => run.rss_peak)),
    devicePeak: devicePeaks.length ? Math.max(...devicePeaks) : undefined,
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
