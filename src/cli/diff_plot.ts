/** A difference as a picture: distance and activations over the layers, tensors by how much they stand out. */
import { blankPicture, encodePng } from '../image/index.js';
import { F16_MOST } from '../pipeline/layer_difference.js';
import { drawPng, drawSvg, type Shape } from './diff_shapes.js';
import type { Difference } from './diff_report.js';

const WIDTH = 1100;
const MARGIN = 60;
const CHART = 260;
const BAR = 22;
const MOST_BARS = 24;
/** Of a tensor's name; its end tells more than its beginning. */
const MOST_LETTERS = 66;
/** Colour-blind safe (Okabe and Ito). */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'] as const;
const INK = '#222222';
const QUIET = '#888888';

/** @param path .html: one file with nothing to load; .png */
export async function plotOf(found: Difference, path: string): Promise<Buffer> {
  const { shapes, height } = layout(found);
  if (/\.png$/i.test(path)) {
    const picture = blankPicture(WIDTH, height, [255, 255, 255]);
    drawPng(picture, shapes);
    return Buffer.from(await encodePng(picture));
  }
  const title = 'kotoba diff';
  return Buffer.from(
    `<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>${title}</title>\n` +
      `<body style="margin:0;background:#fff">\n${drawSvg(shapes, WIDTH, height)}\n</body></html>\n`,
  );
}

function layout(found: Difference): { shapes: Shape[]; height: number } {
  const shapes: Shape[] = [];
  let top = 20;
  const say = (text: string, size: number, colour = INK): void => {
    shapes.push({ kind: 'text', at: [MARGIN, top], text, size, colour });
    top += size * 1.7;
  };
  for (const [i, { path, description }] of found.files.entries())
    say(`${'AB'[i]}: ${path} (${description})`, 14);
  for (const text of found.findings) say(text, 13, COLOURS[1]);
  top += 10;
  if (found.prompts.length > 0) {
    const distances = found.prompts.map(({ layers }) => layers.map(({ relativeL2 }) => relativeL2));
    shapes.push(...chart('relative L2 of the states, by layer', distances, top, []));
    top += CHART + 50;
    const largest = [0, 1].map((i) =>
      found.prompts[0]!.layers.map((_, layer) =>
        Math.max(...found.prompts.map(({ layers }) => layers[layer]!.largest[i]!)),
      ),
    );
    shapes.push(...chart("largest activation, A and B; the line is F16's limit", largest, top, [F16_MOST]));
    top += CHART + 40;
    for (const [i, { prompt, tokens }] of found.prompts.entries())
      say(`${prompt.slice(0, 110)} (${tokens} tokens)`, 12, COLOURS[i % COLOURS.length]);
    top += 14;
  }
  const rows = found.tensors.filter(({ suspicion }) => suspicion > 0).slice(0, MOST_BARS);
  say(rows.length > 0 ? 'relative L2 of tensors, those that stand out first' : 'all tensors are equal', 15);
  shapes.push(...bars(found, rows, top));
  return { shapes, height: Math.ceil(top + rows.length * BAR + 30) };
}

interface Scale {
  /** powers of ten at the bottom and at the top */
  readonly low: number;
  readonly high: number;
  readonly lastLayer: number;
  x(layer: number): number;
  y(value: number): number;
}

/** Decades, from the smallest value to the largest. */
function scaleOf(values: readonly number[], layers: number, top: number): Scale {
  const shown = values.filter((value) => value > 0 && Number.isFinite(value));
  const low = Math.floor(Math.log10(Math.min(...shown, 1)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...shown, 10 ** low))));
  const lastLayer = Math.max(1, layers - 1);
  return {
    low,
    high,
    lastLayer,
    x: (layer) => MARGIN + ((WIDTH - 2 * MARGIN) * layer) / lastLayer,
    y: (value) => top + 30 + (CHART - 30) * (1 - (Math.log10(value) - low) / (high - low)),
  };
}

/** A line for each of `series`, over the layers; equal values and ones that are not finite leave a gap. */
function chart(
  title: string,
  series: readonly (readonly number[])[],
  top: number,
  marks: readonly number[],
): Shape[] {
  const scale = scaleOf([...series.flat(), ...marks], series[0]!.length, top);
  const lines = series.flatMap((one, i) =>
    unbroken(one.map((value, layer) => [scale.x(layer), value] as const)).map((points): Shape => {
      const line = points.map(([x, value]) => [x, scale.y(value)] as const);
      return { kind: 'line', points: line, colour: COLOURS[i % COLOURS.length]!, width: 2 };
    }),
  );
  return [
    { kind: 'text', at: [MARGIN, top], text: title, size: 15, colour: INK },
    ...axes(scale, top),
    ...marks.map((mark) => across(scale.y(mark), '#cc0000', 2)),
    ...lines,
  ];
}

const across = (y: number, colour: string, width: number): Shape => ({
  kind: 'line',
  points: [
    [MARGIN, y],
    [WIDTH - MARGIN, y],
  ],
  colour,
  width,
});

function axes({ low, high, lastLayer, x, y }: Scale, top: number): Shape[] {
  const shapes: Shape[] = [];
  const label = (at: Point, text: string): void => {
    shapes.push({ kind: 'text', at, text, size: 12, colour: QUIET });
  };
  for (let power = low; power <= high; power += Math.ceil((high - low) / 6)) {
    shapes.push(across(y(10 ** power), '#dddddd', 1));
    label([8, y(10 ** power) - 8], `1e${power}`);
  }
  for (let layer = 0; layer <= lastLayer; layer += Math.ceil(lastLayer / 24))
    label([x(layer) - 4, top + CHART + 6], String(layer));
  return shapes;
}

type Point = readonly [x: number, y: number];

function unbroken(points: readonly Point[]): Point[][] {
  const runs: Point[][] = [[]];
  for (const point of points)
    if (point[1] > 0 && Number.isFinite(point[1])) runs.at(-1)!.push(point);
    else runs.push([]);
  return runs.filter((run) => run.length > 0);
}

function bars({ looks }: Difference, rows: Difference['tensors'], top: number): Shape[] {
  const names = 520;
  const room = WIDTH - MARGIN - names;
  const most = Math.max(...rows.map(({ relativeL2 }) => relativeL2).filter(Number.isFinite), 1e-12);
  return rows.flatMap(({ name, relativeL2 }, i): Shape[] => {
    const y = top + i * BAR;
    const share = Number.isFinite(relativeL2) ? relativeL2 / most : 1;
    const colour = looks.has(name) ? COLOURS[1] : COLOURS[0];
    const label = `${relativeL2.toPrecision(3)} ${looks.get(name) ?? ''}`;
    return [
      {
        kind: 'text',
        at: [MARGIN, y],
        text: name.length > MOST_LETTERS ? `…${name.slice(1 - MOST_LETTERS)}` : name,
        size: 12,
        colour: INK,
      },
      { kind: 'box', box: [names, y + 3, Math.max(1, room * 0.35 * share), BAR - 9], colour },
      { kind: 'text', at: [names + room * 0.35 * share + 8, y], text: label, size: 12, colour: QUIET },
    ];
  });
}
