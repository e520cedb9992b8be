/**
 * `kotoba bench ops`: every kernel of the text encoders, checked against a double reference, then timed beside
 * OpenBLAS, oneDNN or memcpy in the same process and run. Ops go through the device's queue like a network's: many
 * repetitions are enqueued and awaited once, and the report says what the queue itself costs.
 */
import { cpus, loadavg } from 'node:os';
import { native } from '../bindings/native.js';
import { KotobaError } from '../src/errors.js';
import type { DType } from '../src/formats/dtype.js';
import { Device, type DeviceOptions } from '../src/runtime/device.js';
import type { OpPrecision } from '../src/runtime/ops.js';
import { openBlasPeers, type BlasPeers, type PeerEnvironment, type PeerInfo } from './blas_peer/peers.js';
import { prepareAttention } from './ops_attention.js';
import { prepareDecode, prepareEmbedding, prepareNorm } from './ops_bandwidth.js';
import { isWrong, largestCache, type Check, type PreparedCase, type Workbench } from './ops_bench.js';
import { caseGroup, caseName, selectCases, type OpsCase } from './ops_cases.js';
import { prepareLinear } from './ops_linear.js';
import {
  formatHeader,
  formatResult,
  formatSummary,
  isBusy,
  summarizeGroups,
  type GroupSummary,
} from './ops_print.js';
import { timeSides, type SideTimes } from './ops_time.js';
import { RandomWeights } from './ops_weights.js';
import { measuredCommit, writeReport } from './report.js';
import { median } from './stats.js';

export interface OpsBenchOptions {
  /** Keeps the cases whose name matches, e.g. /^linear 77x.* Q4_K fp32/; a name begins with its op. */
  readonly filter?: RegExp | undefined;
  /** Default: one, and as many as the device would take. */
  readonly threads?: readonly number[] | undefined;
  /** For each case, all sides together; default 1. */
  readonly seconds?: number | undefined;
  /** Default: the best; if given, the peers are held to it, too. */
  readonly instructions?: DeviceOptions['instructions'];
  /** Weight types instead of each op's own choice. */
  readonly types?: readonly DType[] | undefined;
  readonly precisions?: readonly OpPrecision[] | undefined;
  /** Instead of the table of shapes in ops_cases.ts. */
  readonly cases?: readonly OpsCase[] | undefined;
  /** Where the report goes as JSON. */
  readonly json?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Takes the lines as they come. */
  readonly log?: ((line: string) => void) | undefined;
}

export interface OpsResult {
  readonly name: string;
  readonly group: string;
  readonly threads: number;
  readonly checks: readonly Check[];
  /** Ours first. Empty where a check failed: a wrong result is not timed. */
  readonly times: readonly SideTimes[];
  /** Of ours, at the median. */
  readonly gflops?: number | undefined;
  readonly gbytes?: number | undefined;
}

export interface OpsReport {
  readonly what: 'ops';
  readonly date: string;
  readonly commit: string;
  readonly cpu: string;
  readonly cores: number;
  readonly instructions: string;
  readonly threads: readonly number[];
  readonly secondsPerCase: number;
  /** Processes that ran or waited, one-minute mean, before and after: high before means a shared machine. */
  readonly load: readonly [number, number];
  readonly overhead: QueueOverhead;
  readonly peers: readonly PeerInfo[];
  /** Variables that change the peers' choices. */
  readonly environment: PeerEnvironment;
  readonly results: readonly OpsResult[];
  readonly summary: readonly GroupSummary[];
  /** Results whose check failed. */
  readonly wrong: readonly string[];
}

/** µs */
export interface QueueOverhead {
  /** A flush of an empty queue, awaited: added once to each sample, which lasts at least 2 ms. */
  readonly roundTrip: number;
  /** The decode of one number: what an op costs at least, the kernel's own start included. */
  readonly smallestOp: number;
}

/** @throws KotobaError ERR_ARGUMENT if no case is left to run; an abort of `signal` throws its reason */
export async function runOpsBench(options: OpsBenchOptions = {}): Promise<OpsReport> {
  const { seconds = 1, instructions, log } = options;
  const cases = options.cases ?? selectCases(options);
  if (cases.length === 0)
    throw new KotobaError('ERR_ARGUMENT', `bench ops: no case matches ${options.filter}`);
  await using probe = Device.open('cpu', { instructions });
  const threads = options.threads ?? [...new Set([1, probe.info.threads])];
  const loadBefore = loadavg()[0]!;
  const peers = openBlasPeers({
    instructions: probe.info.instructions,
    forced: instructions !== undefined,
    busy: isBusy(loadBefore),
  });
  const head = {
    what: 'ops' as const,
    date: new Date().toISOString(),
    commit: measuredCommit(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    instructions: probe.info.instructions,
    threads,
    secondsPerCase: seconds,
    overhead: await measureOverhead(probe),
    peers: peers.info,
    environment: peers.environment,
  };
  for (const line of formatHeader(head, loadBefore)) log?.(line);
  const results: OpsResult[] = [];
  for (const count of threads) results.push(...(await runWithThreads(count, cases, peers, options)));
  const report: OpsReport = {
    ...head,
    load: [loadBefore, loadavg()[0]!],
    results,
    summary: summarizeGroups(results),
    wrong: results.filter((result) => result.checks.some(isWrong)).map((result) => result.name),
  };
  for (const line of formatSummary(report)) log?.(line);
  if (options.json !== undefined) writeReport(options.json, report);
  return report;
}

/** The whole report as it was logged. */
export function printOpsReport(report: OpsReport, write: (line: string) => void): void {
  const lines = [
    ...formatHeader(report, report.load[0]),
    ...report.results.map(formatResult),
    ...formatSummary(report),
  ];
  for (const line of lines) write(line);
}

async function runWithThreads(
  threads: number,
  cases: readonly OpsCase[],
  peers: BlasPeers,
  { seconds = 1, instructions, signal, log }: OpsBenchOptions,
): Promise<OpsResult[]> {
  await using device = Device.open('cpu', { threads, instructions });
  await using plain = Device.open('cpu', { instructions: 'plain' });
  const bench = { device, plain, threads, peers, random: new RandomWeights(), cache: largestCache() };
  peers.addon?.setThreads(threads);
  const results: OpsResult[] = [];
  for (const each of cases) {
    signal?.throwIfAborted();
    const result = await runCase(bench, each, { seconds, signal });
    results.push(result);
    log?.(formatResult(result));
    for (const used of [device, plain]) used.native.trim(0);
  }
  return results;
}

async function runCase(
  bench: Workbench,
  c: OpsCase,
  timing: Parameters<typeof timeSides>[1],
): Promise<OpsResult> {
  const named = { name: caseName(c), group: caseGroup(c), threads: bench.threads };
  const prepared = await prepare(bench, c);
  try {
    const checks = await prepared.check();
    if (checks.some(isWrong)) return { ...named, checks, times: [] };
    const times = await timeSides(prepared.sides, timing);
    const seconds = times[0]!.wall.median / 1e6;
    return {
      ...named,
      checks,
      times,
      gflops: prepared.flops && prepared.flops / seconds / 1e9,
      gbytes: prepared.bytes / seconds / 1e9,
    };
  } finally {
    prepared.dispose();
  }
}

function prepare(bench: Workbench, c: OpsCase): Promise<PreparedCase> {
  switch (c.op) {
    case 'linear':
      return prepareLinear(bench, c);
    case 'attention':
      return prepareAttention(bench, c);
    case 'decode':
      return prepareDecode(bench, c);
    case 'embedding':
      return prepareEmbedding(bench, c);
    default:
      return prepareNorm(bench, c);
  }
}

async function measureOverhead(device: Device): Promise<QueueOverhead> {
  using x = device.from(new Float32Array(1), [1, 1]);
  using out = device.empty('F32', [1, 1]);
  const microseconds = async (ops: number) => {
    const start = performance.now();
    for (let i = 0; i < ops; i++) native.decode(device.native, out.native, x.native);
    await device.native.flush();
    return (performance.now() - start) * 1000;
  };
  const roundTrips: number[] = [];
  const perOp: number[] = [];
  for (let i = 0; i < 100; i++) {
    roundTrips.push(await microseconds(0));
    perOp.push((await microseconds(1000)) / 1000);
  }
  return { roundTrip: median(roundTrips), smallestOp: median(perOp) };
}
