/** A comparison as one labelled picture: encoders side by side, prompts and seeds below each other. */
import { drawGrid, resizePicture, type Grid, type GridCell, type Picture } from '../image/index.js';
import type { CompareCell, CompareResult } from './compare.js';

export interface CompareGridOptions {
  readonly title?: string | undefined;
  /** Of all cells together; larger ones are scaled down, so that the grid can be opened. Default 2^25. */
  readonly mostPixels?: number | undefined;
}

/** Columns side by side that still fit a page. */
const MOST_ACROSS = 6;

export function compareGrid(result: CompareResult, options: CompareGridOptions = {}): Picture {
  const { title = 'The same seed, another text encoder', mostPixels = 2 ** 25 } = options;
  const { columns, rows } = result;
  const prompts = [...new Set(rows.map(({ prompt }) => prompt))];
  const seeds = [...new Set(rows.map(({ seed }) => seed))];
  const same = [
    ...(prompts.length === 1 ? [rows[0]!.prompt] : []),
    ...(seeds.length === 1 ? [`seed ${rows[0]!.seed}`] : []),
  ];
  const draw = (cell: CompareCell): GridCell => gridCell(cell, shrinking(result, mostPixels));
  const isWide = prompts.length > 1 && seeds.length > 1 && columns.length * seeds.length <= MOST_ACROSS;
  return drawGrid({
    title,
    subtitle: [...same, settingsText(result)].join('  ·  '),
    ...(isWide ? seedsAcross(result, seeds, draw) : seedsDown(result, seeds, draw)),
    footer: footer(result),
  });
}

type Draw = (cell: CompareCell) => GridCell;
type Body = Pick<Grid, 'columns' | 'rows'>;

const columnLabels = ({ columns }: CompareResult): string[] =>
  columns.map(({ label }, i) => (i === 0 ? `${label}\n(reference)` : label));

/** A row for each prompt and seed. */
function seedsDown(result: CompareResult, seeds: readonly bigint[], draw: Draw): Body {
  const hasPrompts = result.rows.some(({ prompt }) => prompt !== result.rows[0]!.prompt);
  const label = ({ prompt, seed }: CompareResult['rows'][number]): string =>
    [...(hasPrompts ? [prompt] : []), ...(seeds.length > 1 ? [`seed ${seed}`] : [])].join('\n');
  return {
    columns: columnLabels(result),
    rows: result.rows.map((row) => ({ label: label(row), cells: row.cells.map(draw) })),
  };
}

/** A row for each prompt; each encoder's seeds are neighbours. */
function seedsAcross(result: CompareResult, seeds: readonly bigint[], draw: Draw): Body {
  const labels = columnLabels(result).flatMap((label) => seeds.map((seed) => `${label}\nseed ${seed}`));
  const rows = result.rows.flatMap((first, i) => {
    if (i % seeds.length > 0) return [];
    const ofPrompt = result.rows.slice(i, i + seeds.length);
    const cells = result.columns.flatMap((_, column) => ofPrompt.map((row) => draw(row.cells[column]!)));
    return [{ label: first.prompt, cells }];
  });
  return { columns: labels, rows };
}

function settingsText({ settings }: CompareResult): string {
  const { width, height, steps, sampler } = settings;
  return `${width} × ${height}  ·  ${steps} steps of ${sampler}`;
}

function gridCell(cell: CompareCell, shrink: (picture: Picture) => Picture): GridCell {
  const { column, distance, belowSeedNoise, picture } = cell;
  const shown = { picture: shrink(picture) };
  if (column === 0) return shown;
  if (distance.mae === 0) return { ...shown, caption: 'identical', tone: 'quiet' };
  const caption = `MAE ${number(distance.mae)}  SSIM ${distance.ssim.toFixed(3)}`;
  return belowSeedNoise
    ? { ...shown, caption: `${caption}\nwithin seed noise`, tone: 'quiet' }
    : { ...shown, caption };
}

function footer({ seedNoise }: CompareResult): string {
  const medians = seedNoise.flatMap((noise) => noise?.median ?? []);
  const what = 'MAE: mean difference from the reference, of 255. SSIM: 1 is identical.';
  if (medians.length === 0) return `${what} Seed noise was not measured.`;
  const mae = rangeText(medians.map((median) => number(median.mae)));
  const ssim = rangeText(medians.map((median) => median.ssim.toFixed(3)));
  return `${what} Another seed makes MAE ${mae}, SSIM ${ssim}: what differs by no more is grey.`;
}

/** "3.1" or "2.8 to 3.1" */
function rangeText(numbers: readonly string[]): string {
  const sorted = [...numbers].sort((a, b) => Number(a) - Number(b));
  const [low, high] = [sorted[0]!, sorted.at(-1)!];
  return low === high ? low : `${low} to ${high}`;
}

/** Three digits. */
const number = (value: number): string =>
  value < 99.95 ? value.toPrecision(value < 1 ? 2 : 3) : value.toFixed(0);

function shrinking(
  { columns, rows, settings }: CompareResult,
  mostPixels: number,
): (picture: Picture) => Picture {
  const pixels = settings.width * settings.height * columns.length * rows.length;
  const factor = Math.sqrt(mostPixels / pixels);
  if (factor >= 1) return (picture) => picture;
  const side = (length: number): number => Math.max(1, Math.floor(length * factor));
  return (picture) => resizePicture(picture, side(picture.width), side(picture.height));
}
