/** Several pictures in one: a plain tile for a batch, and the labelled grid that `compare` writes. */
import { KotobaError } from '../errors.js';
import {
  MAX_PIXELS,
  blankPicture,
  checkPicture,
  enlarge,
  fillBox,
  paste,
  type Picture,
  type Rgb,
} from './picture.js';
import { drawText, lineHeight, textWidth, wrapText, type TextStyle } from './text.js';

export interface GridCell {
  /** undefined leaves the place empty, with its caption */
  readonly picture?: Picture;
  /** below the picture, e.g. "PSNR 23.1 dB"; lines are kept */
  readonly caption?: string;
  /** 'quiet' prints the caption in grey: what says "no more than noise" */
  readonly tone?: 'normal' | 'quiet';
}

export interface Grid {
  readonly title?: string;
  /** below the title, e.g. the prompt */
  readonly subtitle?: string;
  /** one label a column; all columns are as wide as the widest picture */
  readonly columns: readonly string[];
  readonly rows: readonly { readonly label: string; readonly cells: readonly GridCell[] }[];
  /** below everything: what the numbers mean */
  readonly footer?: string;
  /** Smaller pictures are enlarged by a whole factor until their longer side has this many pixels; default 160. */
  readonly minSide?: number;
}

const PAPER: Rgb = [250, 250, 248];
const INK: Rgb = [32, 34, 40];
const QUIET: Rgb = [128, 131, 140];
const FRAME: Rgb = [205, 207, 212];

const MAX_LABEL_LINES = 4;
const MAX_TEXT_LINES = 4;

/** Everything that is drawn, placed: sizes are known before a pixel is allocated. */
interface Layout {
  readonly unit: number; // pixels: the scale of text and spaces
  readonly factor: number;
  readonly cell: readonly [width: number, height: number];
  readonly rowLabel: number; // width, pixels; 0 if no row has a label
  readonly width: number;
}

/** @throws KotobaError ERR_ARGUMENT for an empty or ragged grid, ERR_IMAGE_SIZE if the whole would be too large */
export function drawGrid(grid: Grid): Picture {
  checkGrid(grid);
  const layout = layOut(grid);
  const blocks = [...headBlocks(grid, layout), columnBlock(grid, layout), ...rowBlocks(grid, layout)];
  if (grid.footer) blocks.push(textBlock(grid.footer, styles(layout.unit).small, layout, 4));
  const margin = space(layout, 24);
  const height = blocks.reduce((sum, block) => sum + block.height, 2 * margin);
  const size = layout.width * height;
  if (size > MAX_PIXELS)
    throw new KotobaError(
      'ERR_IMAGE_SIZE',
      `grid of ${grid.columns.length} × ${grid.rows.length} pictures: expected at most ${MAX_PIXELS} pixels, ` +
        `got ${layout.width} × ${height}: make smaller pictures or fewer of them`,
    );
  const target = blankPicture(layout.width, height, PAPER);
  let top = margin;
  for (const block of blocks) {
    block.draw(target, top);
    top += block.height;
  }
  return target;
}

interface Block {
  readonly height: number;
  draw(target: Picture, top: number): void;
}

const space = ({ unit }: Layout, pixels: number): number => Math.round(pixels * unit);

function styles(unit: number) {
  const style = (scale: number, colour: Rgb, weight: 'regular' | 'bold' = 'regular'): TextStyle => ({
    scale: scale * unit,
    colour,
    weight,
  });
  return {
    title: style(1.6, INK, 'bold'),
    text: style(1, QUIET),
    label: style(1, INK, 'bold'),
    caption: style(1, INK),
    quiet: style(1, QUIET),
    small: style(0.9, QUIET),
  };
}

function checkGrid({ columns, rows }: Grid): void {
  const wrong = (what: string) => new KotobaError('ERR_ARGUMENT', `grid: ${what}`);
  if (!columns.length || !rows.length) throw wrong('expected at least one row and one column');
  for (const { label, cells } of rows) {
    if (cells.length !== columns.length)
      throw wrong(`row "${label}" has ${cells.length} cells for ${columns.length} columns`);
    for (const { picture } of cells) if (picture) checkPicture(picture, `grid, row "${label}"`);
  }
}

function layOut({ columns, rows, minSide = 160 }: Grid): Layout {
  const pictures = rows.flatMap(({ cells }) => cells.flatMap(({ picture }) => picture ?? []));
  const longest = Math.max(1, ...pictures.map(({ width, height }) => Math.max(width, height)));
  const factor = Math.max(1, Math.ceil(minSide / longest));
  const side = (sides: number[]) => Math.max(minSide, ...sides.map((pixels) => pixels * factor));
  const width = side(pictures.map((picture) => picture.width));
  const height = pictures.length ? Math.max(...pictures.map((picture) => picture.height * factor)) : minSide;
  // text grows with the pictures, so that a grid shown at the size of a screen can be read
  const unit = Math.min(3, Math.max(1, Math.round((2 * width) / 320) / 2));
  const label = styles(unit).label;
  const labels = rows.map((row) => Math.min(200 * unit, textWidth(row.label, label)));
  const rowLabel = rows.some((row) => row.label) ? Math.ceil(Math.max(...labels) + 16 * unit) : 0;
  const inner = rowLabel + columns.length * width + (columns.length - 1) * Math.round(GUTTER * unit);
  return { unit, factor, cell: [width, height], rowLabel, width: inner + 2 * Math.round(24 * unit) };
}
const GUTTER = 16;

/** A paragraph over the whole width, with a space below. */
function textBlock(text: string, style: TextStyle, layout: Layout, below: number): Block {
  const left = space(layout, 24);
  const lines = wrapText(text, style, layout.width - 2 * left, MAX_TEXT_LINES);
  return {
    height: lines.length * lineHeight(style) + space(layout, below),
    draw: (target, top) => {
      for (const [i, line] of lines.entries())
        drawText(target, line, [left, top + i * lineHeight(style)], style);
    },
  };
}

function headBlocks({ title, subtitle }: Grid, layout: Layout): Block[] {
  const { title: large, text } = styles(layout.unit);
  const blocks: Block[] = [];
  if (title) blocks.push(textBlock(title, large, layout, subtitle ? 4 : 18));
  if (subtitle) blocks.push(textBlock(subtitle, text, layout, 20));
  return blocks;
}

function columnLeft(layout: Layout, column: number): number {
  return space(layout, 24) + layout.rowLabel + column * (layout.cell[0] + space(layout, GUTTER));
}

/** Labels stand on the pictures: the last line of each has the same height. */
function columnBlock({ columns }: Grid, layout: Layout): Block {
  const style = styles(layout.unit).label;
  const labels = columns.map((label) => wrapText(label, style, layout.cell[0], MAX_LABEL_LINES));
  const lines = columns.some((label) => label) ? Math.max(...labels.map((label) => label.length)) : 0;
  return {
    height: lines ? lines * lineHeight(style) + space(layout, 6) : 0,
    draw: (target, top) => {
      for (const [column, label] of labels.entries())
        drawCentred(target, label, style, [
          columnLeft(layout, column),
          top + (lines - label.length) * lineHeight(style),
          layout.cell[0],
        ]);
    },
  };
}

function drawCentred(
  target: Picture,
  lines: readonly string[],
  style: TextStyle,
  [left, top, width]: readonly [number, number, number],
): void {
  for (const [i, line] of lines.entries()) {
    const x = left + Math.max(0, Math.round((width - textWidth(line, style)) / 2));
    drawText(target, line, [x, top + i * lineHeight(style)], style);
  }
}

function rowBlocks(grid: Grid, layout: Layout): Block[] {
  const style = styles(layout.unit);
  return grid.rows.map(({ label, cells }) => {
    const labelLines = wrapText(label, style.label, layout.rowLabel - space(layout, 16), MAX_LABEL_LINES * 2);
    const captions = cells.map(({ caption = '' }) =>
      caption ? wrapText(caption, style.caption, layout.cell[0], MAX_LABEL_LINES) : [],
    );
    const below = Math.max(...captions.map((lines) => lines.length)) * lineHeight(style.caption);
    const [width, height] = layout.cell;
    const draw = (target: Picture, top: number) => {
      const middle = top + Math.round((height - labelLines.length * lineHeight(style.label)) / 2);
      if (label)
        for (const [i, line] of labelLines.entries())
          drawText(target, line, [space(layout, 24), middle + i * lineHeight(style.label)], style.label);
      for (const [column, { picture, tone }] of cells.entries()) {
        const left = columnLeft(layout, column);
        if (picture) drawFramed(target, picture, layout, [left, top]);
        const under = [left, top + height + space(layout, 5), width] as const;
        drawCentred(target, captions[column]!, tone === 'quiet' ? style.quiet : style.caption, under);
      }
    };
    return { height: height + (below ? below + space(layout, 5) : 0) + space(layout, 16), draw };
  });
}

/** Centred in its place, with a thin frame, so that a white picture has an edge. */
function drawFramed(target: Picture, picture: Picture, layout: Layout, [left, top]: [number, number]): void {
  const large = enlarge(picture, layout.factor);
  const x = left + Math.floor((layout.cell[0] - large.width) / 2);
  const y = top + Math.floor((layout.cell[1] - large.height) / 2);
  fillBox(target, [x - 1, y - 1, large.width + 2, large.height + 2], FRAME);
  paste(target, large, x, y);
}

export interface TileOptions {
  /** default: about as many as rows */
  readonly columns?: number;
  /** pixels between pictures; default 4 */
  readonly gap?: number;
}

/** Pictures in reading order, without text; each place is as large as the largest picture. */
export function tile(pictures: readonly Picture[], options: TileOptions = {}): Picture {
  if (!pictures.length) throw new KotobaError('ERR_ARGUMENT', 'tile: expected at least one picture');
  const { columns = Math.ceil(Math.sqrt(pictures.length)), gap = 4 } = options;
  if (!(Number.isInteger(columns) && columns > 0 && Number.isInteger(gap) && gap >= 0))
    throw new KotobaError(
      'ERR_ARGUMENT',
      `tile: expected whole columns ≥ 1, gap ≥ 0, got ${columns}, ${gap}`,
    );
  for (const picture of pictures) checkPicture(picture, 'tile');
  const width = Math.max(...pictures.map((picture) => picture.width));
  const height = Math.max(...pictures.map((picture) => picture.height));
  const rows = Math.ceil(pictures.length / columns);
  const across = Math.min(columns, pictures.length);
  const target = blankPicture(
    across * (width + gap) - gap,
    rows * (height + gap) - gap,
    PAPER,
    'tiled picture',
  );
  for (const [i, picture] of pictures.entries())
    paste(target, picture, (i % columns) * (width + gap), Math.floor(i / columns) * (height + gap));
  return target;
}
