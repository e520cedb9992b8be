/** Matches a naming table against a file: canonical names to stored tensors, with their slices and FP8 scales. */
import { blockWeights, elementCount, isFp8, isWeightDType } from './dtype.js';
import type { ModelFile, TensorInfo } from './model_file.js';
import type { NameEntry, StoredAs } from './names/scheme.js';
import { piecesOf } from './part.js';
import type { Piece, TensorSource } from './part.js';

export interface Resolved {
  readonly tensors: Map<string, TensorSource>;
  readonly missing: string[];
  readonly wrong: string[];
}

export function resolveEntries(model: ModelFile, prefix: string, entries: readonly NameEntry[]): Resolved {
  const resolved: Resolved = { tensors: new Map(), missing: [], wrong: [] };
  const missing = new Set<string>();
  const has = (file: string): boolean => model.tensors.has(prefix + file);
  for (const { canonical, storedAs, optional } of entries) {
    const stored = storedAs.find((way) => filesOf(way).every(has));
    if (stored !== undefined) resolved.tensors.set(canonical, locate(model, prefix, stored));
    else if (optional === undefined)
      for (const file of filesOf(storedAs.at(-1)!)) if (!has(file)) missing.add(prefix + file);
  }
  resolved.missing.push(...missing);
  attachScales(model, prefix, resolved);
  return resolved;
}

function filesOf({ file, later, then = [] }: StoredAs): string[] {
  return [file, ...(later === undefined ? [] : [later.file]), ...then];
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
      append: [{ tensor: later, rows: [kept, total] }],
      shape: [total, ...inner],
    };
  }
  if (stored.then !== undefined) {
    const more = stored.then.map((file) => ({ tensor: model.tensors.get(prefix + file)! }));
    const total = more.reduce((sum, piece) => sum + (piece.tensor.shape[0] ?? 0), height);
    return { tensor, append: more, shape: [total, ...inner] };
  }
  if (stored.swapped) {
    const half = Math.floor(height / 2);
    const append = [{ tensor, rows: [0, half] }] as const;
    return { tensor, rows: [half, height], append, shape: tensor.shape };
  }
  if (stored.transposed) return { tensor, transposed: true, shape: [...tensor.shape].reverse() };
  return { tensor, shape: tensor.shape };
}

const kScaleSuffixes = ['.scale_weight', '.weight_scale'] as const;
export const isScaleName = (name: string): boolean => kScaleSuffixes.some((suffix) => name.endsWith(suffix));

/** What is no Linear, and so never has a scale of its own. */
const kNoLinear = /embedding|^shared\.|relative_attention_bias|^text_projection/;

/**
 * Scaled FP8: w = fp8 · scale. ComfyUI marks such files with a `scaled_fp8` tensor and `.scale_weight`, newer ones with
 * `_quantization_metadata` and `.weight_scale`; where it is marked, a Linear without its scale is incomplete.
 */
function attachScales(model: ModelFile, prefix: string, resolved: Resolved): void {
  const layers = quantizedLayers(model, prefix);
  for (const [canonical, source] of resolved.tensors) {
    const isLinear = source.tensor.shape.length === 2 && !kNoLinear.test(canonical);
    const pieces = piecesOf(source).map((piece) =>
      withScale(model, prefix, resolved, layers, piece, isLinear),
    );
    const [first, ...append] = pieces;
    resolved.tensors.set(canonical, {
      ...source,
      ...first!,
      ...(append.length > 0 && { append }),
    });
  }
}

function withScale(
  model: ModelFile,
  prefix: string,
  { missing, wrong }: Resolved,
  layers: ReadonlyMap<string, string>,
  piece: Piece,
  isLinear: boolean,
): Piece {
  const { name, dtype } = piece.tensor;
  const layer = name.replace(/\.weight$/, '');
  const scale = kScaleSuffixes
    .map((suffix) => model.tensors.get(layer + suffix))
    .find((found) => found !== undefined);
  const format = layers.get(layer);
  const report = (list: string[], problem: string): void => {
    if (!list.includes(problem)) list.push(problem);
  };
  if (format !== undefined && !/^float8_e(4m3fn|5m2)$/.test(format))
    report(wrong, `${name} is quantised as ${format}, which is not supported`);
  if (scale === undefined) {
    if (format !== undefined) report(missing, `${layer}.weight_scale`);
    else if (isLinear && isFp8(dtype) && model.tensors.has(`${prefix}scaled_fp8`))
      report(missing, `${layer}.scale_weight`);
  } else if (!isFp8(dtype)) report(wrong, `${scale.name} has no FP8 weight to scale: ${name} is ${dtype}`);
  else if (elementCount(scale.shape) !== 1 || !isWeightDType(scale.dtype))
    report(wrong, `${scale.name} is ${scale.dtype} ${label(scale.shape)}: expected one float`);
  else return { ...piece, scale };
  return piece;
}

/** Layers that `_quantization_metadata` lists, with their format. */
function quantizedLayers(model: ModelFile, prefix: string): Map<string, string> {
  const folder = folderOf(prefix);
  const text = model.metadata.get(`${folder}_quantization_metadata`);
  const formats = new Map<string, string>();
  if (typeof text !== 'string') return formats;
  for (const [layer, entry] of Object.entries(record(record(parseLoosely(text))?.['layers']) ?? {}))
    formats.set(folder + layer, String(record(entry)?.['format']));
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

/** In a diffusers pipeline the sub-folder, with its slash, that stands before names of tensors and metadata. */
export const folderOf = (name: string): string => name.slice(0, name.lastIndexOf('/') + 1);

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

/** Compares what is there with what the network needs; a matrix that is a 1×1 convolution takes that shape. */
export function checkShapes(
  { tensors, wrong }: Resolved,
  expected: (canonical: string) => readonly number[],
): void {
  for (const [canonical, found] of tensors) {
    const shape = expected(canonical);
    const source = sameShape(shape, [...found.shape, 1, 1]) ? { ...found, shape } : found;
    if (source !== found) tensors.set(canonical, source);
    const problems = new Set(piecesOf(source).flatMap(({ tensor }) => storageProblems(tensor)));
    wrong.push(...problems, ...joinProblems(source));
    if (!sameShape(shape, source.shape)) wrong.push(shapeProblem(shape, source));
  }
}

function storageProblems({ name, dtype, shape }: TensorInfo): string[] {
  const problems: string[] = [];
  if (!isWeightDType(dtype)) problems.push(`${name} is ${dtype}, not a float or quantised type`);
  // A convolution is used as a matrix: its rows are all of an output's weights.
  const row = shape.length > 2 ? shape.slice(1).reduce((a, b) => a * b, 1) : (shape.at(-1) ?? 1);
  if (row % blockWeights(dtype) !== 0)
    problems.push(`${name} is ${dtype} ${label(shape)}, stored in blocks that cross its rows`);
  if (shape.includes(0)) problems.push(`${name} is ${label(shape)}: it holds nothing`);
  return problems;
}

function shapeProblem(
  expected: readonly number[],
  { tensor, rows, append, transposed }: TensorSource,
): string {
  const { name, shape } = tensor;
  if (append !== undefined && rows === undefined)
    return `${[name, ...append.map((piece) => piece.tensor.name)].join(', ')} are ${[tensor, ...append.map((piece) => piece.tensor)].map((info) => label(info.shape)).join(', ')}: expected ${label(expected)} together`;
  const isThird = rows !== undefined && append === undefined;
  const stored = transposed
    ? [...expected].reverse()
    : isThird
      ? [expected[0]! * 3, ...expected.slice(1)]
      : expected;
  return `${name} is ${label(shape)}: expected ${label(stored)}`;
}

/** Pieces must be rows of equal length that are there. */
function joinProblems(source: TensorSource): string[] {
  const { tensor, append } = source;
  if (append === undefined) return [];
  const inner = label(tensor.shape.slice(1));
  const misfit = append.find(
    (piece) =>
      piece.tensor.shape.length !== tensor.shape.length || label(piece.tensor.shape.slice(1)) !== inner,
  );
  const isShort = piecesOf(source).some(
    ({ tensor: { shape }, rows }) => rows !== undefined && (shape[0]! < rows[1] || rows[0] >= rows[1]),
  );
  if (misfit === undefined && !isShort) return [];
  const other = (misfit ?? append[0]!).tensor;
  return [
    `${tensor.name} ${label(tensor.shape)} and ${other.name} ${label(other.shape)} do not fit together`,
  ];
}

const label = (shape: readonly number[]): string => `[${shape.join(', ')}]`;
const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((n, i) => n === b[i]);
