/** Inline SVG, written by hand: scales, axes and escaped text. Colours are the page's CSS variables. */

/** Distinct for colour-blind eyes (Okabe and Ito); defined in page.ts. */
const SERIES_COLOURS = 10;

export const seriesColour = (index: number): string => `var(--series-${index % SERIES_COLOURS})`;

export function escapeText(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

export interface Scale {
  /** A value's place, px. */
  at(value: number): number;
  readonly ticks: readonly number[];
}

/** Decades, and 2 and 5 between them where there are few. */
export function logScale(values: readonly number[], from: number, to: number): Scale {
  const positive = values.filter((value) => value > 0 && Number.isFinite(value));
  const low = Math.log10(Math.min(...positive, Infinity));
  const high = Math.log10(Math.max(...positive, 0));
  const [start, end] = Number.isFinite(low) && Number.isFinite(high) ? [low - 0.08, high + 0.08] : [-1, 1];
  const at = (value: number): number => from + ((Math.log10(value) - start) / (end - start)) * (to - from);
  const decades = end - start;
  const steps = decades > 4 ? [1] : decades > 1.2 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  const ticks: number[] = [];
  for (let decade = Math.floor(start); decade <= Math.ceil(end); decade++)
    for (const step of steps) {
      const value = step * 10 ** decade;
      if (Math.log10(value) >= start && Math.log10(value) <= end) ticks.push(value);
    }
  return { at, ticks: thin(ticks, at) };
}

/** From zero, in round steps. */
export function linearScale(largest: number, from: number, to: number): Scale {
  const top = largest > 0 ? largest * 1.05 : 1;
  const at = (value: number): number => from + (value / top) * (to - from);
  const rough = top / 6;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * decade).find((candidate) => candidate >= rough)!;
  const ticks = Array.from({ length: Math.floor(top / step) + 1 }, (_, i) => i * step);
  return { at, ticks };
}

/** Leaves out ticks whose labels would touch. */
function thin(ticks: readonly number[], at: (value: number) => number): number[] {
  const kept: number[] = [];
  for (const tick of ticks)
    if (kept.length === 0 || Math.abs(at(tick) - at(kept.at(-1)!)) >= 34) kept.push(tick);
  return kept;
}

/** Three digits. */
export function numberText(value: number): string {
  if (value === 0) return '0';
  if (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

interface TextOptions {
  readonly anchor?: 'start' | 'middle' | 'end';
  readonly className?: string;
  readonly title?: string;
}

export function textAt(x: number, y: number, content: string, options: TextOptions = {}): string {
  const { anchor = 'start', className = 'label', title } = options;
  const tooltip = title === undefined ? '' : `<title>${escapeText(title)}</title>`;
  return (
    `<text x="${px(x)}" y="${px(y)}" text-anchor="${anchor}" class="${className}">` +
    `${escapeText(content)}${tooltip}</text>`
  );
}

export function line(
  from: readonly [number, number],
  to: readonly [number, number],
  className: string,
): string {
  return `<line x1="${px(from[0])}" y1="${px(from[1])}" x2="${px(to[0])}" y2="${px(to[1])}" class="${className}"/>`;
}

export function svg(width: number, height: number, label: string, parts: readonly string[]): string {
  return (
    `<svg viewBox="0 0 ${px(width)} ${px(height)}" width="${px(width)}" height="${px(height)}" role="img" ` +
    `aria-label="${escapeText(label)}">${parts.join('\n')}</svg>`
  );
}

export function legend(names: readonly string[], x: number, y: number): string {
  let at = x;
  return names
    .map((name, i) => {
      const item =
        `<rect x="${px(at)}" y="${px(y - 9)}" width="10" height="10" rx="2" fill="${seriesColour(i)}"/>` +
        textAt(at + 15, y, name);
      at += 32 + name.length * 6.6;
      return item;
    })
    .join('');
}

export const px = (value: number): string => String(Math.round(value * 100) / 100);
