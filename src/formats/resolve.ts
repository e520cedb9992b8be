/** Matches a naming table against a file: canonical names to stored tensors, with their slices and FP8 scales. */
import { blockWeights, elementCount, isFp8, isWeightDType } from './dtype.js';
import type { ModelFile, TensorInfo } from './model_file.js';
import type { NameEntry, StoredAs } from './names/scheme.js';
import type { TensorSource } from './part.js';

export interface Resolved {
  readonly tensors: Map<string, TensorSource>;
  readonly missing: string[];
  readonly wrong: string[];
}

export function resolveEntries(model: ModelFile, prefix: string, entries: readonly NameEntry[]): Resolved {
  const resolved: Resolved = { tensors: new Map(), missing: [], wrong: [] };
  const missing = new Set<string>();
  for (const { canonical, storedAs, optional } of entries) {
    const stored = storedAs.find(
      ({ file, later }) =>
        model.tensors.has(prefix + file) && (later === undefined || model.tensors.has(prefix + later.file)),
    );
    if (stored !== undefined) resolved.tensors.set(canonical, locate(model, prefix, stored));
    else if (optional === undefined) missing.add(prefix + storedAs.at(-1)!.file);
  }
  resolved.missing.push(...missing);
  attachScales(model, prefix, resolved);
  return resolved;
}

function locate(model: ModelFile, prefix: string, stored: StoredAs): TensorSource {
  const tensor = model.tensors.get(prefix + stored.file)!;
  const [height = 1, ...inner] = tensor.shape;
  if (stored.third !== undefined) {
    const third = Math.floor(height / 3);
    const rows = [stored.third * third, (stored.third + 1) * third] as const;
    return { tensor, rows, shape: [height % 3 === 0 ? third : height / 3, ...inner] };
  }
  if (stored.later !== undefined) {
    const later = model.tensors.get(prefix + stored.later.file)!;
    const kept = stored.later.rows;
    const total = later.shape[0] ?? 0;
    return {
      tensor,
      rows: [0, kept],
      append: { tensor: later, rows: [kept, total] },
      shape: [total, ...inner],
    };
  }
  if (stored.transposed) return { tensor, transposed: true, shape: [...tensor.shape].reverse() };
  return { tensor, shape: tensor.shape };
}

const kScaleSuffixes = ['.scale_weight', '.weight_scale'] as const;
export const isScaleName = (name: string): boolean => kScaleSuffixes.some((suffix) => name.endsWith(suffix));

/**
 * Scaled FP8: w = fp8 · scale. ComfyUI marks such files with a `scaled_fp8` tensor and `.scale_weight`, newer ones with
 * `_quantization_metadata` and `.weight_scale`; where it is marked, a Linear without its scale is incomplete.
 */
function attachScales(model: ModelFile, prefix: string, { tensors, missing, wrong }: Resolved): void {
  const marked = model.tensors.has(`${prefix}scaled_fp8`);
  const layers = quantizedLayers(model);
  for (const [canonical, source] of tensors) {
    const { name, dtype, shape } = source.tensor;
    const layer = name.replace(/\.weight$/, '');
    const scale = kScaleSuffixes
      .map((suffix) => model.tensors.get(layer + suffix))
      .find((found) => found !== undefined);
    const format = layers.get(layer);
    if (format !== undefined && !/^float8_e(4m3fn|5m2)$/.test(format))
      wrong.push(`${name} is quantised as ${format}, which is not supported`);
    if (scale === undefined) {
      const isLinear =
        shape.length === 2 && /_proj\.|\.fc[12]\.|SelfAttention\.[qkvo]\.|\.w[io]/.test(canonical);
      if (format !== undefined) missing.push(`${layer}.weight_scale`);
      else if (marked && isFp8(dtype) && isLinear) missing.push(`${layer}.scale_weight`);
    } else if (!isFp8(dtype)) wrong.push(`${scale.name} has no FP8 weight to scale: ${name} is ${dtype}`);
    else if (elementCount(scale.shape) !== 1 || !isWeightDType(scale.dtype))
      wrong.push(`${scale.name} is ${scale.dtype} [${scale.shape.join(', ')}]: expected one float`);
    else tensors.set(canonical, { ...source, scale });
  }
}

/** Layers that `_quantization_metadata` lists, with their format. */
function quantizedLayers(model: ModelFile): Map<string, string> {
  const text = model.metadata.get('_quantization_metadata');
  const formats = new Map<string, string>();
  if (typeof text !== 'string') return formats;
  for (const [layer, entry] of Object.entries(record(record(parseLoosely(text))?.['layers']) ?? {}))
    formats.set(layer, String(record(entry)?.['format']));
  return formats;
}

export function parseLoosely(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function record(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}

/** One more than the highest layer number under `stem`; a number far out of line is no layer. */
export function countLayers(names: Iterable<string>, stem: string): number {
  const seen = new Set<number>();
  for (const name of names) {
    if (!name.startsWith(stem)) continue;
    const number = /^(\d{1,3})\./.exec(name.slice(stem.length))?.[1];
    if (number !== undefined) seen.add(Number(number));
  }
  return seen.size === 0 ? 0 : Math.max(...seen) + 1;
}

/**
 * One dimension of the first tensor of a kind that has the right rank; 0, which nothing matches, where there is none.
 * Looking at all layers keeps one missing or misshapen tensor from spoiling the judgement on the others.
 */
export function dimension(
  tensors: ReadonlyMap<string, TensorSource>,
  kind: RegExp,
  axis: number,
  rank: number,
): number {
  for (const [canonical, { shape }] of tensors)
    if (shape.length === rank && kind.test(canonical)) return shape[axis]!;
  return 0;
}

/** Compares what is there with what the network needs.  */
export function checkShapes(
  { tensors, wrong }: Resolved,
  expected: (canonical: string) => readonly number[],
): void {
  for (const [canonical, source] of tensors) {
    const { name, dtype } = source.tensor;
    if (!isWeightDType(dtype)) wrong.push(`${name} is ${dtype}, not a float or quantised type`);
    if ((source.tensor.shape.at(-1) ?? 1) % blockWeights(dtype) !== 0)
      wrong.push(`${name} is ${dtype} ${label(source.tensor.shape)}, stored in blocks that cross its rows`);
    wrong.push(...appendProblems(source));
    if (source.shape.includes(0)) wrong.push(`${name} is ${label(source.tensor.shape)}: it holds nothing`);
    const shape = expected(canonical);
    if (sameShape(shape, source.shape)) continue;
    wrong.push(`${name} is ${label(source.tensor.shape)}: expected ${label(storedShape(shape, source))}`);
  }
}

/** The canonical shape as the file would store it. */
function storedShape(
  shape: readonly number[],
  { rows, append, transposed }: TensorSource,
): readonly number[] {
  if (transposed) return [...shape].reverse();
  return rows !== undefined && append === undefined ? [shape[0]! * 3, ...shape.slice(1)] : shape;
}

function appendProblems({ tensor, rows, append }: TensorSource): string[] {
  if (append === undefined || rows === undefined) return [];
  const enough = (info: TensorInfo, needed: number): boolean =>
    info.shape.length === 2 && info.shape[0]! >= needed;
  if (
    enough(tensor, rows[1]) &&
    enough(append.tensor, rows[1] + 1) &&
    tensor.shape[1] === append.tensor.shape[1] &&
    tensor.dtype === append.tensor.dtype
  )
    return [];
  return [
    `${tensor.name} ${label(tensor.shape)} and ${append.tensor.name} ${label(append.tensor.shape)} do not fit together`,
  ];
}

const label = (shape: readonly number[]): string => `[${shape.join(', ')}]`;
const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((n, i) => n === b[i]);
