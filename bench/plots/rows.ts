/** Plots with a row for each case: dots with their spread on a logarithmic axis, and stacked bars. */
import {
  escapeText,
  legend,
  line,
  linearScale,
  logScale,
  numberText,
  px,
  seriesColour,
  svg,
  textAt,
  type Scale,
} from './svg.js';

export const PLOT_WIDTH = 980;
const [labelWidth, right, rowHeight, top, bottom] = [340, 70, 19, 42, 30];
const plotRight = PLOT_WIDTH - right;

export interface Dot {
  readonly series: string;
  readonly value: number;
  /** p5 and p95 */
  readonly low: number;
  readonly high: number;
}

export interface DotRow {
  readonly label: string;
  readonly dots: readonly Dot[];
}

export interface DotPlot {
  readonly title: string;
  /** What the axis shows. */
  readonly axis: string;
  readonly rows: readonly DotRow[];
  /** Where a line is drawn: as fast as the peer. */
  readonly reference: number;
}

export function dotPlot({ title, axis, rows, reference }: DotPlot): string {
  const series = [...new Set(rows.flatMap((row) => row.dots.map((dot) => dot.series)))];
  const values = rows.flatMap((row) => row.dots.flatMap((dot) => [dot.value, dot.low, dot.high]));
  const scale = logScale([...values, reference], labelWidth, plotRight);
  const height = top + rows.length * rowHeight + bottom;
  const parts = [legend(series, labelWidth, 16), ...axisParts(scale, height, axis)];
  parts.push(line([scale.at(reference), top - 6], [scale.at(reference), height - bottom], 'reference'));
  for (const [i, row] of rows.entries()) {
    const y = top + (i + 0.5) * rowHeight;
    parts.push(textAt(labelWidth - 8, y + 4, row.label, { anchor: 'end' }));
    for (const dot of row.dots)
      parts.push(dotMark(dot, row.label, scale, y, seriesColour(series.indexOf(dot.series))));
    const first = row.dots[0];
    if (first && row.dots.length === 1) parts.push(valueText(first, y));
  }
  return svg(PLOT_WIDTH, height, title, parts);
}

const valueText = ({ value }: Dot, y: number): string =>
  textAt(PLOT_WIDTH - 4, y + 4, numberText(value), {
    anchor: 'end',
    className: value < 1 ? 'value behind' : 'value',
  });

function dotMark(dot: Dot, label: string, scale: Scale, y: number, colour: string): string {
  const tooltip = `${label}: ${numberText(dot.value)} × ${dot.series} [${numberText(dot.low)}, ${numberText(dot.high)}]`;
  const [x1, x2] = [scale.at(dot.low), scale.at(dot.high)];
  return (
    `<g stroke="${colour}" fill="${colour}"><title>${escapeText(tooltip)}</title>` +
    `<line x1="${px(x1)}" y1="${px(y)}" x2="${px(x2)}" y2="${px(y)}" stroke-width="2" opacity="0.55"/>` +
    `<circle cx="${px(scale.at(dot.value))}" cy="${px(y)}" r="4"/></g>`
  );
}

function axisParts(scale: Scale, height: number, axis: string): string[] {
  const parts: string[] = [];
  for (const tick of scale.ticks) {
    const x = scale.at(tick);
    parts.push(line([x, top - 6], [x, height - bottom], 'grid'));
    parts.push(textAt(x, height - bottom + 14, numberText(tick), { anchor: 'middle', className: 'tick' }));
  }
  parts.push(textAt(plotRight, height - 3, axis, { anchor: 'end', className: 'tick' }));
  return parts;
}

export interface BarRow {
  readonly label: string;
  /** Stacked from the left. */
  readonly parts: readonly { readonly series: string; readonly value: number }[];
  /** Behind the bar. */
  readonly note?: string | undefined;
}

export interface BarPlot {
  readonly title: string;
  readonly axis: string;
  readonly rows: readonly BarRow[];
}

export function barPlot({ title, axis, rows }: BarPlot): string {
  const series = [...new Set(rows.flatMap((row) => row.parts.map((part) => part.series)))];
  const total = (row: BarRow): number => row.parts.reduce((sum, part) => sum + part.value, 0);
  const scale = linearScale(Math.max(...rows.map(total)), labelWidth, plotRight - 60);
  const height = top + rows.length * rowHeight + bottom;
  const parts = [series.length > 1 ? legend(series, labelWidth, 16) : '', ...axisParts(scale, height, axis)];
  for (const [i, row] of rows.entries()) {
    const y = top + i * rowHeight;
    parts.push(textAt(labelWidth - 8, y + 13, row.label, { anchor: 'end' }));
    let reached = 0;
    for (const part of row.parts) {
      const [from, to] = [scale.at(reached), scale.at(reached + part.value)];
      const tooltip = `${row.label}: ${part.series} ${numberText(part.value)}`;
      parts.push(
        `<rect x="${px(from)}" y="${px(y + 2)}" width="${px(to - from)}" height="${px(rowHeight - 5)}" rx="2" ` +
          `fill="${seriesColour(series.indexOf(part.series))}"><title>${escapeText(tooltip)}</title></rect>`,
      );
      reached += part.value;
    }
    parts.push(
      textAt(scale.at(reached) + 6, y + 13, row.note ?? numberText(reached), { className: 'value' }),
    );
  }
  return svg(PLOT_WIDTH, height, title, parts);
}
