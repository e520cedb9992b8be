/**
 * Text encoders end to end on full-size files with random weights: time, GFLOP/s, load to first embedding, peak RSS,
 * delay of the event loop, error; ours in every precision and, if given, a peer on the same files, interleaved.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { benchFileNames, benchFiles, makeBenchFile, type BenchFileName, type FileSize } from './files.js';
import { Peer, type PeerReady, type PeerRun } from './peer.js';
import { measuredCommit } from './report.js';
import { summarize, type Summary } from './stats.js';

export interface EncodeBenchOptions {
  /** Default: all but the F16 T5s, which need 10 GB each. */
  files?: readonly BenchFileName[];
  size?: FileSize;
  /** T5 lengths; CLIP is always run at 77. */
  tokens?: readonly number[];
  threads?: readonly number[];
  precisions?: readonly ('fp32' | 'int8')[];
  /** A command that speaks the protocol of peer.ts. */
  peer?: string | undefined;
  /** Timed runs of each contender, after one untimed. */
  runs?: number;
  log?: (line: string) => void;
}

type OwnReady = PeerReady & {
  flops_per_token: number;
  bytes_used: number;
  instructions: string;
  cpu: string;
};
type OwnRun = PeerRun & { event_loop_delay_ms?: number };

/** One contender on one case. */
export interface EncodeResult {
  readonly file: BenchFileName;
  readonly tokens: number;
  readonly threads: number;
  /** `fp32`, `int8` or `peer`. */
  readonly contender: string;
  readonly seconds: Summary;
  /** 2 · matmul parameters · tokens / median wall second. */
  readonly gflops: number;
  /** Process CPU time of the median run, seconds. */
  readonly cpuSeconds: number;
  readonly loadSeconds: number;
  /** Load plus the first run: to the first embedding. */
  readonly firstEmbeddingSeconds: number;
  readonly rssPeak: number;
  /** Bytes of the tensors that are used. */
  readonly bytesUsed: number;
  /** Longest delay of the JavaScript thread in any run, ms; ours only. */
  readonly eventLoopDelayMs?: number | undefined;
  /** ‖out − fp32‖ / ‖fp32‖ of the final hidden states. */
  readonly relativeError: number;
  /** Peer's median seconds / ours. */
  readonly timesPeer?: number | undefined;
}

export interface EncodeReport {
  readonly what: 'encode';
  readonly date: string;
  readonly commit: string;
  readonly cpu: string;
  readonly instructions: string;
  readonly results: readonly EncodeResult[];
}

const DEFAULT_FILES: readonly BenchFileName[] = [
  'clip_l_f32',
  'clip_l_f16',
  'clip_g_f16',
  't5_q8_0',
  't5_q4_0',
  't5_q4_k',
];
const SERVE = fileURLToPath(new URL('./serve.js', import.meta.url));

export async function runEncodeBench(options: EncodeBenchOptions = {}): Promise<EncodeReport> {
  const results: EncodeResult[] = [];
  let instructions = '';
  for (const file of options.files ?? DEFAULT_FILES) {
    const { path } = makeBenchFile(file, { size: options.size ?? 'full' });
    const lengths = benchFiles[file].kind === 't5' ? (options.tokens ?? [77, 256, 512]) : [77];
    for (const threads of options.threads ?? [1, 2])
      for (const tokens of lengths) {
        const one = await runCase(file, path, tokens, threads, options);
        instructions = one.instructions;
        results.push(...one.results);
        for (const result of one.results) options.log?.(formatResult(result));
      }
  }
  const date = new Date().toISOString();
  return {
    what: 'encode',
    date,
    commit: measuredCommit(),
    cpu: cpus()[0]?.model.trim() ?? '',
    instructions,
    results,
  };
}

interface Contender {
  readonly name: string;
  readonly process: Peer;
  readonly runs: OwnRun[];
}

async function runCase(
  file: BenchFileName,
  path: string,
  tokens: number,
  threads: number,
  options: EncodeBenchOptions,
): Promise<{ results: EncodeResult[]; instructions: string }> {
  const folder = mkdtempSync(join(tmpdir(), 'kotoba-bench-'));
  const ids = join(folder, 'ids.i32');
  writeFileSync(
    ids,
    Int32Array.from({ length: tokens }, (_, i) => 100 + ((i * 7919) % 30_000)),
  );
  const contenders: Contender[] = [];
  try {
    const common = { kind: benchFiles[file].kind, file: path, tokens, threads, ids };
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
    const results = contenders.map((c) => result(c, { file, tokens, threads }, own, errors.get(c.name)!));
    const peer = results.find((r) => r.contender === 'peer');
    return {
      results: results.map((r) =>
        peer && r !== peer ? { ...r, timesPeer: peer.seconds.median / r.seconds.median } : r,
      ),
      instructions: own.instructions,
    };
  } finally {
    for (const { process } of contenders) await process.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** fp32 comes first: the others' errors are against it. */
function commands({
  precisions = ['fp32', 'int8'],
  peer,
}: EncodeBenchOptions): [string, string | string[]][] {
  const own = [...new Set(['fp32' as const, ...precisions])];
  const list = own.map((p): [string, string | string[]] => [p, [process.execPath, SERVE, '--precision', p]]);
  return peer === undefined ? list : [...list, ['peer', peer]];
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
  const exact = states.get('fp32')!;
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
  at: { file: BenchFileName; tokens: number; threads: number },
  own: OwnReady,
  relativeError: number,
): EncodeResult {
  const [first, ...timed] = runs;
  const seconds = summarize(timed.map((run) => run.seconds));
  const delays = runs.flatMap((run) => run.event_loop_delay_ms ?? []);
  return {
    ...at,
    contender: name,
    seconds,
    gflops: (own.flops_per_token * at.tokens) / seconds.median / 1e9,
    cpuSeconds: summarize(timed.map((run) => run.cpu_seconds)).median,
    loadSeconds: process.ready.load_seconds,
    firstEmbeddingSeconds: process.ready.load_seconds + first!.seconds,
    rssPeak: Math.max(...runs.map((run) => run.rss_peak)),
    bytesUsed: own.bytes_used,
    eventLoopDelayMs: delays.length ? Math.max(...delays) : undefined,
    relativeError,
  };
}

export function formatResult(r: EncodeResult): string {
  const cells = [
    r.file.padEnd(11),
    `${r.tokens} tokens`.padStart(10),
    `${r.threads} thr`,
    r.contender.padEnd(5),
    `${r.seconds.median.toFixed(3)} s`.padStart(9),
    `[${r.seconds.p5.toFixed(3)}, ${r.seconds.p95.toFixed(3)}]`.padEnd(17),
    `${r.gflops.toFixed(0)} GFLOP/s`.padStart(12),
    `first ${r.firstEmbeddingSeconds.toFixed(2)} s`.padStart(13),
    `RSS ${(r.rssPeak / 1e6).toFixed(0)} of ${(r.bytesUsed / 1e6).toFixed(0)} MB`.padStart(20),
    `error ${r.relativeError.toExponential(1)}`,
    r.eventLoopDelayMs === undefined ? '' : `loop ${r.eventLoopDelayMs.toFixed(1)} ms`,
    r.timesPeer === undefined ? '' : `${r.timesPeer.toFixed(2)} × peer`,
  ];
  return cells.join('  ').trimEnd();
}

export { benchFileNames };
