/**
 * `kotoba bench ops`: every kernel of the networks, checked against a double reference, then timed beside a peer in the
 * same run: OpenBLAS, oneDNN and memcpy in this process on the CPU, PyTorch in one of its own on a GPU. Ops go through
 * the device's queue like a network's: many repetitions are enqueued and awaited once, and the report says what the
 * queue itself costs.
 */
import { loadavg } from 'node:os';
import { native } from '../bindings/native.js';
import { KotobaError } from '../src/errors.js';
import type { DType } from '../src/formats/dtype.js';
import { Device, type DeviceName, type DeviceOptions } from '../src/runtime/device.js';
import type { OpPrecision } from '../src/runtime/ops.js';
import { openBlasPeers, type PeerEnvironment, type PeerInfo } from './blas_peer/peers.js';
import { gpuCases, simulatedCases } from './gpu_cases.js';
import { deviceMemoryPeak, processMemory } from './memory.js';
import { isWrong } from './ops_bench.js';
import { selectCases, type OpsCase } from './ops_cases.js';
import {
  formatHeader,
  formatResult,
  formatSummary,
  isBusy,
  summarizeGroups,
  type GroupSummary,
} from './ops_print.js';
import { runOnGpu, runWithThreads, type OpsResult } from './ops_run.js';
import { isGpu, isSimulated, runFacts, writeReport, type RunFacts } from './report.js';
import { median } from './stats.js';
import { TorchOps, type TorchCeilings } from './torch_ops.js';

export interface OpsBenchOptions {
  /** Default `cpu`. A simulated device is checked on tiny cases and not timed. */
  readonly device?: string | undefined;
  /** Keeps the cases whose name matches, e.g. /^linear 77x.* Q4_K fp32/; a name begins with its op. */
  readonly filter?: RegExp | undefined;
  /** Default: one, and as many as the device would take. */
  readonly threads?: readonly number[] | undefined;
  /** Tiny cases of every op instead of the networks' shapes; always so on a simulated device. */
  readonly tiny?: boolean | undefined;
  /** Each case is run once and checked, not timed: for a profiler, or a sanitizer. */
  readonly check?: boolean | undefined;
  /** For each case, all sides together; default 1, on a GPU 0.25. */
  readonly seconds?: number | undefined;
  /** Seconds for all cases: those that were not begun by then are named in the report, and not run. */
  readonly deadline?: number | undefined;
  /** Default: the best; if given, the peers are held to it, too. */
  readonly instructions?: DeviceOptions['instructions'];
  /** Weight types instead of each op's own choice. */
  readonly types?: readonly DType[] | undefined;
  readonly precisions?: readonly OpPrecision[] | undefined;
  /** A program that speaks the protocol of torch_ops.ts; a GPU has no other peers. */
  readonly peer?: string | readonly string[] | undefined;
  /** Instead of the table of shapes in ops_cases.ts or gpu_cases.ts. */
  readonly cases?: readonly OpsCase[] | undefined;
  /** Where the report goes as JSON. */
  readonly json?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Takes the lines as they come. */
  readonly log?: ((line: string) => void) | undefined;
}

export interface OpsReport extends RunFacts {
  readonly what: 'ops';
  /** Instruction set, or compute capability. */
  readonly instructions: string;
  /** Empty on a GPU. */
  readonly threads: readonly number[];
  readonly secondsPerCase: number;
  /** Processes that ran or waited, one-minute mean, before and after: high before means a shared machine. */
  readonly load: readonly [number, number];
  readonly overhead: QueueOverhead;
  readonly peers: readonly PeerInfo[];
  /** Variables that change the peers' choices. */
  readonly environment: PeerEnvironment;
  /** Of a GPU, through its peer. */
  readonly ceilings?: TorchCeilings | undefined;
  readonly results: readonly OpsResult[];
  readonly summary: readonly GroupSummary[];
  /** Results whose check failed, and cases that could not run. */
  readonly wrong: readonly string[];
  /** Cases that the deadline left out. */
  readonly notRun: readonly string[];
  readonly memory: OpsMemory;
  /** Of a GPU: how many of our recordings became graphs of the driver, and why the last one that did not. */
  readonly recordings?:
    { readonly graphs: number; readonly commanded: number; readonly why: string } | undefined;
}

/** Peaks, bytes. */
export interface OpsMemory {
  /** Resident set of this process. */
  readonly rssPeak: number;
  /** Of the device's pool. */
  readonly devicePeak?: number | undefined;
  /** What the peer counted of its own. */
  readonly peer?: object | undefined;
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
  const { device = 'cpu', seconds = isGpu(device) ? 0.25 : 1, instructions, log } = options;
  const cases = options.cases ?? casesFor(device, options.tiny)(options);
  if (cases.length === 0)
    throw new KotobaError('ERR_ARGUMENT', `bench ops: no case matches ${options.filter}`);
  await using probe = Device.open(device as DeviceName, isGpu(device) ? {} : { instructions });
  await using torch = options.peer === undefined ? undefined : await TorchOps.start(options.peer, device);
  const loadBefore = loadavg()[0]!;
  const peers = openBlasPeers({
    instructions: probe.info.instructions,
    forced: instructions !== undefined,
    busy: isBusy(loadBefore),
  });
  const threads = isGpu(device) ? [] : (options.threads ?? [...new Set([1, probe.info.threads])]);
  const facts = runFacts(device, probe.info);
  const head = {
    what: 'ops' as const,
    ...facts,
    versions: { ...facts.versions, ...torch?.ready.versions },
    instructions: probe.info.instructions,
    threads,
    secondsPerCase: seconds,
    overhead: await measureOverhead(probe),
    peers: isGpu(device) ? gpuPeers(torch) : peers.info,
    environment: isGpu(device) ? { inherited: [], chosen: [] } : peers.environment,
    ceilings: torch && !isSimulated(device) && !options.check ? await torch.ceilings(seconds) : undefined,
  };
  for (const line of formatHeader(head, loadBefore)) log?.(line);
  const notRun: string[] = [];
  const end = performance.now() + (options.deadline ?? Infinity) * 1000;
  const timing = { seconds, signal: options.signal, end, notRun, log, isOff: options.check };
  const results: OpsResult[] = [];
  if (isGpu(device))
    results.push(...(await runOnGpu({ device: probe, name: device, cases, peers, torch }, timing)));
  for (const count of threads)
    results.push(...(await runWithThreads({ threads: count, cases, peers, instructions }, timing)));
  const report: OpsReport = {
    ...head,
    load: [loadBefore, loadavg()[0]!],
    results,
    summary: summarizeGroups(results),
    wrong: results
      .filter((result) => result.failed || result.checks.some(isWrong))
      .map((result) => result.name),
    notRun,
    memory: {
      rssPeak: processMemory().peak,
      devicePeak: deviceMemoryPeak(probe),
      peer: await torch?.memory(),
    },
    recordings: isGpu(device) ? recordingsOf(probe) : undefined,
  };
  for (const line of formatSummary(report)) log?.(line);
  if (options.json !== undefined) writeReport(options.json, report);
  return report;
}

function casesFor(device: string, tiny = false): typeof selectCases {
  if (tiny || isSimulated(device)) return simulatedCases;
  return isGpu(device) ? gpuCases : selectCases;
}

function gpuPeers(torch: TorchOps | undefined): PeerInfo[] {
  if (!torch) return [{ name: 'PyTorch', missing: 'not asked for: --peer torch runs it beside' }];
  return [{ name: 'PyTorch', version: `${torch.ready.versions['torch']} on ${torch.ready.device}` }];
}

function recordingsOf({ native }: Device): NonNullable<OpsReport['recordings']> {
  const { graphs, commanded, refusal } = native.describe();
  return { graphs, commanded, why: refusal };
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
