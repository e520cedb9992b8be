/** The columns of a comparison: every T5 with every CLIP-L at every precision that the command line names. */
import { existsSync } from 'node:fs';
import { basename, dirname, extname, resolve } from 'node:path';
import { InvalidArgumentError } from 'commander';
import { KotobaError } from '../errors.js';
import { openModel, selectPart } from '../formats/index.js';
import type { CompareColumn } from '../pipeline/compare.js';
import type { EncoderChoice, EncoderSlot } from '../pipeline/image_types.js';
import { resolvePrecision, type Precision } from '../pipeline/precision.js';
import { SHIPPED_T5 } from '../pipeline/shipped_model.js';
import type { Device } from '../runtime/device.js';
import { partFile, type PartFiles } from './image_models.js';
import { encoderSettings, type ImageCommandOptions } from './image_options.js';
import * as option from './options.js';

/** `FILE` or `FILE@int8`. */
export interface EncoderFile {
  readonly name: string;
  readonly precision?: Precision | undefined;
}

/** An "@" that is part of a file's name stays one. */
export function parseEncoderFile(text: string, previous: readonly EncoderFile[] = []): EncoderFile[] {
  const [, name, precision] = /^(.+)@([^@/\\.]+)$/s.exec(text) ?? [];
  if (name === undefined || precision === undefined || existsSync(text)) return [...previous, { name: text }];
  return [...previous, { name, precision: option.oneOf(option.PRECISION_NAMES)(precision) }];
}

/** One --precision is one column: `int8`, `t5=int8`, or both encoders: `t5=int8,clip_l=fp32`. */
export type PrecisionEntry = option.PerSlot<Precision>;

export function parsePrecisionEntry(
  text: string,
  previous: readonly PrecisionEntry[] = [],
): PrecisionEntry[] {
  const parse = option.perSlot(option.oneOf(option.PRECISION_NAMES));
  const entry = text
    .split(',')
    .reduce<PrecisionEntry | undefined>((all, one) => parse(one.trim(), all), undefined)!;
  const stranger = [...entry.slots.keys()].find((slot) => slot !== 't5' && slot !== 'clip_l');
  if (stranger !== undefined)
    throw new InvalidArgumentError(`expected an encoder (t5, clip_l), got "${stranger}".`);
  return [...previous, entry];
}

export interface ColumnOptions extends Pick<ImageCommandOptions, 'model' | 'config' | 't5Tokenizer'> {
  readonly clipL?: readonly EncoderFile[];
  readonly t5?: readonly EncoderFile[];
  readonly precision?: readonly PrecisionEntry[];
}

/**
 * Without any axis: the ordinary T5 that ships against the better one. With a single other encoder: the model's own
 * against it.
 * @param own what the model holds
 * @param device what `auto` means depends on it
 * @throws KotobaError ERR_ARGUMENT if there is nothing to compare; ERR_MODEL_SLOT, ERR_FILE_*
 */
export function compareColumns(
  options: ColumnOptions,
  own: Partial<PartFiles>,
  dirs: readonly string[],
  device: Where,
): CompareColumn[] {
  const { precision: precisions = [{ slots: new Map() }] } = options;
  const isSingle =
    (options.t5?.length ?? 0) <= 1 && (options.clipL?.length ?? 0) <= 1 && precisions.length === 1;
  const files = (slot: EncoderSlot, given: readonly EncoderFile[] | undefined): OneFile[] => {
    const named = (given ?? []).map(({ name, precision }) => ({
      path: partFile(slot, name, dirs),
      precision,
    }));
    const itself = own[slot] === undefined ? [] : [{ path: own[slot] }];
    return named.length === 0 || (isSingle && named.length === 1) ? [...itself, ...named] : named;
  };
  const hasAxis = options.t5 !== undefined || options.clipL !== undefined || precisions.length > 1;
  const t5s =
    !hasAxis && options.model === undefined
      ? Object.values(SHIPPED_T5)
          .map((choice): OneFile => choice())
          .reverse()
      : files('t5', options.t5);
  const clips = files('clip_l', options.clipL);
  const choices = t5s.flatMap((t5) =>
    clips.flatMap((clip_l) =>
      precisions.map((entry) => ({ t5: at(t5, 't5', entry), clip_l: at(clip_l, 'clip_l', entry) })),
    ),
  );
  if (choices.length === 1)
    throw new KotobaError(
      'ERR_ARGUMENT',
      'nothing to compare: give --t5, --clip-l or --precision more than once, for example --t5 a.gguf --t5 b.gguf',
    );
  return labelled(choices, options, device);
}

type Where = Pick<Device, 'isGpu'>;

/** What an encoder's precision comes to. @throws KotobaError ERR_ARGUMENT for one that the device does not have */
function ranAt(slot: EncoderSlot, { path, precision, config }: EncoderChoice, device: Where): string {
  const part = selectPart(openModel(path), { slot, ...(config && { config }) });
  return resolvePrecision(precision, part, device);
}

interface OneFile {
  readonly path: string;
  readonly precision?: Precision | undefined;
}

const at = ({ path, precision }: OneFile, slot: EncoderSlot, entry: PrecisionEntry): OneFile => ({
  path,
  precision: precision ?? option.valueFor(entry, slot),
});

type Choice = Readonly<Record<EncoderSlot, OneFile>>;

const SLOTS = ['t5', 'clip_l'] as const satisfies readonly EncoderSlot[];
const TITLES: Readonly<Record<EncoderSlot, string>> = { t5: 'T5', clip_l: 'CLIP-L' };

/** A label says what sets a column apart from the others, no more: "flan-t5-xxl int8", "CLIP-L fp32". */
function labelled(choices: readonly Choice[], options: ColumnOptions, device: Where): CompareColumn[] {
  const columns = choices.map((choice) => {
    const encoders = { t5: chosen('t5', choice, options), clip_l: chosen('clip_l', choice, options) };
    const { t5, clip_l } = encoders;
    return { encoders, t5: ranAt('t5', t5, device), clip_l: ranAt('clip_l', clip_l, device) };
  });
  type Column = (typeof columns)[number];
  const differ = (of: (column: Column) => string): boolean => new Set(columns.map(of)).size > 1;
  const slots = SLOTS.map((slot) => ({
    slot,
    names: shortNames(choices.map((choice) => choice[slot].path)),
    files: differ(({ encoders }) => encoders[slot].path),
    precisions: differ((column) => column[slot]),
  }));
  const isTogether = columns.every(({ t5, clip_l }) => t5 === clip_l);
  return columns.map((column) => {
    const { encoders } = column;
    const words = slots.map(({ slot, names, files, precisions }) =>
      [
        ...(files ? [names.get(encoders[slot].path)!] : precisions && !isTogether ? [TITLES[slot]] : []),
        ...(precisions && (!isTogether || files) ? [column[slot]] : []),
      ].join(' '),
    );
    const label = words.filter((word) => word !== '').join(' + ');
    const plain = differ(({ t5 }) => t5) ? column.t5 : slots[0]!.names.get(encoders.t5.path)!;
    return { label: label || plain, encoders };
  });
}

function chosen(slot: EncoderSlot, choice: Choice, options: ColumnOptions): EncoderChoice {
  const { path, precision } = choice[slot];
  return { path, ...encoderSettings(slot, options, precision) };
}

/** File names without folder and extension; with the folder where files of one name are meant. */
export function shortNames(paths: readonly string[]): ReadonlyMap<string, string> {
  const short = (path: string): string => {
    const name = basename(resolve(path));
    const extension = extname(name);
    return /^\.(safetensors|sft|gguf|json)$/i.test(extension) ? name.slice(0, -extension.length) : name;
  };
  const different = [...new Set(paths)];
  return new Map(
    different.map((path) => {
      const isUnique = different.filter((other) => short(other) === short(path)).length === 1;
      return [path, isUnique ? short(path) : `${basename(dirname(resolve(path)))}/${short(path)}`];
    }),
  );
}
