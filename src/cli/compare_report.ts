/** A comparison's numbers: as data for --json, as tables for people. */
import type { EmbeddingDistance, PictureDistance } from '../image/index.js';
import type { CompareCell, CompareResult } from '../pipeline/compare.js';
import type { EncoderSlot } from '../pipeline/image_types.js';
import { peakMemoryBytes } from './generate_report.js';
import type { CliContext } from './io.js';
import { bytesText, counted, printable, secondsText, styleFor, table, type Style } from './text.js';
import { kotobaVersion } from './version.js';

export interface CompareFiles {
  readonly grid: string;
  readonly report?: string | undefined;
  readonly cells?: string | undefined;
  /** [row][column], with --cells */
  readonly pictures?: readonly (readonly string[])[] | undefined;
}

/** Infinity is no JSON number: null for the PSNR of identical pictures. */
const inJson = ({ mae, psnr, ssim }: PictureDistance) => ({
  mae,
  psnr: Number.isFinite(psnr) ? psnr : null,
  ssim,
});

export type CompareReport = ReturnType<typeof compareReport>;

export function compareReport(result: CompareResult, files: CompareFiles) {
  const { columns, rows, seedNoise, settings, encodes, pictures, seconds } = result;
  const prompts = [...new Set(rows.map(({ prompt }) => prompt))];
  return {
    prompts,
    /** of each prompt: the median distance of two seeds of one encoder; null where not measured */
    seedNoise: seedNoise.map((noise) => noise && { ...inJson(noise.median), pairs: noise.pairs }),
    reference: columns[0]!.label,
    columns,
    cells: rows.flatMap(({ cells }, r) => cells.map((cell) => cellReport(cell, result, files.pictures?.[r]))),
    settings,
    encodes,
    pictures,
    seconds,
    peakMemoryBytes: peakMemoryBytes(),
    files: { grid: files.grid, report: files.report ?? null, cells: files.cells ?? null },
    version: kotobaVersion(),
  };
}

function cellReport(cell: CompareCell, { columns }: CompareResult, paths: readonly string[] | undefined) {
  const { column, prompt, seed, distance, conditioning, belowSeedNoise } = cell;
  return {
    column: columns[column]!.label,
    columnIndex: column,
    prompt,
    seed: String(seed),
    ...inJson(distance),
    belowSeedNoise,
    /** relative L2 and the cosine of the worst token of each encoder's states; a pooled vector as one token */
    embedding: conditioning,
    ...(paths && { file: paths[column]! }),
  };
}

/** Rows shown; --json has them all. */
const SHOWN = 40;

export function printCompare({ io }: CliContext, result: CompareResult, report: CompareReport): void {
  const style = styleFor(io.stdout, io.env);
  const lines = [
    ...pictureTable(result, style),
    '',
    ...embeddingTable(result, style),
    '',
    ...table(summary(result, report).map(([key, text]) => [style.dim(key!), text!])),
  ];
  io.stdout.write(`${lines.join('\n')}\n`);
}

function pictureTable({ columns, rows }: CompareResult, style: Style): string[] {
  const cells = rows.flatMap((row) => row.cells.slice(1));
  const head = ['pictures', 'MAE', 'PSNR dB', 'SSIM', '', 'seed', 'prompt'].map(style.dim);
  const body = cells.slice(0, SHOWN).map((cell) => {
    const isSame = cell.distance.mae === 0;
    return [
      style.bold(style.cyan(printable(columns[cell.column]!.label))),
      isSame ? '0' : cell.distance.mae.toFixed(2),
      isSame ? '∞' : cell.distance.psnr.toFixed(1),
      cell.distance.ssim.toFixed(3),
      isSame ? style.dim('identical') : cell.belowSeedNoise ? style.dim('within seed noise') : '',
      String(cell.seed),
      printable(cell.prompt),
    ];
  });
  const more =
    cells.length > SHOWN ? [style.dim(`… and ${cells.length - SHOWN} more: --json has them all`)] : [];
  return [...table([head, ...body], { right: [1, 2, 3, 5] }), ...more];
}

const HEADS: Readonly<Record<EncoderSlot, readonly [string, string]>> = {
  t5: ['T5 rel. L2', 'worst cosine'],
  clip_l: ['CLIP-L rel. L2', 'cosine'],
  clip_g: ['CLIP-G rel. L2', 'cosine'],
  clip_h: ['CLIP-H rel. L2', 'cosine'],
};

/** The embeddings do not depend on the seed. An encoder that is the same in every column is left out. */
function embeddingTable({ columns, rows }: CompareResult, style: Style): string[] {
  const cells = rows.filter(({ seed }) => seed === rows[0]!.seed).flatMap((row) => row.cells.slice(1));
  const kinds = (Object.keys(HEADS) as EncoderSlot[]).filter((slot) =>
    cells.some(({ conditioning: { [slot]: of } }) => of !== undefined && of?.relativeL2 !== 0),
  );
  if (kinds.length === 0) return [style.dim('embeddings  identical')];
  const head = ['embeddings', ...kinds.flatMap((slot) => HEADS[slot]), 'prompt'].map(style.dim);
  const body = cells
    .slice(0, SHOWN)
    .map(({ column, conditioning, prompt }) => [
      style.bold(style.cyan(printable(columns[column]!.label))),
      ...kinds.flatMap((slot) => distanceText(conditioning[slot])),
      printable(prompt),
    ]);
  return table([head, ...body], { right: kinds.flatMap((_, i) => [2 * i + 1, 2 * i + 2]) });
}

function distanceText(distance: EmbeddingDistance | null | undefined): string[] {
  if (!distance) return ['–', '–'];
  const { relativeL2, worstCosine } = distance;
  return [relativeL2 === 0 ? '0' : relativeL2.toPrecision(3), worstCosine.toFixed(4)];
}

function summary(result: CompareResult, { files, peakMemoryBytes }: CompareReport): string[][] {
  const { columns, pictures, encodes, seconds, settings, seedNoise } = result;
  const noises = seedNoise.flatMap((noise) =>
    noise ? [`MAE ${noise.median.mae.toFixed(2)} SSIM ${noise.median.ssim.toFixed(3)}`] : [],
  );
  const { width, height, steps, sampler } = settings;
  return [
    ['reference', printable(columns[0]!.label)],
    ['seed noise', noises.length > 0 ? `${noises.join(', ')}: what another seed changes` : 'not measured'],
    [
      'made',
      `${counted(pictures, 'picture')} of ${width} × ${height} in ${counted(steps, 'step')} of ${sampler}, ` +
        `from ${counted(encodes, 'encode')}`,
    ],
    ['took', `${secondsText(seconds)}, at most ${bytesText(peakMemoryBytes)} of memory`],
    ['wrote', printable([files.grid, files.report, files.cells].filter((path) => path !== null).join(', '))],
  ];
}
