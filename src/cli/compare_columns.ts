/** The columns of a comparison: every encoder with every other at every precision that the command line names. */
import { existsSync } from 'node:fs';
import { basename, dirname, extname, resolve } from 'node:path';
import { InvalidArgumentError } from 'commander';
import { KotobaError } from '../errors.js';
import { openModel, selectPart } from '../formats/index.js';
import type { CompareColumn } from '../pipeline/compare.js';
import { ENCODER_SLOTS, type EncoderChoice, type EncoderSlot } from '../pipeline/image_types.js';
import { resolvePrecision, type Precision } from '../pipeline/precision.js';
import { SHIPPED_T5 } from '../pipeline/shipped_model.js';
import type { Device } from '../runtime/device.js';
import { NONE, partFile, type PartFiles } from './image_models.js';
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
  const stranger = [...entry.slots.keys()].find((slot) => !ENCODER_SLOTS.some((encoder) => encoder === slot));
  if (stranger !== undefined)
    throw new InvalidArgumentError(`expected an encoder (${ENCODER_SLOTS.join(', ')}), got "${stranger}".`);
  return [...previous, entry];
}

export interface ColumnOptions extends Pick<ImageCommandOptions, 'model' | 'config' | 't5Tokenizer'> {
  readonly clipL?: readonly EncoderFile[];
  readonly clipG?: readonly EncoderFile[];
  readonly clipH?: readonly EncoderFile[];
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
  const given = encoderFiles(options);
  const named = Object.values(given);
  const isSingle = named.every((files) => files.length <= 1) && precisions.length === 1;
  const hasAxis = named.length > 0 || precisions.length > 1;
  const ofSlot = (slot: EncoderSlot): OneFile[] => {
    if (slot === 't5' && !hasAxis && options.model === undefined)
      return Object.values(SHIPPED_T5)
        .map((choice): OneFile => choice())
        .reverse();
    const files = (given[slot] ?? []).map(({ name, precision }) => ({
      path: partFile(slot, name, dirs),
      precision,
    }));
    const itself = own[slot] === undefined ? [] : [{ path: own[slot] }];
    return files.length === 0 || (isSingle && files.length === 1) ? [...itself, ...files] : files;
  };
  const choices = AXES.reduce<readonly Choice[]>(
    (all, slot) => {
      const files = ofSlot(slot);
      return files.length === 0 ? all : all.flatMap((one) => files.map((file) => ({ ...one, [slot]: file })));
    },
    [{}],
  ).flatMap((choice) => precisions.map((entry) => atPrecision(choice, entry)));
  if (choices.length === 1)
    throw new KotobaError(
      'ERR_ARGUMENT',
      'nothing to compare: give --t5, --clip-l, --clip-g or --precision more than once, for example --t5 a.gguf --t5 b.gguf',
    );
  return labelled(choices, options, device);
}

/** As named, by encoder. */
export function encoderFiles(
  options: Pick<ColumnOptions, 't5' | 'clipL' | 'clipG' | 'clipH'>,
): Readonly<Partial<Record<EncoderSlot, readonly EncoderFile[]>>> {
  const { t5, clipL: clip_l, clipG: clip_g, clipH: clip_h } = options;
  const files = Object.entries({ t5, clip_l, clip_g, clip_h });
  return Object.fromEntries(files.filter(([, list]) => list !== undefined));
}

type Where = Pick<Device, 'isGpu'>;

/** What an encoder's precision comes to. @throws KotobaError ERR_ARGUMENT for one that the device does not have */
function ranAt(slot: EncoderSlot, { path, precision, config }: EncoderChoice, device: Where): string {
  const part = selectPart(openModel(path), { slot, ...(config && { config }) });
  return resolvePrecision(precision, part, device);
}

interface OneFile {
  /** undefined: left out */
  readonly path: string | undefined;
  readonly precision?: Precision | undefined;
}

type Choice = Readonly<Partial<Record<EncoderSlot, OneFile>>>;

/** Those that change most first: the outermost axis is the first. */
const AXES = ['t5', 'clip_l', 'clip_g', 'clip_h'] as const satisfies readonly EncoderSlot[];
const TITLES: Readonly<Record<EncoderSlot, string>> = {
  t5: 'T5',
  clip_l: 'CLIP-L',
  clip_g: 'CLIP-G',
  clip_h: 'CLIP-H',
};

function atPrecision(choice: Choice, entry: PrecisionEntry): Choice {
  const slots = Object.entries(choice) as [EncoderSlot, OneFile][];
  return Object.fromEntries(
    slots.map(([slot, { path, precision }]) => [
      slot,
      { path, precision: precision ?? option.valueFor(entry, slot) },
    ]),
  );
}

/** What sets a column apart may be any of these. */
interface Ran {
  readonly encoders: Readonly<Partial<Record<EncoderSlot, EncoderChoice>>>;
  readonly precisions: Readonly<Partial<Record<EncoderSlot, string>>>;
}

/** A label says what sets a column apart from the others, no more: "flan-t5-xxl int8", "CLIP-L fp32". */
function labelled(choices: readonly Choice[], options: ColumnOptions, device: Where): CompareColumn[] {
  const columns = choices.map((choice) => ran(choice, options, device));
  const differ = (of: (column: Ran) => readonly (string | undefined)[]): boolean =>
    new Set(columns.flatMap(of)).size > 1;
  const slots = AXES.filter((slot) => columns.some(({ encoders }) => encoders[slot])).map((slot) => ({
    slot,
    names: shortNames(columns.flatMap(({ encoders }) => encoders[slot]?.path ?? [])),
    files: differ(({ encoders }) => [encoders[slot]?.path]),
    // An encoder that is left out has no other precision.
    precisions: differ(({ precisions }) => (precisions[slot] ? [precisions[slot]] : [])),
  }));
  const isTogether = columns.every(({ precisions }) => new Set(Object.values(precisions)).size === 1);
  // Nothing sets these apart: whatever the first encoder is called that none is without.
  const plain = ({ encoders, precisions }: Ran): string => {
    const { slot, names, precisions: differing } = slots.find(({ slot: each }) => encoders[each])!;
    return differing ? precisions[slot]! : names.get(encoders[slot]!.path)!;
  };
  return columns.map(({ encoders, precisions }) => {
    const words = slots.map(({ slot, names, files, precisions: differing }) => {
      const path = encoders[slot]?.path;
      const name = path === undefined ? `no ${TITLES[slot]}` : names.get(path)!;
      return [
        ...(files ? [name] : differing && !isTogether ? [TITLES[slot]] : []),
        ...(differing && (!isTogether || files) ? [precisions[slot] ?? ''] : []),
      ].join(' ');
    });
    const label = words.filter((word) => word !== '').join(' + ');
    const absent = slots.flatMap(({ slot }) => (encoders[slot] ? [] : [[slot, NONE] as const]));
    return {
      label: label || plain({ encoders, precisions }),
      encoders: { ...encoders, ...Object.fromEntries(absent) },
    };
  });
}

function ran(choice: Choice, options: ColumnOptions, device: Where): Ran {
  const chosen = (Object.entries(choice) as [EncoderSlot, OneFile][]).flatMap(([slot, file]) => {
    const { path, precision } = file;
    return path === undefined
      ? []
      : [[slot, { path, ...encoderSettings(slot, options, precision) }] as const];
  });
  const precisions = chosen.map(([slot, encoder]) => [slot, ranAt(slot, encoder, device)]);
  return { encoders: Object.fromEntries(chosen), precisions: Object.fromEntries(precisions) };
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
