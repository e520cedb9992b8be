/** One case after another on one device: prepared, checked, and timed if it was right. */
import { KotobaError } from '../src/errors.js';
import { Device, type DeviceOptions } from '../src/runtime/device.js';
import type { BlasPeers } from './blas_peer/peers.js';
import { prepareAttention } from './ops_attention.js';
import { prepareDecode, prepareEmbedding, prepareNorm } from './ops_bandwidth.js';
import {
  collectGarbage,
  isWrong,
  largestCache,
  type Check,
  type MissingSide,
  type PreparedCase,
  type Workbench,
} from './ops_bench.js';
import { caseGroup, caseName, type OpsCase } from './ops_cases.js';
import { prepareConv } from './ops_conv.js';
import { prepareLinear } from './ops_linear.js';
import { formatResult } from './ops_print.js';
import { timeSides, type SideTimes } from './ops_time.js';
import { RandomWeights } from './ops_weights.js';
import { isSimulated } from './report.js';
import type { TorchOps } from './torch_ops.js';

export interface OpsResult {
  readonly name: string;
  readonly group: string;
  /** The CPU's; 0 on a GPU. */
  readonly threads: number;
  readonly checks: readonly Check[];
  /** Ours first. Empty where a check failed (a wrong result is not timed), and on a simulated device. */
  readonly times: readonly SideTimes[];
  /** Sides that this machine or version does not have. */
  readonly missing?: readonly MissingSide[] | undefined;
  /** The message of a case that could not run at all; the next one is tried. */
  readonly failed?: string | undefined;
  /** Of one repetition. */
  readonly flops?: number | undefined;
  /** Read and written by one repetition, at least. */
  readonly bytes?: number | undefined;
  /** Of ours, at the median. */
  readonly gflops?: number | undefined;
  readonly gbytes?: number | undefined;
}

export interface RunTiming {
  /** Whether cases are only checked. */
  readonly isOff?: boolean | undefined;
  /** A case. */
  readonly seconds: number;
  /** When to begin no further case, by performance.now(). */
  readonly end: number;
  /** Takes the names of the cases that were left out. */
  readonly notRun: string[];
  readonly signal?: AbortSignal | undefined;
  readonly log?: ((line: string) => void) | undefined;
}

export interface CpuRun {
  readonly threads: number;
  readonly cases: readonly OpsCase[];
  readonly peers: BlasPeers;
  readonly instructions?: DeviceOptions['instructions'];
}

export async function runWithThreads(
  { threads, cases, peers, instructions }: CpuRun,
  timing: RunTiming,
): Promise<OpsResult[]> {
  await using device = Device.open('cpu', { threads, instructions });
  await using plain = Device.open('cpu', { instructions: 'plain' });
  peers.addon?.setThreads(threads);
  const random = new RandomWeights();
  const bench = { device, plain, threads, peers, random, cache: largestCache(), records: false };
  return await runCases(bench, cases, timing, (prepared) => timeSides(prepared.sides, timing));
}

export interface GpuRun {
  readonly device: Device;
  /** By --device. */
  readonly name: string;
  readonly cases: readonly OpsCase[];
  readonly peers: BlasPeers;
  readonly torch?: TorchOps | undefined;
}

/** More than the L2 of any card so far, for where nobody tells. */
const largestGpuCache = 128 << 20;
/** The round trip of queue and card vanishes in it. */
const shortestGpuSample = 0.01;

export async function runOnGpu(run: GpuRun, timing: RunTiming): Promise<OpsResult[]> {
  await using plain = Device.open('cpu', { instructions: 'plain' });
  const simulated = isSimulated(run.name);
  const bench: Workbench = {
    ...run,
    plain,
    threads: 0,
    random: new RandomWeights(),
    // A simulated device has no cache, and one copy of its inputs is enough.
    cache: simulated ? 1 : run.torch?.ready.cache || largestGpuCache,
    records: !simulated,
  };
  const options = { ...timing, shortestSample: shortestGpuSample, settle: false };
  return await runCases(bench, run.cases, { ...timing, isOff: timing.isOff || simulated }, (prepared) =>
    timeSides(prepared.sides, options),
  );
}

async function runCases(
  bench: Workbench,
  cases: readonly OpsCase[],
  timing: RunTiming,
  time: (prepared: PreparedCase) => Promise<SideTimes[]>,
): Promise<OpsResult[]> {
  const results: OpsResult[] = [];
  for (const each of cases) {
    timing.signal?.throwIfAborted();
    if (performance.now() > timing.end) {
      timing.notRun.push(caseName(each));
      continue;
    }
    const result = await runCase(bench, each, timing.isOff ? untimed : time).catch((error: unknown) =>
      failedCase(bench, each, error),
    );
    results.push(result);
    timing.log?.(formatResult(result));
    if (bench.records) collectGarbage();
    for (const used of [bench.device, bench.plain]) used.native.trim(0);
  }
  return results;
}

const untimed = async (): Promise<SideTimes[]> => [];

async function runCase(
  bench: Workbench,
  c: OpsCase,
  time: (prepared: PreparedCase) => Promise<SideTimes[]>,
): Promise<OpsResult> {
  const named = { name: caseName(c), group: caseGroup(c), threads: bench.threads };
  const prepared = await prepare(bench, c);
  try {
    const { flops, bytes, missing } = prepared;
    const checks = await prepared.check();
    const right = checks.every((check) => !isWrong(check));
    const times = right ? await time(prepared) : [];
    const known = { ...named, checks, times, missing: missing?.length ? missing : undefined };
    if (times[0] === undefined) return known;
    const seconds = times[0].wall.median / 1e6;
    const gflops = flops && flops / seconds / 1e9;
    return { ...known, flops, bytes, gflops, gbytes: bytes / seconds / 1e9 };
  } finally {
    prepared.dispose();
  }
}

/** A kernel or a peer that refuses its case must not cost the others their turn. */
function failedCase(bench: Workbench, c: OpsCase, error: unknown): OpsResult {
  if (!(error instanceof KotobaError)) throw error;
  const named = { name: caseName(c), group: caseGroup(c), threads: bench.threads };
  return { ...named, checks: [], times: [], failed: error.message };
}

function prepare(bench: Workbench, c: OpsCase): Promise<PreparedCase> {
  switch (c.op) {
    case 'linear':
      return prepareLinear(bench, c);
    case 'attention':
      return prepareAttention(bench, c);
    case 'conv2d':
      return prepareConv(bench, c);
    case 'decode':
      return prepareDecode(bench, c);
    case 'embedding':
      return prepareEmbedding(bench, c);
    default:
      return prepareNorm(bench, c);
  }
}
