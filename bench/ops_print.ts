/** The lines of `kotoba bench ops`: a header that says how to read them, one line a case, a summary per group. */
import { cpus } from 'node:os';
import { isWrong, type Check } from './ops_bench.js';
import type { OpsReport, OpsResult } from './ops.js';
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
>;

/** Whether others use the cores already, by the one-minute load. */
export const isBusy = (load: number, cores = cpus().length): boolean => load > cores / 2;

export function formatHeader(report: Header, load: number): string[] {
  const { cpu, cores, instructions, commit, date, overhead, peers, secondsPerCase } = report;
  const { inherited, chosen } = report.environment;
  const plural = cores === 1 ? 'core' : 'cores';
  return [
    `${cpu}, ${cores} ${plural}, ${instructions}; load ${load.toFixed(1)}; commit ${commit}; ${date}`,
    ...(inherited.length > 0
      ? [`peers held by the environment: ${inherited.join(' ')}; unset it to see their own choice`]
      : []),
    ...(chosen.length > 0 ? [`set for the peers: ${chosen.join(' ')}`] : []),
    ...peers.map(({ name, version, missing }) => `${name}: ${version ?? `not compared: ${missing}`}`),
    `queue: ${overhead.roundTrip.toFixed(1)} µs a round trip (once a sample), ` +
      `${overhead.smallestOp.toFixed(2)} µs the smallest op; ${secondsPerCase} s a case`,
    'Times are medians with [p5, p95]; a × above 1 means faster than that peer, first by wall time, then (by CPU time).',
    ...(isBusy(load, cores)
      ? ['The machine is busy: CPU time says more than wall time, one thread more than several.']
      : []),
    '',
  ];
}

/** Longest name: `linear 4096x4096x4096 F8_E4M3 fp32`. */
const nameWidth = 35;

export function formatResult({ name, threads, checks, times, gflops, gbytes }: OpsResult): string {
  const start = `${name.padEnd(nameWidth)} ${threads} thr`;
  const ours = times[0];
  if (ours === undefined) return `${start}  WRONG: ${checks.filter(isWrong).map(describeCheck).join('; ')}`;
  const cells = [
    start,
    `${short(ours.wall.median)} µs`.padStart(10),
    `[${short(ours.wall.p5)}, ${short(ours.wall.p95)}]`.padEnd(18),
    gflops === undefined ? ''.padEnd(14) : `${short(gflops)} GFLOP/s`.padStart(14),
    `${short(gbytes ?? NaN)} GB/s`.padStart(9),
    checks[0]!.error === 0 ? 'exact'.padEnd(13) : `error ${checks[0]!.error.toExponential(1)}`,
    ...times.slice(1).map(describePeer),
  ];
  return cells.join('  ').trimEnd();
}

const describeCheck = ({ side, error, bound }: Check) =>
  `${side} is off by ${error.toExponential(1)}, expected at most ${bound.toExponential(1)}`;

function describePeer({ name, wallRatio, cpuRatio }: SideTimes): string {
  const ratios = `${wallRatio.median.toFixed(2)} (${cpuRatio.median.toFixed(2)})`;
  return `${ratios.padStart(11)} × ${name}`;
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

export function formatSummary({ summary, wrong, load }: OpsReport): string[] {
  const lines = summary.map((s) => {
    const cells = [
      s.group.padEnd(22),
      `${s.threads} thr`,
      `${s.geomean.toFixed(2)} (${s.cpuGeomean.toFixed(2)}) × ${s.peer}`.padEnd(26),
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
    `load at the end ${load[1].toFixed(1)}`,
  ];
}
