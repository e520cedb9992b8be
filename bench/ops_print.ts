/** The lines of `kotoba bench ops`: a header that says how to read them, one line a case, a summary per group. */
import { cpus } from 'node:os';
import { isWrong, type Check } from './ops_bench.js';
import type { OpsReport } from './ops.js';
import type { OpsResult } from './ops_run.js';
import type { SideTimes } from './ops_time.js';

type Header = Pick<
  OpsReport,
  | 'cpu'
  | 'cores'
  | 'instructions'
  | 'commit'
  | 'date'
  | 'overhead'
  | 'peers'
  | 'environment'
  | 'secondsPerCase'
  | 'gpu'
  | 'ceilings'
>;

/** Whether others use the cores already, by the one-minute load. */
export const isBusy = (load: number, cores = cpus().length): boolean => load > cores / 2;

export function formatHeader(report: Header, load: number): string[] {
  const { cpu, cores, instructions, commit, date, gpu } = report;
  const plural = cores === 1 ? 'core' : 'cores';
  const where = gpu
    ? `${gpu.description}${gpu.driver ? `, driver ${gpu.driver}` : ''}; ${cpu}, ${cores} ${plural}`
    : `${cpu}, ${cores} ${plural}, ${instructions}`;
  return [
    `${where}; load ${load.toFixed(1)}; commit ${commit}; ${date}`,
    ...report.peers.map(({ name, version, missing }) => `${name}: ${version ?? `not compared: ${missing}`}`),
    ...(gpu ? gpuLines(report) : cpuLines(report, load)),
    '',
  ];
}

function cpuLines({ cores, overhead, secondsPerCase, environment }: Header, load: number): string[] {
  const { inherited, chosen } = environment;
  return [
    ...(inherited.length > 0
      ? [`peers held by the environment: ${inherited.join(' ')}; unset it to see their own choice`]
      : []),
    ...(chosen.length > 0 ? [`set for the peers: ${chosen.join(' ')}`] : []),
    queueLine(overhead, secondsPerCase),
    'Times are medians with [p5, p95]; a × above 1 means faster than that peer, first by wall time, then (by CPU time).',
    ...(isBusy(load, cores)
      ? ['The machine is busy: CPU time says more than wall time, one thread more than several.']
      : []),
  ];
}

function gpuLines({ gpu, overhead, secondsPerCase, ceilings }: Header): string[] {
  if (gpu!.simulated)
    return [
      'A simulated device: kernels are checked on tiny cases; nothing is timed, for it would be no speed.',
    ];
  const products = Object.entries(ceilings?.matmulTflops ?? {}).map(
    ([name, value]) => `${name} ${short(value)}`,
  );
  return [
    queueLine(overhead, secondsPerCase),
    ...(ceilings
      ? [
          `ceilings through the peer: copy ${short(ceilings.copyGbytes)} GB/s; products, TFLOP/s: ${products.join(', ')}`,
        ]
      : []),
    "Repetitions are recorded once and replayed, ours and the peer's, on inputs that rotate past the cache.",
    'Times are medians with [p5, p95]; a × above 1 means faster than that peer.',
  ];
}

const queueLine = ({ roundTrip, smallestOp }: OpsReport['overhead'], seconds: number): string =>
  `queue: ${roundTrip.toFixed(1)} µs a round trip (once a sample), ` +
  `${smallestOp.toFixed(2)} µs the smallest op; ${seconds} s a case`;

/** Longest names: `linear 4096x4096x4096 F8_E4M3 fp32`, on a GPU `attention t5 64x64 512 tokens without bias bf16`. */
const nameWidths = { cpu: 35, gpu: 48 };

export function formatResult(result: OpsResult): string {
  const { name, threads, checks, times, gflops, gbytes, missing } = result;
  const onGpu = threads === 0;
  const start = onGpu ? name.padEnd(nameWidths.gpu) : `${name.padEnd(nameWidths.cpu)} ${threads} thr`;
  if (result.failed !== undefined) return `${start}  FAILED: ${result.failed}`;
  const wrong = checks.filter(isWrong);
  if (wrong.length > 0) return `${start}  WRONG: ${wrong.map(describeCheck).join('; ')}`;
  const ours = times[0];
  if (ours === undefined) return `${start}  ${errorText(checks[0]!)}  right, not timed`;
  const cells = [
    start,
    `${short(ours.wall.median)} µs`.padStart(10),
    `[${short(ours.wall.p5)}, ${short(ours.wall.p95)}]`.padEnd(18),
    gflops === undefined ? ''.padEnd(14) : rate(gflops, onGpu).padStart(14),
    `${short(gbytes ?? NaN)} GB/s`.padStart(9),
    errorText(checks[0]!),
    ...times.slice(1).map((times) => describePeer(times, onGpu)),
    ...(missing ?? []).map(({ side, why }) => `(${side}: ${why})`),
  ];
  return cells.join('  ').trimEnd();
}

const rate = (gflops: number, onGpu: boolean): string =>
  onGpu ? `${short(gflops / 1000)} TFLOP/s` : `${short(gflops)} GFLOP/s`;

const errorText = ({ error }: Check): string =>
  error === 0 ? 'exact'.padEnd(13) : `error ${error.toExponential(1)}`;

const describeCheck = ({ side, error, bound }: Check) =>
  `${side} is off by ${error.toExponential(1)}, expected at most ${bound.toExponential(1)}`;

/** Another process's CPU time is not ours to know. */
function describePeer({ name, wallRatio, cpuRatio }: SideTimes, onGpu: boolean): string {
  const wall = wallRatio.median.toFixed(2);
  return `${(onGpu ? wall : `${wall} (${cpuRatio.median.toFixed(2)})`).padStart(11)} × ${name}`;
}

/** Three digits or more. */
function short(value: number): string {
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}

/** One peer over the cases of one group. */
export interface GroupSummary {
  readonly group: string;
  readonly threads: number;
  readonly peer: string;
  readonly cases: number;
  readonly geomean: number;
  readonly cpuGeomean: number;
  /** Cases in which the peer was faster. */
  readonly losing: number;
  readonly worst: number;
  readonly worstCase: string;
}

export function summarizeGroups(results: readonly OpsResult[]): GroupSummary[] {
  const groups = new Map<string, { result: OpsResult; times: SideTimes }[]>();
  for (const result of results)
    for (const times of result.times.slice(1)) {
      const key = `${result.group} ${result.threads} ${times.name}`;
      groups.set(key, [...(groups.get(key) ?? []), { result, times }]);
    }
  return [...groups.values()].map((members) => {
    const { result, times } = members[0]!;
    const ratios = members.map((member) => member.times.wallRatio.median);
    const worst = Math.min(...ratios);
    return {
      group: result.group,
      threads: result.threads,
      peer: times.name,
      cases: members.length,
      geomean: geomean(ratios),
      cpuGeomean: geomean(members.map((member) => member.times.cpuRatio.median)),
      losing: ratios.filter((ratio) => ratio < 1).length,
      worst,
      worstCase: members[ratios.indexOf(worst)]?.result.name ?? '',
    };
  });
}

/** NaN if one is. */
export function geomean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

export function formatSummary({ summary, wrong, notRun, load }: OpsReport): string[] {
  const lines = summary.map((s) => {
    const onGpu = s.threads === 0;
    const cells = [
      s.group.padEnd(onGpu ? 36 : 22),
      ...(onGpu ? [] : [`${s.threads} thr`]),
      `${s.geomean.toFixed(2)}${onGpu ? '' : ` (${s.cpuGeomean.toFixed(2)})`} × ${s.peer}`.padEnd(26),
      `${s.cases - s.losing} of ${s.cases} won`.padEnd(12),
      `worst ${s.worst.toFixed(2)}: ${s.worstCase}`,
    ];
    return cells.join('  ');
  });
  const failed = wrong.map((name) => `WRONG: ${name}`);
  return [
    '',
    ...(lines.length > 0 ? ['Geometric means', ...lines] : []),
    ...failed,
    ...(notRun?.length ? [`not run, the deadline came first: ${notRun.join(', ')}`] : []),
    `load at the end ${load[1].toFixed(1)}`,
  ];
}
