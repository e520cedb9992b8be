/** Encoders and autoencoders put into a checkpoint: in the place of its own, or where it has none. */
import { KotobaError } from '../errors.js';
import {
  identify,
  piecesOf,
  selectPart,
  type ModelFile,
  type Part,
  type Slot,
  type TensorSource,
} from '../formats/index.js';
import type { PlannedTensor } from './plan.js';
import { vacantPlace } from './vacant_place.js';

export interface Replacement {
  readonly slot: Slot;
  readonly part: Part;
}

/** Where a network lies in a checkpoint, or would lie. */
export type Place = Pick<Part, 'family' | 'path' | 'description' | 'prefix' | 'tensors'>;

/**
 * A checkpoint's tensors with some networks taken from others. Names, fused matrices and directions stay the
 * checkpoint's; where it has no such network, they are what other programs look for in its kind of checkpoint.
 * @throws KotobaError ERR_MODEL_TENSORS where a network is not of the checkpoint's shape, saying what would fit
 */
export function withReplaced(
  model: ModelFile,
  tensors: readonly PlannedTensor[],
  replacements: readonly Replacement[],
): PlannedTensor[] {
  const replaced = new Map<string, TensorSource>();
  const obsolete = new Set<string>();
  for (const { slot, part: by } of replacements) {
    const place = placeOf(model, slot, by);
    requireSameShapes(place, by);
    for (const [name, source] of stored(place, by)) replaced.set(name, source);
    for (const copy of embeddingCopies(model, place)) replaced.set(copy, by.tensors.get('shared.weight')!);
    for (const name of scalesOf(model, place)) obsolete.add(name);
  }
  const kept = tensors.filter(({ name }) => !obsolete.has(name));
  const known = new Set(kept.map(({ name }) => name));
  const added = [...replaced].filter(([name]) => !known.has(name));
  return [
    ...kept.map(({ name, source }) => ({ name, source: replaced.get(name) ?? source })),
    ...added.map(([name, source]) => ({ name, source })),
  ];
}

function placeOf(model: ModelFile, slot: Slot, by: Part): Place {
  const parts = identify(model, { allowUndecided: true });
  if (parts.some(({ fits }) => fits.includes(slot))) return selectPart(model, { slot, allowUndecided: true });
  return vacantPlace(parts, slot, by) ?? selectPart(model, { slot, allowUndecided: true });
}

/** The tied embedding of a T5 is often stored twice; programs differ in which of the two they read. */
function embeddingCopies(model: ModelFile, { family, prefix }: Place): string[] {
  if (family !== 't5') return [];
  const names = ['shared.weight', 'encoder.embed_tokens.weight'].map((name) => prefix + name);
  return names.filter((name) => model.tensors.has(name));
}

/** FP8 scales and markers of a network that goes: they would scale the one that comes. */
function scalesOf(model: ModelFile, place: Place): string[] {
  const suffixes = ['scale_weight', 'weight_scale', 'scale_input', 'input_scale', 'comfy_quant'];
  const stems = [...place.tensors.values()]
    .flatMap(piecesOf)
    .map(({ tensor }) => tensor.name.replace(/weight$/, ''));
  const names = stems.flatMap((stem) => suffixes.map((suffix) => stem + suffix));
  return [...names, `${place.prefix}scaled_fp8`].filter((name) => model.tensors.has(name));
}

function requireSameShapes(old: Place, by: Part): void {
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
function stored(old: Place, by: Part): Map<string, TensorSource> {
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
  const shapes = new Map(
    [...old.tensors.values()].flatMap(piecesOf).map(({ tensor }) => [tensor.name, tensor.shape]),
  );
  return new Map(
    [...rows].map(([name, parts]) => {
      const ordered = parts.sort((a, b) => a.start - b.start).map(({ source }) => source);
      const height = ordered.reduce((sum, { shape }) => sum + (shape[0] ?? 1), 0);
      const shape = shapes.get(name)!;
      if (height !== (shape[0] ?? 1))
        throw new KotobaError(
          'ERR_MODEL_TENSORS',
          `${old.path}: ${name} holds ${shape[0]} rows, of which the network uses ${height}: it cannot be replaced`,
        );
      return [name, joined(ordered, shape)];
    }),
  );
}

function joined(ordered: readonly TensorSource[], shape: readonly number[]): TensorSource {
  const [first, ...rest] = ordered.flatMap((source) => piecesOf(source));
  const { tensor, rows, scale } = first!;
  return {
    tensor,
    ...(rows && { rows }),
    ...(scale && { scale }),
    ...(rest.length > 0 && { append: rest }),
    ...(ordered[0]!.transposed && { transposed: true as const }),
    shape,
  };
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
