/** What a page shows of each kind of report: titled plots and tables. */
import type { EncodeReport, EncodeResult } from '../encode.js';
import type { GenerateReport } from '../generate.js';
import type { GenerateBenchResult } from '../generate_result.js';
import type { OpsReport } from '../ops.js';
import type { OpsResult } from '../ops_run.js';
import { geomean } from '../ops_print.js';
import type { BenchReport } from '../report_file.js';
import { roofline } from './roofline.js';
import { barPlot, dotPlot, type DotRow } from './rows.js';
import { escapeText, numberText } from './svg.js';

export interface Section {
  readonly title: string;
  /** A sentence on how to read it. */
  readonly note?: string | undefined;
  /** HTML */
  readonly body: string;
}

export function sectionsOf(report: BenchReport): Section[] {
  if (report.what === 'ops') return opsSections(report);
  return report.what === 'encode' ? encodeSections(report) : generateSections(report);
}

const threadsText = (threads: number): string =>
  threads === 0 ? '' : `, ${threads} thread${threads === 1 ? '' : 's'}`;

function opsSections(report: OpsReport): Section[] {
  const sections: Section[] = [
    {
      title: 'Groups',
      note: 'Geometric means; above 1 is faster than the peer.',
      body: summaryTable(report),
    },
  ];
  for (const threads of new Set(report.results.map((result) => result.threads))) {
    const mine = report.results.filter((result) => result.threads === threads);
    const plot = roofline(report, threads);
    if (plot)
      sections.push({ title: `Roofline${threadsText(threads)}`, note: rooflineNote(report), body: plot });
    for (const op of new Set(mine.map((result) => result.name.split(' ')[0]!)))
      sections.push(
        ...ratioSection(
          op,
          threads,
          mine.filter((result) => result.name.startsWith(`${op} `)),
        ),
      );
  }
  return [...sections, ...wrongSection(report)];
}

const rooflineNote = ({ ceilings }: OpsReport): string =>
  ceilings
    ? 'Limits were measured in the same run: a large copy, a large product in each precision.'
    : 'Limits are the best that a peer reached in this run.';

function ratioSection(op: string, threads: number, results: readonly OpsResult[]): Section[] {
  const rows = results.flatMap(({ name, times }): DotRow[] => {
    const dots = times.slice(1).map(({ name: series, wallRatio }) => {
      return { series, value: wallRatio.median, low: wallRatio.p5, high: wallRatio.p95 };
    });
    return dots.length ? [{ label: name, dots }] : [];
  });
  if (rows.length === 0) return [];
  const title = `${op}${threadsText(threads)}: times as fast as the peer`;
  const note =
    'Right of the line ours is faster. Dots are medians, bars reach from the 5th to the 95th percentile.';
  return [{ title, note, body: dotPlot({ title, axis: "peer's time / ours", rows, reference: 1 }) }];
}

function summaryTable({ summary }: OpsReport): string {
  const rows = summary.map((s) => [
    s.group,
    s.threads === 0 ? '' : String(s.threads),
    s.peer,
    numberText(s.geomean),
    `${s.cases - s.losing} of ${s.cases}`,
    `${numberText(s.worst)}: ${s.worstCase}`,
  ]);
  return table(['group', 'threads', 'peer', '× peer', 'won', 'worst'], rows);
}

function wrongSection({ wrong, notRun }: OpsReport): Section[] {
  const lines = [
    ...wrong.map((name) => `wrong or failed: ${name}`),
    ...(notRun ?? []).map((name) => `not run: ${name}`),
  ];
  if (lines.length === 0) return [];
  return [
    {
      title: 'Not measured',
      body: `<ul>${lines.map((each) => `<li>${escapeText(each)}</li>`).join('')}</ul>`,
    },
  ];
}

const encodeLabel = (r: EncodeResult): string =>
  `${r.file} ${(r.batch ?? 1) > 1 ? `${r.batch} × ` : ''}${r.tokens} tokens${threadsText(r.threads)}`;

function encodeSections({ results }: EncodeReport): Section[] {
  const timed = results.filter((r) => r.seconds && r.gflops);
  const rows = timed.map((r) => ({
    label: encodeLabel(r),
    parts: [{ series: r.contender, value: r.gflops! }],
    note: `${numberText(r.gflops!)} (${numberText(r.seconds!.median)} s)`,
  }));
  const compared = timed.filter((r) => r.timesPeer !== undefined);
  return [
    ...(compared.length ? [encodeRatios(compared)] : []),
    ...(rows.length ? [{ title: 'Rate', body: barPlot({ title: 'Rate', axis: 'GFLOP/s', rows }) }] : []),
  ];
}

function encodeRatios(results: readonly EncodeResult[]): Section {
  const byCase = groupBy(results, encodeLabel);
  const rows = [...byCase].map(([label, members]): DotRow => ({
    label,
    dots: members.map((r) => {
      const value = r.timesPeer!;
      const { median, p5, p95 } = r.seconds!;
      return { series: r.contender, value, low: (value * median) / p95, high: (value * median) / p5 };
    }),
  }));
  const title = 'Times as fast as the peer';
  const mean = numberText(geomean(results.map((r) => r.timesPeer!)));
  const note = `Right of the line ours is faster; geometric mean over all ${mean}.`;
  return { title, note, body: dotPlot({ title, axis: "peer's time / ours", rows, reference: 1 }) };
}

function groupBy<T>(values: readonly T[], key: (value: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const value of values) groups.set(key(value), [...(groups.get(key(value)) ?? []), value]);
  return groups;
}

function generateSections({ results, stepPeers }: GenerateReport): Section[] {
  const timed = results.filter((r) => r.seconds);
  const rows = timed.map((r) => ({
    label: `${r.file} ${r.width}×${r.height}, ${r.steps} ${r.steps === 1 ? 'step' : 'steps'}, ${r.contender}`,
    parts: (['load', 'encode', 'sample', 'decode'] as const).map((series) => ({
      series,
      value: r.seconds![series].median,
    })),
    note: `${numberText(r.seconds!.total.median)} s`,
  }));
  if (rows.length === 0) return [];
  return [
    { title: 'From words to a picture', body: barPlot({ title: 'Phases', axis: 'seconds', rows }) },
    ...(stepPeers?.length ? [stepSection(timed, stepPeers)] : []),
  ];
}

function stepSection(
  results: readonly GenerateBenchResult[],
  peers: NonNullable<GenerateReport['stepPeers']>,
): Section {
  const ours = results.map((r) => ({
    label: `${r.file} ${r.width}×${r.height}, ${r.contender}`,
    parts: [{ series: 's a step', value: r.secondsPerStep! }],
  }));
  const theirs = peers.flatMap((peer) =>
    peer.secondsPerStep
      ? [
          {
            label: `${peer.name}, ${peer.width}×${peer.height}`,
            parts: [{ series: 's a step', value: peer.secondsPerStep.median }],
          },
        ]
      : [],
  );
  return {
    title: 'A step of the transformer',
    body: barPlot({ title: 'A step', axis: 'seconds a step', rows: [...ours, ...theirs] }),
  };
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = (tag: string, values: readonly string[]): string =>
    values.map((value) => `<${tag}>${escapeText(value)}</${tag}>`).join('');
  const body = rows.map((row) => `<tr>${cells('td', row)}</tr>`).join('\n');
  return `<table><thead><tr>${cells('th', head)}</tr></thead><tbody>${body}</tbody></table>`;
}
