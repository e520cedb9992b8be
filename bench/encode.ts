/**
 * Text encoders end to end on full-size files with random weights: time, GFLOP/s, load to first embedding, peak RSS,
 * delay of the event loop, error; ours in every precision and, if given, a peer on the same files, interleaved.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { OpPrecision } from '../src/runtime/ops.js';
import { Device, type DeviceName } from '../src/runtime/device.js';
import { benchFileNames, benchFiles, makeBenchFile, type BenchFileName, type FileSize } from './files.js';
import { ownCommand, peerCommand, precisionsOf } from './own_process.js';
import { Peer, type PeerReady, type PeerRun } from './peer.js';
import { isGpu, isSimulated, runFacts, type RunFacts } from './report.js';
import { summarize, type Summary } from './stats.js';

export interface EncodeBenchOptions {
  /** Default `cpu`. On a simulated device everything runs, and no times are reported. */
  device?: string | undefined;
  /** Default: all but the F16 T5s, which need 10 GB each. */
  files?: readonly BenchFileName[];
  size?: FileSize;
  /** T5 lengths; CLIP is always run at 77. */
  tokens?: readonly number[];
  /** Prompts at once. Default 1. */
  batches?: readonly number[] | undefined;
  /** Of the CPU. */
  threads?: readonly number[];
  precisions?: readonly OpPrecision[];
  /** A command that speaks the protocol of peer.ts, or `torch`. */
  peer?: string | undefined;
  /** Timed runs of each contender, after one untimed. */
  runs?: number;
  /** Seconds for all cases: those that were not begun by then are named in the report, and not run. */
  deadline?: number | undefined;
  log?: (line: string) => void;
}

type OwnReady = PeerReady & { flops_per_token: number; bytes_used: number; instructions: string };
type OwnRun = PeerRun & { event_loop_delay_ms?: number };

/** One contender on one case. */
export interface EncodeResult {
  readonly file: BenchFileName;
  readonly tokens: number;
  /** Prompts at once; absent: 1. */
  readonly batch?: number | undefined;
  /** The CPU's; 0 on a GPU. */
  readonly threads: number;
  /** A precision of ours, or `peer`. */
  readonly contender: string;
  /** What a peer says it is. */
  readonly description?: string | undefined;
  /** Absent on a simulated device, as is all that is made of it. */
  readonly seconds?: Summary | undefined;
  /** 2 · matmul parameters · tokens / median wall second. */
  readonly gflops?: number | undefined;
  /** Process CPU time of the median run, seconds. */
  readonly cpuSeconds?: number | undefined;
  readonly loadSeconds?: number | undefined;
  /** Load plus the first run: to the first embedding. */
  readonly firstEmbeddingSeconds?: number | undefined;
  readonly rssPeak: number;
  /** Of the memory that the device's pool holds, bytes. */
  readonly devicePeak?: number | undefined;
  /** Bytes of the tensors that are used. */
  readonly bytesUsed: number;
  /** Longest delay of the JavaScript thread in any run, ms; ours only. */
  readonly eventLoopDelayMs?: number | undefined;
  /** ‖out − first‖ / ‖first‖ of the final hidden states; the first contender is fp32 unless it was left out. */
  readonly relativeError: number;
  /** Peer's median seconds / ours. */
  readonly timesPeer?: number | undefined;
}

export interface EncodeReport extends RunFacts {
  readonly what: 'encode';
  readonly instructions: string;
  readonly results: readonly EncodeResult[];
  /** Cases that the deadline left out. */
  readonly notRun: readonly string[];
}

const DEFAULT_FILES: readonly BenchFileName[] = [
  'clip_l_f32',
  'clip_l_f16',
  'clip_g_f16',
  't5_q8_0',
  't5_q4_0',
  't5_q4_k',
];

export async function runEncodeBench(options: EncodeBenchOptions = {}): Promise<EncodeReport> {
  const { device = 'cpu' } = options;
  const results: EncodeResult[] = [];
  const probe = Device.open(device as DeviceName);
  const facts = runFacts(device, probe.info);
  const { instructions } = probe.info;
  probe.close();
  let versions = facts.versions;
  const notRun: string[] = [];
  const end = performance.now() + (options.deadline ?? Infinity) * 1000;
  for (const file of options.files ?? DEFAULT_FILES) {
    for (const at of casesOf(file, options)) {
      if (performance.now() > end) {
        notRun.push(`${file} ${at.batch} × ${at.tokens} tokens`);
        continue;
      }
      const { path } = makeBenchFile(file, { size: options.size ?? 'full' });
      const one = await runCase(at, path, { ...options, device });
      versions = { ...versions, ...one.versions };
      results.push(...one.results);
      for (const result of one.results) options.log?.(formatResult(result));
    }
  }
  if (notRun.length) options.log?.(`not run, the deadline came first: ${notRun.join(', ')}`);
  return { what: 'encode', ...facts, versions, instructions, results, notRun };
}

type Case = Required<Pick<EncodeResult, 'file' | 'tokens' | 'batch' | 'threads'>> & { batch: number };

function casesOf(file: BenchFileName, options: EncodeBenchOptions): Case[] {
  const lengths = benchFiles[file].kind === 't5' ? (options.tokens ?? [77, 256, 512]) : [77];
  const threads = isGpu(options.device ?? 'cpu') ? [0] : (options.threads ?? [1, 2]);
  return threads.flatMap((count) =>
    (options.batches ?? [1]).flatMap((batch) =>
      lengths.map((tokens) => ({ file, tokens, batch, threads: count })),
    ),
  );
}

interface Contender {
  readonly name: string;
  readonly process: Peer;
  readonly runs: OwnRun[];
}

async function runCase(
  at: Case,
  path: string,
  options: EncodeBenchOptions & { device: string },
): Promise<{ results: EncodeResult[]; versions: Readonly<Record<string, string>> }> {
  const { file, tokens, batch, threads } = at;
  const folder = mkdtempSync(join(tmpdir(), 'kotoba-bench-'));
  const ids = join(folder, 'ids.i32');
  writeFileSync(
    ids,
    Int32Array.from({ length: batch * tokens }, (_, i) => 100 + ((i * 7919) % 30_000)),
  );
  const contenders: Contender[] = [];
  try {
    const common = { kind: benchFiles[file].kind, file: path, tokens, batch, threads, ids };
    for (const [name, command] of commands(options)) {
      const process = await Peer.start({ ...common, command });
      contenders.push({ name, process, runs: [await process.run(tokens)] });
    }
    for (let i = 0; i < (options.runs ?? 3); i++) {
      // A B C, C B A, …: a drift of the machine hits all alike.
      const order = i % 2 ? [...contenders].reverse() : contenders;
      for (const contender of order) contender.runs.push(await contender.process.run(tokens));
    }
    const own = contenders[0]!.process.ready as OwnReady;
    const errors = await relativeErrors(contenders, folder);
    const results = contenders.map((c) => result(c, at, own, errors.get(c.name)!));
    const peer = results.find((r) => r.contender === 'peer');
    const compared = results.map((r) => withRatio(r, peer));
    return {
      results: isSimulated(options.device) ? compared.map(withoutTimes) : compared,
      versions: Object.assign({}, ...contenders.map((c) => c.process.ready.versions)) as Record<
        string,
        string
      >,
    };
  } finally {
    for (const { process } of contenders) await process.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

function withRatio(r: EncodeResult, peer: EncodeResult | undefined): EncodeResult {
  if (!peer?.seconds || r === peer || !r.seconds) return r;
  return { ...r, timesPeer: peer.seconds.median / r.seconds.median };
}

/** A simulator's times say nothing. */
function withoutTimes(r: EncodeResult): EncodeResult {
  const { file, tokens, batch, threads, contender, description, rssPeak, bytesUsed, relativeError } = r;
  return { file, tokens, batch, threads, contender, description, rssPeak, bytesUsed, relativeError };
}

/** The first is the one that the others' errors are against. */
function commands({
  device,
  precisions,
  peer,
}: EncodeBenchOptions & { device: string }): [string, string | readonly string[]][] {
  const list = precisionsOf(device, precisions).map((precision): [string, readonly string[]] => [
    precision,
    ownCommand('serve', { device, precision }),
  ]);
  return peer === undefined ? list : [...list, ['peer', peerCommand(peer, 'encode.py', device)]];
}

async function relativeErrors(
  contenders: readonly Contender[],
  folder: string,
): Promise<Map<string, number>> {
  const states = new Map<string, Float32Array>();
  for (const { name, process } of contenders) {
    const path = join(folder, `${name}.f32`);
    await process.dump(path);
    const bytes = readFileSync(path);
    states.set(
      name,
      new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)),
    );
  }
  const exact = states.get(contenders[0]!.name)!;
  const norm = exact.reduce((sum, v) => sum + v * v, 0);
  return new Map(
    [...states].map(([name, state]) => {
      if (state.length !== exact.length) return [name, NaN];
      return [name, Math.sqrt(state.reduce((sum, v, i) => sum + (v - exact[i]!) ** 2, 0) / norm)];
    }),
  );
}

function result(
  { name, process, runs }: Contender,
  at: Case,
  own: OwnReady,
  relativeError: number,
): EncodeResult {
  const [first, ...timed] = runs;
  const seconds = summarize(timed.map((run) => run.seconds));
  const delays = runs.flatMap((run) => run.event_loop_delay_ms ?? []);
  const devicePeaks = runs.flatMap((run) => run.device_peak ?? []);
  return {
    ...at,
    contender: name,
    description: process.ready.description,
    seconds,
    gflops: (own.flops_per_token * at.tokens * at.batch) / seconds.median / 1e9,
    cpuSeconds: summarize(timed.map((run) => run.cpu_seconds)).median,
    loadSeconds: process.ready.load_seconds,
    firstEmbeddingSeconds: process.ready.load_seconds + first!.seconds,
    rssPeak: Math.max(...runs.map((run) => run.rss_peak)),
    devicePeak: devicePeaks.length ? Math.max(...devicePeaks) : undefined,
    bytesUsed: own.bytes_used,
    eventLoopDelayMs: delays.length ? Math.max(...delays) : undefined,
    relativeError,
  };
}

export function formatResult(r: EncodeResult): string {
  const cells = [
    r.file.padEnd(11),
    `${(r.batch ?? 1) > 1 ? `${r.batch} × ` : ''}${r.tokens} tokens`.padStart(10),
    r.threads === 0 ? '' : `${r.threads} thr`,
    r.contender.padEnd(5),
    ...(r.seconds ? timeCells(r, r.seconds) : ['simulated, not a speed']),
    `RSS ${(r.rssPeak / 1e6).toFixed(0)} of ${(r.bytesUsed / 1e6).toFixed(0)} MB`.padStart(20),
    r.devicePeak ? `on the device ${(r.devicePeak / 1e6).toFixed(0)} MB` : '',
    `error ${r.relativeError.toExponential(1)}`,
    r.eventLoopDelayMs === undefined ? '' : `loop ${r.eventLoopDelayMs.toFixed(1)} ms`,
    r.timesPeer === undefined ? '' : `${r.timesPeer.toFixed(2)} × peer`,
  ];
  return cells.filter(Boolean).join('  ').trimEnd();
}

function timeCells(r: EncodeResult, seconds: Summary): string[] {
  // A GPU's runs take milliseconds.
  const [factor, unit] = r.threads === 0 ? [1e3, 'ms'] : [1, 's'];
  const time = (value: number): string => (value * factor).toFixed(3);
  return [
    `${time(seconds.median)} ${unit}`.padStart(9),
    `[${time(seconds.p5)}, ${time(seconds.p95)}]`.padEnd(17),
    `${r.gflops?.toFixed(0)} GFLOP/s`.padStart(12),
    `first ${r.firstEmbeddingSeconds?.toFixed(2)} s`.padStart(13),
  ];
}

export { benchFileNames };
