/**
 * The roofline (Williams, Waterman, Patterson 2009): each case by its operations per byte and its rate, under the
 * slanted limit of memory and the flat ones of arithmetic, both measured in the same run.
 */
import type { OpsReport } from '../ops.js';
import type { OpsResult } from '../ops_run.js';
import { PLOT_WIDTH } from './rows.js';
import {
  escapeText,
  legend,
  line,
  logScale,
  numberText,
  px,
  seriesColour,
  svg,
  textAt,
  type Scale,
} from './svg.js';

const [height, left, right, top, bottom] = [470, 70, 24, 44, 44];
const labelHeight = 13;

interface Point {
  readonly name: string;
  readonly series: string;
  /** operations per byte */
  readonly intensity: number;
  /** GFLOP/s */
  readonly rate: number;
}

interface Limits {
  /** GB/s */
  readonly copy: number | undefined;
  /** name → GFLOP/s */
  readonly rates: readonly (readonly [string, number])[];
}

/** Undefined where nothing in the report is arithmetic. */
export function roofline(report: OpsReport, threads: number): string | undefined {
  const points = report.results.filter((result) => result.threads === threads).flatMap(pointOf);
  if (points.length === 0) return undefined;
  const limits = limitsOf(report, threads);
  const rates = [...points.map((point) => point.rate), ...limits.rates.map(([, rate]) => rate)];
  const x = logScale(
    points.map((point) => point.intensity),
    left,
    PLOT_WIDTH - right,
  );
  const y = logScale(rates, height - bottom, top);
  const series = [...new Set(points.map((point) => point.series))];
  return svg(PLOT_WIDTH, height, 'roofline', [
    legend(series, left, 16),
    ...axes(x, y),
    ...limitLines(limits, x, y, [...points.map((point) => point.intensity)]),
    ...points.map((point) => mark(point, x, y, seriesColour(series.indexOf(point.series)))),
  ]);
}

/** By op and precision: weight types would be too many to tell apart by colour. */
function pointOf({ name, group, gflops, gbytes }: OpsResult): Point[] {
  if (!gflops || !gbytes) return [];
  const series = group.split(' ').slice(0, 2).join(' ');
  return [{ name, series, intensity: gflops / gbytes, rate: gflops }];
}

/** As the run measured them, or the best that any side reached in it. */
function limitsOf({ ceilings, results }: OpsReport, threads: number): Limits {
  if (ceilings) {
    const rates = Object.entries(ceilings.matmulTflops).map(
      ([name, tflops]) => [name, tflops * 1000] as const,
    );
    return { copy: ceilings.copyGbytes, rates };
  }
  const mine = results.filter((result) => result.threads === threads);
  const copies = mine.flatMap(({ times, gbytes }) =>
    times
      .slice(1)
      .flatMap((side) => (side.name === 'memcpy' && gbytes ? [gbytes / side.wallRatio.median] : [])),
  );
  const byPeer = new Map<string, number>();
  for (const { times, gflops } of mine)
    for (const side of times.slice(1)) {
      if (!gflops || side.name === 'memcpy') continue;
      const rate = gflops / side.wallRatio.median;
      byPeer.set(side.name, Math.max(byPeer.get(side.name) ?? 0, rate));
    }
  return {
    copy: copies.length ? Math.max(...copies) : undefined,
    rates: [...byPeer].map(([name, rate]) => [`best of ${name}`, rate] as const),
  };
}

function axes(x: Scale, y: Scale): string[] {
  const parts: string[] = [];
  for (const tick of x.ticks) {
    parts.push(line([x.at(tick), top], [x.at(tick), height - bottom], 'grid'));
    parts.push(
      textAt(x.at(tick), height - bottom + 16, numberText(tick), { anchor: 'middle', className: 'tick' }),
    );
  }
  for (const tick of y.ticks) {
    parts.push(line([left, y.at(tick)], [PLOT_WIDTH - right, y.at(tick)], 'grid'));
    parts.push(textAt(left - 8, y.at(tick) + 4, numberText(tick), { anchor: 'end', className: 'tick' }));
  }
  parts.push(
    textAt(PLOT_WIDTH - right, height - 8, 'operations per byte', { anchor: 'end', className: 'tick' }),
  );
  parts.push(textAt(8, top - 12, 'GFLOP/s', { className: 'tick' }));
  return parts;
}

function limitLines({ copy, rates }: Limits, x: Scale, y: Scale, intensities: readonly number[]): string[] {
  const [low, high] = [Math.min(...intensities), Math.max(...intensities)];
  const parts: string[] = [];
  const flat = Math.max(...rates.map(([, rate]) => rate), 0);
  let lowest = Infinity;
  for (const [name, rate] of [...rates].sort((a, b) => a[1] - b[1])) {
    parts.push(line([x.at(low), y.at(rate)], [x.at(high), y.at(rate)], 'limit'));
    lowest = Math.min(y.at(rate) - 4, lowest - labelHeight); // above the one before
    const label = `${name}: ${numberText(rate)} GFLOP/s`;
    parts.push(textAt(x.at(high), lowest, label, { anchor: 'end', className: 'tick' }));
  }
  if (copy === undefined) return parts;
  const end = flat > 0 ? Math.min(high, flat / copy) : high;
  parts.push(line([x.at(low), clampTo(y.at(copy * low))], [x.at(end), clampTo(y.at(copy * end))], 'limit'));
  parts.push(
    textAt(x.at(low) + 4, clampTo(y.at(copy * low)) - 8, `copy: ${numberText(copy)} GB/s`, {
      className: 'tick',
    }),
  );
  return parts;
}

const clampTo = (at: number): number => Math.min(height - bottom, Math.max(top, at));

function mark({ name, intensity, rate }: Point, x: Scale, y: Scale, colour: string): string {
  const tooltip = `${name}: ${numberText(rate)} GFLOP/s at ${numberText(intensity)} operations per byte`;
  return (
    `<circle cx="${px(x.at(intensity))}" cy="${px(y.at(rate))}" r="4.5" fill="${colour}" opacity="0.8">` +
    `<title>${escapeText(tooltip)}</title></circle>`
  );
}
