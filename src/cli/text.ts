/** Text for a terminal: colours, widths, aligned columns, units. */
import type { Io, Output } from './io.js';

export interface Style {
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  cyan(text: string): string;
}

const sgr = (on: number, off: number) => (text: string) => `\x1b[${on}m${text}\x1b[${off}m`;
const same = (text: string): string => text;

const COLOURS: Style = {
  bold: sgr(1, 22),
  dim: sgr(2, 22),
  red: sgr(31, 39),
  green: sgr(32, 39),
  yellow: sgr(33, 39),
  cyan: sgr(36, 39),
};
const PLAIN: Style = { bold: same, dim: same, red: same, green: same, yellow: same, cyan: same };

/** Colours on a terminal, unless NO_COLOR (https://no-color.org) or a dumb terminal says otherwise. */
export function hasColours(output: Output, env: Io['env']): boolean {
  return output.isTTY === true && !env['NO_COLOR'] && env['TERM'] !== 'dumb';
}

export function styleFor(output: Output, env: Io['env']): Style {
  return hasColours(output, env) ? COLOURS : PLAIN;
}

/** Columns of the terminal; 100 where the output is a file or a pipe. */
export function widthOf(output: Output): number {
  return output.isTTY === true ? (output.columns ?? 80) : 100;
}

/** Names and prompts come from files and strangers: control characters must not reach a terminal. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, (char) => {
    if (char === '\n') return '↵';
    return `\\u${char.codePointAt(0)!.toString(16).padStart(4, '0')}`;
  });
}

const ANSI = /\x1b\[[\d;]*m/g;
const NO_WIDTH = /^[\p{Mn}\p{Me}\p{Cf}]$/u;
const DOUBLE_WIDTH =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]$/u;

/** Terminal columns a text takes. */
export function visibleWidth(text: string): number {
  let width = 0;
  for (const char of text.replace(ANSI, ''))
    width += NO_WIDTH.test(char) ? 0 : DOUBLE_WIDTH.test(char) ? 2 : 1;
  return width;
}

/** Rows as lines with aligned columns; a column of numbers to the right. */
export function table(
  rows: readonly (readonly string[])[],
  options: { indent?: string; right?: readonly number[] } = {},
): string[] {
  const { indent = '', right = [] } = options;
  const columns = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, c) =>
    Math.max(...rows.map((row) => visibleWidth(row[c] ?? ''))),
  );
  return rows.map((row) => {
    const cells = row.map((cell, c) => {
      const space = ' '.repeat(widths[c]! - visibleWidth(cell));
      return right.includes(c) ? space + cell : cell + space;
    });
    return (indent + cells.join('  ')).trimEnd();
  });
}

/** Words into lines of at most `width` columns. A word may hold colours and spaces. */
export function wrap(words: readonly string[], width: number, indent = ''): string[] {
  const lines: string[] = [];
  let line = '';
  let used = 0;
  for (const word of words) {
    const size = visibleWidth(word);
    if (used > 0 && visibleWidth(indent) + used + 1 + size > width) {
      lines.push(indent + line);
      line = '';
      used = 0;
    }
    line += used > 0 ? ` ${word}` : word;
    used += used > 0 ? size + 1 : size;
  }
  return used > 0 ? [...lines, indent + line] : lines;
}

const UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB'] as const;

/** "9.52 GB", decimal units, as download pages give sizes. */
export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : Number(value.toPrecision(3))} ${UNITS[unit]}`;
}

/** "9,524,621,312" */
export const grouped = (value: number): string => value.toLocaleString('en-US');

/** "1 tensor", "219 tensors" */
export const counted = (count: number, noun: string): string =>
  `${grouped(count)} ${noun}${count === 1 ? '' : 's'}`;

export function secondsText(seconds: number): string {
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${Number((seconds * 1000).toPrecision(3))} ms`;
  if (seconds < 99.95) return `${seconds.toPrecision(3)} s`;
  const whole = Math.round(seconds);
  return whole < 120
    ? `${whole} s`
    : `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
}

export const shapeText = (shape: readonly number[]): string => `[${shape.join(', ')}]`;
