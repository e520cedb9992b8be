/** What `diff` found: as data for --json, as tables for people. */
import type { TensorDifference } from '../convert/tensor_difference.js';
import type { Slot } from '../formats/index.js';
import { F16_MOST } from '../pipeline/layer_difference.js';
import type { Looks } from './diff_findings.js';
import type { NamedLayerDifference, PromptDifference } from './diff_layers.js';
import type { CliContext } from './io.js';
import { bytesText, counted, printable, secondsText, styleFor, table, type Style } from './text.js';
import { kotobaVersion } from './version.js';

export interface Difference {
  readonly files: readonly {
    readonly path: string;
    readonly description: string;
    readonly bytesRead: number;
  }[];
  readonly slot: Slot;
  /** those that stand out most first */
  readonly tensors: readonly TensorDifference[];
  readonly looks: Looks;
  /** names that only A has, and only B */
  readonly only: readonly [a: readonly string[], b: readonly string[]];
  readonly prompts: readonly PromptDifference[];
  /** why the layers were not compared */
  readonly skipped: string | undefined;
  readonly findings: readonly string[];
  readonly seconds: number;
}

/** Of tensors and layers; NaN where one is not finite. */
export function worstDistance({ tensors, prompts }: Difference): number {
  const distances = [
    ...tensors.map(({ relativeL2, nonFinite }) => (nonFinite[0] === nonFinite[1] ? relativeL2 : NaN)),
    ...prompts.flatMap(({ layers }) => layers.map(({ relativeL2 }) => relativeL2)),
  ];
  return Math.max(0, ...distances);
}

const isEqual = (found: Difference): boolean =>
  worstDistance(found) === 0 &&
  found.only.every((names) => names.length === 0) &&
  found.tensors.every(({ suspicion }) => suspicion === 0);

/** Infinity and NaN become null: JSON has neither. */
export function diffReport(found: Difference) {
  const { files, slot, tensors, looks, only, prompts, skipped, findings, seconds } = found;
  return {
    a: files[0]!,
    b: files[1]!,
    slot,
    equal: isEqual(found),
    worstRelativeL2: worstDistance(found),
    findings,
    tensors: tensors.map((one) => ({ ...one, looksLike: looks.get(one.name) ?? null })),
    onlyInA: only[0],
    onlyInB: only[1],
    prompts,
    layersSkipped: skipped ?? null,
    seconds,
    version: kotobaVersion(),
  };
}

export function printDiff({ io }: CliContext, found: Difference, { top }: { readonly top: number }): void {
  const style = styleFor(io.stdout, io.env);
  const { files, findings, only, skipped, seconds } = found;
  const heads = files.map(({ path, description, bytesRead }, i) => [
    style.bold('AB'[i]!),
    printable(path),
    style.dim(`${description}, ${bytesText(bytesRead)}`),
  ]);
  const blocks = [
    table(heads),
    isEqual(found)
      ? [style.green(`equal: all ${counted(found.tensors.length, 'tensor')} have the same values`)]
      : tensorLines(found, top, style),
    onlyLines(only, style),
    findings.map((text) => style.yellow(printable(text))),
    layerLines(found.prompts, style),
    skipped === undefined
      ? []
      : [
          style.dim(
            `layers not compared: ${printable(skipped)}; --prompt makes it an error with all that can be done`,
          ),
        ],
    [style.dim(secondsText(seconds))],
  ];
  io.stdout.write(
    `${blocks
      .filter((lines) => lines.length > 0)
      .map((lines) => lines.join('\n'))
      .join('\n\n')}\n`,
  );
}

function tensorLines({ tensors, looks }: Difference, top: number, style: Style): string[] {
  const apart = tensors.filter(({ suspicion }) => suspicion > 0);
  const head = ['tensors', 'stored', 'rel. L2', 'cosine', 'SNR dB', 'largest', 'looks like'].map(style.dim);
  const rows = apart
    .slice(0, top)
    .map((one) => [
      looks.has(one.name) ? style.bold(printable(one.name)) : printable(one.name),
      one.stored[0] === one.stored[1] ? one.stored[0] : one.stored.join(' → '),
      distanceText(one.relativeL2),
      one.cosine.toFixed(6),
      decibels(one.snr),
      one.largest.map(short).join(' | '),
      style.yellow(looks.get(one.name) ?? ''),
    ]);
  const equal = tensors.length - apart.length;
  const rest = [
    ...(apart.length > top
      ? [`${apart.length - top} more differ: --top ${apart.length} or --json shows them`]
      : []),
    ...(equal > 0 ? [`${counted(equal, 'tensor')} equal`] : []),
  ];
  const lines = rows.length > 0 ? table([head, ...rows], { right: [2, 3, 4] }) : [];
  return [...lines, ...rest.map((text) => style.dim(text))];
}

function onlyLines(only: Difference['only'], style: Style): string[] {
  return only.flatMap((names, i) =>
    names.length > 0
      ? [
          `only in ${'AB'[i]}: ${names.slice(0, 8).map(printable).join(', ')}${names.length > 8 ? style.dim(`, … (${names.length - 8} more)`) : ''}`,
        ]
      : [],
  );
}

/** Of each layer the prompt that is worst: what a file costs is what it costs there. */
function layerLines(prompts: readonly PromptDifference[], style: Style): string[] {
  if (prompts.length === 0) return [];
  const worst = prompts[0]!.layers.map((_, i) => worstOf(prompts.map(({ layers }) => layers[i]!)));
  if (worst.every(({ relativeL2 }) => relativeL2 === 0))
    return [`layers: 0 to ${worst.length - 1} equal on ${counted(prompts.length, 'prompt')}`];
  const head = ['layer', 'rel. L2', 'cosine', 'worst token', 'SNR dB', 'largest', 'F16'].map(style.dim);
  const rows = worst.map(({ layer, relativeL2, worstCosine, worstPiece, snr, largest }) => [
    String(layer),
    distanceText(relativeL2),
    worstCosine.toFixed(6),
    printable(worstPiece),
    decibels(snr),
    largest.map(short).join(' | '),
    largest.every((value) => value <= F16_MOST) ? '' : style.red('overflows'),
  ]);
  return [
    ...table([head, ...rows], { right: [0, 1, 2, 4] }),
    style.dim(`worst of ${counted(prompts.length, 'prompt')}; --json has each`),
  ];
}

/** NaN is worse than any number. */
const worstOf = (layers: readonly NamedLayerDifference[]): NamedLayerDifference =>
  layers.reduce((worst, one) =>
    one.relativeL2 > worst.relativeL2 || Number.isNaN(one.relativeL2) ? one : worst,
  );

const distanceText = (value: number): string =>
  value === 0 ? '0' : value < 1e-3 ? value.toExponential(1) : value.toPrecision(3);
const decibels = (value: number): string => (value === Infinity ? '∞' : value.toFixed(1));
const short = (value: number): string => String(Number(value.toPrecision(3)));
