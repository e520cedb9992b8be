/** What a difference looks like, in words: a factor, an exchange, values that are lost, layers that overflow. */
import { tensorDifferences, type TensorDifference } from '../convert/tensor_difference.js';
import type { Part } from '../formats/index.js';
import { F16_MOST } from '../pipeline/layer_difference.js';
import type { Device } from '../runtime/device.js';
import type { PromptDifference } from './diff_layers.js';

/** Times what is usual among tensors stored alike. */
const STANDS_OUT = 4;
/** A cosine below this is no rounding, whatever the type. */
const ALIKE = 0.5;
/** Tensors that are tried for each other: their pairs are read again. */
const MOST_EXCHANGED = 6;
/** What rounding to F32 leaves of a distance, and of a factor. */
const ROUNDING = 1e-7;
const FACTOR_NOISE = 1e-5;

export type Looks = ReadonlyMap<string, string>;

/** @returns tensor name → a few words, for those that stand out */
export async function tensorLooks(
  device: Device,
  [a, b]: readonly [Part, Part],
  differences: readonly TensorDifference[],
  signal?: AbortSignal,
): Promise<Map<string, string>> {
  const looks = new Map(
    differences.flatMap((one) => {
      const text = looksLike(one, usualOf(one, differences));
      return text === undefined ? [] : [[one.name, text] as const];
    }),
  );
  const strangers = differences.filter(({ cosine }) => cosine < ALIKE).slice(0, MOST_EXCHANGED);
  for (const [i, one] of strangers.entries())
    for (const other of strangers.slice(i + 1)) {
      if (one.shape.join() !== other.shape.join()) continue;
      const crossed = new Map([
        [one.name, b.tensors.get(other.name)!],
        [other.name, b.tensors.get(one.name)!],
      ]);
      const both = new Map([...crossed.keys()].map((name) => [name, a.tensors.get(name)!]));
      const tried = await tensorDifferences(
        device,
        { ...a, tensors: both },
        { ...b, tensors: crossed },
        { signal },
      );
      if (tried.some(({ cosine }) => !(cosine > ALIKE))) continue;
      looks.set(one.name, `exchanged with ${shortName(other.name, one.name)}?`);
      looks.set(other.name, `exchanged with ${shortName(one.name, other.name)}?`);
    }
  return looks;
}

/** Without what both begin with, whole steps of the name only. */
function shortName(name: string, beside: string): string {
  const [steps, others] = [name.split('.'), beside.split('.')];
  const same = steps.findIndex((step, i) => step !== others[i]);
  return steps.slice(Math.max(0, same)).join('.');
}

function looksLike(one: TensorDifference, usual: Usual): string | undefined {
  const { nonFinite, largest, cosine, factor, relativeL2 } = one;
  if (nonFinite[0] !== nonFinite[1])
    return nonFinite[1] > 0
      ? `${nonFinite[1]} values not finite in B`
      : `${nonFinite[0]} values not finite in A`;
  if (relativeL2 === 0) return undefined;
  if (largest[1] === 0) return 'all zero in B';
  if (largest[0] === 0) return 'all zero in A';
  if (cosine < -ALIKE) return 'the sign turned';
  if (cosine < ALIKE) return 'other values altogether';
  if (Math.abs(factor - 1) >= STANDS_OUT * (usual.factor + factorNoise(one))) {
    const times = Number((1 / factor).toPrecision(4));
    return `all values × ${times}${times > 2 || times < 0.5 ? ': a scale lost, or applied twice?' : ''}`;
  }
  if (!(relativeL2 >= STANDS_OUT * usual.distance)) return undefined;
  const times = relativeL2 / usual.distance;
  // Against nothing at all a ratio has no meaning.
  return usual.distance === ROUNDING ? 'differs' : `${times.toFixed(0)} × as far as is usual here`;
}

/** What errors that know nothing of the values leave in the factor of as many as there are. */
function factorNoise({ cosine, shape }: TensorDifference): number {
  const rest = Math.sqrt(Math.max(0, 1 - cosine * cosine));
  return rest / Math.sqrt(shape.reduce((product, size) => product * size, 1));
}

interface Usual {
  readonly distance: number;
  readonly factor: number;
}

/** Medians of the tensors stored alike. */
function usualOf(one: TensorDifference, all: readonly TensorDifference[]): Usual {
  const alike = all.filter(
    ({ stored, shape }) => stored.join() === one.stored.join() && shape.length > 1 === one.shape.length > 1,
  );
  const median = (values: number[]): number => values.sort((p, q) => p - q)[(values.length - 1) >> 1] ?? 0;
  return {
    distance: Math.max(ROUNDING, median(alike.map(({ relativeL2 }) => relativeL2))),
    factor: Math.max(FACTOR_NOISE, median(alike.map(({ factor }) => Math.abs(factor - 1)))),
  };
}

/** A sentence where it is not one tensor or another. */
export function tensorFindings(differences: readonly TensorDifference[]): string[] {
  const matrices = differences.filter(({ shape }) => shape.length > 1);
  const strangers = matrices.filter(({ cosine }) => Math.abs(cosine) < ALIKE);
  return strangers.length * 2 > matrices.length
    ? [
        'most matrices have nothing in common: two networks that were trained apart, or one with its values in disorder',
      ]
    : [];
}

/** Sentences about the states: what overflows, what is not finite, where the first difference comes from. */
export function layerFindings(prompts: readonly PromptDifference[]): string[] {
  const found: string[] = [];
  for (const [i, file] of (['A', 'B'] as const).entries()) {
    const broken = firstLayer(prompts, ({ largest }) => !Number.isFinite(largest[i]));
    if (broken !== undefined) found.push(`${file}: not finite from layer ${broken} on`);
    const finite = (value: number): boolean => Number.isFinite(value) && value > F16_MOST;
    const beyond = firstLayer(prompts, ({ largest }) => finite(largest[i]!));
    if (beyond === undefined) continue;
    const most = Math.max(
      ...prompts.flatMap(({ layers }) => layers.map(({ largest }) => largest[i]!)).filter(Number.isFinite),
    );
    found.push(
      `${file}: beyond F16's limit ${F16_MOST} from layer ${beyond} on, at most ${Math.round(most)}: ` +
        'with F16 states it becomes infinite; this project keeps them in F32',
    );
  }
  return found;
}

function firstLayer(
  prompts: readonly PromptDifference[],
  is: (layer: PromptDifference['layers'][number]) => boolean,
): number | undefined {
  const layers = prompts.flatMap((one) => one.layers.filter(is).map(({ layer }) => layer));
  return layers.length > 0 ? Math.min(...layers) : undefined;
}
