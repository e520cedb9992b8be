/** What a converted file will hold: each tensor's name, and where its values come from. */
import { KotobaError } from '../errors.js';
import {
  identify,
  llamaCppNames,
  piecesOf,
  type ModelFile,
  type Part,
  type Piece,
  type TensorSource,
} from '../formats/index.js';

export interface PlannedTensor {
  readonly name: string;
  readonly source: TensorSource;
}

/** Everything in a file, shards merged, as it is called there; FP8 scales go into their weights where `scaled`. */
export function wholeFile(model: ModelFile, unscale: boolean): PlannedTensor[] {
  const scales = new Map<string, Piece['scale']>();
  if (unscale)
    for (const part of identify(model))
      for (const source of part.tensors.values())
        for (const { tensor, scale } of piecesOf(source)) if (scale) scales.set(tensor.name, scale);
  const dropped = new Set([...scales.values()].map((scale) => scale!.name));
  return [...model.tensors.values()]
    .filter(({ name }) => !dropped.has(name) && !(unscale && /(^|\.)scaled_fp8$/.test(name)))
    .map((tensor) => {
      const scale = scales.get(tensor.name);
      return { name: tensor.name, source: { tensor, shape: tensor.shape, ...(scale && { scale }) } };
    });
}

/** One network under the names of its reference; in a GGUF a T5 has llama.cpp's. */
export function onePart(part: Part, container: 'safetensors' | 'gguf'): PlannedTensor[] {
  const names =
    part.family === 't5' && container === 'gguf'
      ? llamaCppNames(part.config.num_layers, part.config.is_gated_act)
      : undefined;
  return [...part.tensors].map(([canonical, source]) => ({
    name: names?.get(canonical) ?? canonical,
    source,
  }));
}

/**
 * A file's tensors with those of some networks taken from others: an encoder put back into a checkpoint. Names, fused
 * matrices and directions stay the checkpoint's.
 * @throws KotobaError ERR_MODEL_TENSORS where a network is not of the checkpoint's shape, saying what would fit
 */
export function withReplaced(
  tensors: readonly PlannedTensor[],
  replacements: readonly { readonly old: Part; readonly by: Part }[],
): PlannedTensor[] {
  const replaced = new Map<string, TensorSource>();
  for (const { old, by } of replacements) {
    requireSameShapes(old, by);
    for (const [name, source] of stored(old, by)) replaced.set(name, source);
  }
  return tensors.map(({ name, source }) => ({ name, source: replaced.get(name) ?? source }));
}

function requireSameShapes(old: Part, by: Part): void {
  const problems: string[] = [];
  for (const [canonical, { shape }] of old.tensors) {
    const found = by.tensors.get(canonical)?.shape;
    if (found?.join() !== shape.join())
      problems.push(
        `${canonical} is ${found ? `[${found.join(', ')}]` : 'missing'}: expected [${shape.join(', ')}]`,
      );
  }
  if (problems.length === 0) return;
  const more = problems.length > 4 ? `; … (${problems.length - 4} more)` : '';
  throw new KotobaError(
    'ERR_MODEL_TENSORS',
    `${by.path}: ${by.description}: does not fit in the place of ${old.description} in ${old.path}: ` +
      `${problems.slice(0, 4).join('; ')}${more}`,
  );
}

/** Stored name → the new values of all its rows, in the stored direction. */
function stored(old: Part, by: Part): Map<string, TensorSource> {
  const rows = new Map<string, { start: number; source: TensorSource }[]>();
  for (const [canonical, place] of old.tensors) {
    const source = by.tensors.get(canonical)!;
    let at = 0;
    for (const piece of piecesOf(place)) {
      const height = piece.rows ? piece.rows[1] - piece.rows[0] : (piece.tensor.shape[0] ?? 1);
      const part = place.append ? slice(source, at, at + height) : source;
      const list = rows.get(piece.tensor.name) ?? [];
      list.push({ start: piece.rows?.[0] ?? 0, source: place.transposed ? turn(part, canonical) : part });
      rows.set(piece.tensor.name, list);
      at += height;
    }
  }
  const heights = new Map(
    [...old.tensors.values()].flatMap(piecesOf).map(({ tensor }) => [tensor.name, tensor.shape[0] ?? 1]),
  );
  const joined = new Map<string, TensorSource>();
  for (const [name, parts] of rows) {
    const ordered = parts.sort((a, b) => a.start - b.start).map(({ source }) => source);
    const [first, ...rest] = ordered.flatMap((source) => piecesOf(source));
    const height = ordered.reduce((sum, { shape }) => sum + (shape[0] ?? 1), 0);
    if (height !== heights.get(name))
      throw new KotobaError(
        'ERR_MODEL_TENSORS',
        `${old.path}: ${name} holds ${heights.get(name)} rows, of which the network uses ${height}: it cannot be replaced`,
      );
    const { tensor, rows: own, scale } = first!;
    joined.set(name, {
      tensor,
      ...(own && { rows: own }),
      ...(scale && { scale }),
      ...(rest.length > 0 && { append: rest }),
      ...(ordered[0]!.transposed && { transposed: true as const }),
      shape: ordered.length > 1 ? [height, ...ordered[0]!.shape.slice(1)] : ordered[0]!.shape,
    });
  }
  return joined;
}

/** Only whole matrices stand the other way round anywhere: text projections. */
function turn(source: TensorSource, canonical: string): TensorSource {
  if (source.append || source.rows)
    throw new KotobaError(
      'ERR_MODEL_TENSORS',
      `${source.tensor.path}: ${canonical} cannot be turned round in pieces`,
    );
  const { transposed, ...rest } = source;
  const shape = [...source.shape].reverse();
  return transposed ? { ...rest, shape } : { ...rest, transposed: true, shape };
}

function slice(source: TensorSource, start: number, end: number): TensorSource {
  const pieces = piecesOf(source);
  if (pieces.length > 1 || source.transposed)
    throw new KotobaError(
      'ERR_MODEL_TENSORS',
      `${source.tensor.path}: ${source.tensor.name} cannot be divided`,
    );
  const first = source.rows?.[0] ?? 0;
  return { ...source, rows: [first + start, first + end], shape: [end - start, ...source.shape.slice(1)] };
}
