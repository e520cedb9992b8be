/** Text in pictures: the stroke font, smoothed, on whole pixels. */
import { glyphsOf, type Glyph } from './font.js';
import type { Picture, Rgb } from './picture.js';

export interface TextStyle {
  /** pixels a unit of the font; capitals are 10 units high */
  readonly scale: number;
  readonly weight?: 'regular' | 'bold';
  readonly colour: Rgb;
}

/** Units: from one base line to the next, and the part of it above the capitals. */
const LINE = 17;
const ABOVE = 3;
/** Units between the strokes of two letters, from centre to centre. */
const GAP = 3;

const penOf = ({ weight, scale }: TextStyle): number => (weight === 'bold' ? 1.95 : 1.4) * scale;

export const lineHeight = ({ scale }: TextStyle): number => Math.round(LINE * scale);

/** Whole pixels, so that the strokes of one letter look alike wherever it stands. */
const advance = (glyph: Glyph, { scale, weight }: TextStyle): number =>
  Math.round((glyph.width + GAP + (weight === 'bold' ? 0.4 : 0)) * scale);

export function textWidth(text: string, style: TextStyle): number {
  return glyphsOf(text).reduce((sum, glyph) => sum + advance(glyph, style), 0);
}

/** One line; (left, top) is the corner of its box of textWidth × lineHeight. */
export function drawText(
  target: Picture,
  text: string,
  [left, top]: readonly [number, number],
  style: TextStyle,
): void {
  let x = left + Math.round((GAP / 2) * style.scale);
  const y = top + Math.round(ABOVE * style.scale);
  for (const glyph of glyphsOf(text)) {
    drawGlyph(target, glyph, [x, y], style);
    x += advance(glyph, style);
  }
}

/** Breaks at spaces, and inside of words only where one alone is too wide; the last line allowed ends with "…". */
export function wrapText(text: string, style: TextStyle, width: number, maxLines: number): string[] {
  const fits = (line: string) => textWidth(line, style) <= width;
  const lines: string[] = [];
  for (const paragraph of text.split('\n')) {
    let line = '';
    for (const piece of paragraph
      .trim()
      .split(/\s+/)
      .flatMap((word) => breakWord(word, fits))) {
      const longer = line ? `${line} ${piece}` : piece;
      if (!line || fits(longer)) line = longer;
      else {
        lines.push(line);
        line = piece;
      }
    }
    lines.push(line);
  }
  if (lines.length <= maxLines) return lines;
  const kept = lines.slice(0, maxLines);
  kept.push(shorten(`${kept.pop()!}…`, fits));
  return kept;
}

/** Long words break after - _ . / where they can (file names), else anywhere. */
function breakWord(word: string, fits: (text: string) => boolean): string[] {
  if (fits(word)) return [word];
  const pieces: string[] = [];
  let piece = '';
  for (const part of word.split(/(?<=[-_./])/).flatMap((part) => (fits(part) ? [part] : [...part]))) {
    if (piece && !fits(piece + part)) {
      pieces.push(piece);
      piece = '';
    }
    piece += part;
  }
  return [...pieces, piece];
}

function shorten(line: string, fits: (text: string) => boolean): string {
  const characters = [...line.slice(0, -1)];
  while (characters.length && !fits(`${characters.join('').trimEnd()}…`)) characters.pop();
  return `${characters.join('').trimEnd()}…`;
}

type Point = readonly [x: number, y: number];

/** Coverage of a pixel = how far its centre lies inside of the pen's edge, clamped to 0…1. */
function drawGlyph(target: Picture, glyph: Glyph, [left, top]: Point, style: TextStyle): void {
  const radius = penOf(style) / 2;
  for (const line of flatten(glyph.strokes)) {
    // half a unit: the font's lines run through the middle of pixels
    const points = line.map(([x, y]): Point => [(x + 0.5) * style.scale, (y + 0.5) * style.scale]);
    const reach = radius + 1;
    const xs = points.map(([x]) => x);
    const ys = points.map(([, y]) => y);
    for (let y = Math.floor(Math.min(...ys) - reach); y <= Math.max(...ys) + reach; y++)
      for (let x = Math.floor(Math.min(...xs) - reach); x <= Math.max(...xs) + reach; x++) {
        const coverage = radius + 0.5 - distanceToLine([x + 0.5, y + 0.5], points);
        if (coverage > 0) blend(target, [left + x, top + y], style.colour, Math.min(1, coverage));
      }
  }
}

function blend({ width, height, rgb }: Picture, [x, y]: Point, colour: Rgb, amount: number): void {
  if (x < 0 || y < 0 || x >= width || y >= height) return;
  const at = (y * width + x) * 3;
  for (let c = 0; c < 3; c++) rgb[at + c] = Math.round(rgb[at + c]! + (colour[c]! - rgb[at + c]!) * amount);
}

function distanceToLine([x, y]: Point, points: readonly Point[]): number {
  let nearest = Math.hypot(x - points[0]![0], y - points[0]![1]);
  for (const [i, [x1, y1]] of points.slice(1).entries()) {
    const [x0, y0] = points[i]!;
    const [dx, dy] = [x1 - x0, y1 - y0];
    const length = dx * dx + dy * dy;
    const along = length ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / length)) : 0;
    nearest = Math.min(nearest, Math.hypot(x - x0 - along * dx, y - y0 - along * dy));
  }
  return nearest;
}

/** Strokes as polylines: an arc becomes a point every 7.5 degrees. Parsed once for each glyph. */
function flatten(strokes: string): Point[][] {
  const known = flattened.get(strokes);
  if (known) return known;
  const lines = strokes
    .split(';')
    .map((stroke) => stroke.trim())
    .filter((stroke) => stroke)
    .map((stroke) => stroke.split(' ').flatMap(points));
  flattened.set(strokes, lines);
  return lines;
}
const flattened = new Map<string, Point[][]>();

function points(item: string): Point[] {
  if (!item.startsWith('@')) return [item.split(',').map(Number) as unknown as Point];
  const [cx, cy, rx, ry, from, to] = item.slice(1).split(',').map(Number) as Six;
  const steps = Math.ceil(Math.abs(to - from) / 7.5);
  return Array.from({ length: steps + 1 }, (_, i) => {
    const angle = ((from + ((to - from) * i) / steps) * Math.PI) / 180;
    return [cx + rx * Math.cos(angle), cy + ry * Math.sin(angle)];
  });
}
type Six = [number, number, number, number, number, number];
