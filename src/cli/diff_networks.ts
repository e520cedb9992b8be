/** Which networks of two files `diff` compares: one of each, of one kind and one shape, or an error that says what fits. */
import { KotobaError } from '../errors.js';
import { identify, selectPart, type ModelFile, type Part, type Slot } from '../formats/index.js';
import { shapeText } from './text.js';

export interface NetworkOptions {
  readonly slot?: Slot | undefined;
  readonly config?: Readonly<Record<string, unknown>> | undefined;
}

/** @throws KotobaError ERR_MODEL_SLOT, ERR_MODEL_UNKNOWN, ERR_MODEL_TENSORS, ERR_ARGUMENT */
export function comparedNetworks(
  [a, b]: readonly [ModelFile, ModelFile],
  { slot, config }: NetworkOptions,
): [Part, Part] {
  const chosen = slot ?? commonSlot(a, b);
  const of = (model: ModelFile): Part => selectPart(model, { slot: chosen, config, allowUndecided: true });
  const parts: [Part, Part] = [of(a), of(b)];
  requireOneShape(parts, [a, b]);
  return parts;
}

/** The only network that both hold, or the only text encoder among them. */
function commonSlot(a: ModelFile, b: ModelFile): Slot {
  const [left, right] = [identify(a), identify(b)];
  for (const [model, parts] of [
    [a, left],
    [b, right],
  ] as const)
    if (parts.length === 0) selectPart(model); // throws, with what it looks like instead
  const common = left.filter((one) => right.some((other) => other.slot === one.slot));
  const encoders = common.filter(isEncoder);
  const [only, another] = encoders.length > 0 ? encoders : common;
  if (only !== undefined && another === undefined) return only.slot;
  if (only !== undefined)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `diff: both files hold ${common.map((part) => part.slot).join(', ')}: say which with --slot`,
    );
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `diff: expected two files with one network in common. ${holds(a, left)}; ${holds(b, right)}. ` +
      `Beside ${a.path}, another file for ${slotsOf(left)} fits`,
  );
}

const isEncoder = ({ family }: Part): boolean => family === 'clip' || family === 't5';

const holds = ({ path }: ModelFile, parts: readonly Part[]): string =>
  `${path} holds ${parts.map(({ slot, description }) => `${description} (slot ${slot})`).join('; ')}`;

const slotsOf = (parts: readonly Part[]): string => [...new Set(parts.map(({ slot }) => slot))].join(' or ');

function requireOneShape(
  [a, b]: readonly [Part, Part],
  [fileA, fileB]: readonly [ModelFile, ModelFile],
): void {
  const other = [...a.tensors].find(
    ([name, source]) => b.tensors.has(name) && b.tensors.get(name)!.shape.join() !== source.shape.join(),
  );
  const problem =
    other !== undefined
      ? `${other[0]} is ${shapeText(other[1].shape)} in the first and ${shapeText(b.tensors.get(other[0])!.shape)} in the second`
      : isEncoder(a) && layersOf(a) !== layersOf(b)
        ? `the first has ${layersOf(a)} layers, the second ${layersOf(b)}`
        : undefined;
  if (problem === undefined) return;
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `diff: expected two networks of one shape, got ${a.description} in ${fileA.path} and ${b.description} in ${fileB.path}: ` +
      `${problem}. Beside the first fits another ${a.slot} of its size`,
  );
}

function layersOf(part: Part): number {
  if (part.family === 'clip') return part.config.num_hidden_layers;
  return part.family === 't5' ? part.config.num_layers : 0;
}
