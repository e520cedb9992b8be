/** A handful of shapes, drawn as SVG or into a picture. */
import { fillBox, type Picture, type Rgb } from '../image/picture.js';
import { drawText } from '../image/text.js';

type Point = readonly [x: number, y: number];

/** Pixels, from the top left corner; colours as #rrggbb. Text hangs below its point, `size` pixels high. */
export type Shape =
  | {
      readonly kind: 'line';
      readonly points: readonly Point[];
      readonly colour: string;
      readonly width: number;
    }
  | { readonly kind: 'box'; readonly box: readonly [number, number, number, number]; readonly colour: string }
  | {
      readonly kind: 'text';
      readonly at: Point;
      readonly text: string;
      readonly size: number;
      readonly colour: string;
    };

export function drawSvg(shapes: readonly Shape[], width: number, height: number): string {
  const lines = shapes.map((shape) => `  ${svgOf(shape)}`);
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    `font-family="system-ui, sans-serif">\n${lines.join('\n')}\n</svg>`
  );
}

function svgOf(shape: Shape): string {
  if (shape.kind === 'box') {
    const [x, y, width, height] = shape.box.map(short);
    return `<rect x="${x}" y="${y}" width="${width}" height="${height}" fill="${shape.colour}"/>`;
  }
  if (shape.kind === 'text') {
    const { at, text, size, colour } = shape;
    return `<text x="${short(at[0])}" y="${short(at[1] + size)}" font-size="${size}" fill="${colour}">${escaped(text)}</text>`;
  }
  const { points, colour, width } = shape;
  // A single point is drawn too: a network of one layer has no more.
  const all = points.length === 1 ? [points[0]!, [points[0]![0] + 1, points[0]![1]] as const] : points;
  const path = all.map((point) => point.map(short).join(',')).join(' ');
  return `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="${width}"/>`;
}

const short = (value: number): number => Math.round(value * 10) / 10;

/** Names come from files. */
const escaped = (text: string): string =>
  text.replace(/[\p{Cc}\p{Cs}]/gu, '\ufffd').replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);

export function drawPng(target: Picture, shapes: readonly Shape[]): void {
  for (const shape of shapes) {
    const colour = rgbOf(shape.colour);
    if (shape.kind === 'box') {
      const [x, y, width, height] = shape.box.map(Math.round) as [number, number, number, number];
      fillBox(target, [x, y, width, height], colour);
    } else if (shape.kind === 'text') {
      // Capitals are 10 units high, of a font whose size is about 14.
      const at = shape.at.map(Math.round) as [number, number];
      drawText(target, shape.text, at, { scale: shape.size / 15, colour });
    } else drawLine(target, shape.points, shape.width, colour);
  }
}

/** Squares so close to each other that they make a line. */
function drawLine(target: Picture, points: readonly Point[], width: number, colour: Rgb): void {
  for (const [i, to] of points.entries()) {
    const from = points[Math.max(0, i - 1)]!;
    const steps = Math.max(1, Math.ceil(Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]))));
    for (let step = 0; step <= steps; step++) {
      const [x, y] = [0, 1].map((axis) => from[axis]! + ((to[axis]! - from[axis]!) * step) / steps) as [
        number,
        number,
      ];
      fillBox(target, [Math.round(x - width / 2), Math.round(y - width / 2), width, width], colour);
    }
  }
}

const rgbOf = (colour: string): Rgb =>
  [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)) as unknown as Rgb;
