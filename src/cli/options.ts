/** Options that several commands share, and how their values are read. */
import { existsSync, readFileSync } from 'node:fs';
import { InvalidArgumentError, Option } from 'commander';
import { KotobaError } from '../errors.js';
import { SLOTS, type Slot } from '../formats/index.js';
import { namedOffline } from '../hub/index.js';
import { findModel } from '../pipeline/find_model.js';
import { T5_LENGTHS, type ChunkLayout, type T5Length } from '../text/index.js';

export const PRECISION_NAMES = ['auto', 'fp32', 'int8', 'fp16', 'bf16'] as const;
export const DIALECTS = ['plain', 'a1111', 'comfyui'] as const;
export const OVERFLOWS = ['error', 'truncate', 'chunk'] as const;
export const CLIP_FLAVOURS = ['openai', 'comfyui', 'hf'] as const;

export const jsonOption = (): Option => new Option('--json', 'one JSON object on stdout, nothing else');
export const modelsDirOption = (): Option =>
  new Option('--models-dir <dir>', 'search model names here too; may be repeated')
    .default([], 'KOTOBA_MODELS')
    .argParser(repeated);
export const dialectOption = (): Option =>
  new Option('--dialect <name>', 'how (word:1.2) is read').choices(DIALECTS).default('plain');
export const overflowOption = (): Option =>
  new Option(
    '--overflow <what>',
    'a prompt that is too long is an error, is cut, or goes on in chunks (default: CLIP chunk, T5 truncate)',
  ).choices(OVERFLOWS);
export const t5LengthOption = (): Option =>
  new Option(
    '--t5-length <name|n>',
    `pad and cut T5 to n tokens, or as a model does: ${Object.keys(T5_LENGTHS).join(', ')} (default: unpadded)`,
  ).argParser(parseT5Length);
export const t5TokenizerOption = (): Option =>
  new Option(
    '--t5-tokenizer <path>',
    'spiece.model or tokenizer.json, or a folder with one; or a name, t5-vocabulary',
  ).argParser(parseTokenizer);
export const clipFlavourOption = (): Option =>
  new Option('--clip-flavour <name>', 'whose cleaning of the prompt to follow for CLIP')
    .choices(CLIP_FLAVOURS)
    .default('openai');

/** A path stays as it is, there or not; a name that `kotoba pull` takes becomes what it pulled. */
const parseTokenizer = (text: string): string =>
  existsSync(text) || !namedOffline(text) ? text : findModel(text, []);

/** A value for all parts, and others for some of them: `fp32`, `t5=int8`. */
export interface PerSlot<T> {
  readonly all?: T | undefined;
  readonly slots: ReadonlyMap<Slot, T>;
}

/** Reads `value` and `slot=value`; later ones win. */
export function perSlot<T>(parse: (text: string) => T) {
  return (text: string, previous: PerSlot<T> = { slots: new Map() }): PerSlot<T> => {
    const [, name, rest] = /^([a-z0-9_-]+)=(.*)$/s.exec(text) ?? [];
    if (name === undefined || rest === undefined) return { ...previous, all: parse(text) };
    return { ...previous, slots: new Map(previous.slots).set(parseSlot(name), parse(rest)) };
  };
}

export const valueFor = <T>(values: PerSlot<T> | undefined, slot: Slot): T | undefined =>
  values?.slots.get(slot) ?? values?.all;

/** @throws KotobaError ERR_ARGUMENT for a value meant for a part that is not there */
export function requireSlots(option: string, values: PerSlot<unknown> | undefined, used: readonly Slot[]) {
  for (const slot of values?.slots.keys() ?? [])
    if (!used.includes(slot))
      throw new KotobaError(
        'ERR_ARGUMENT',
        `${option} ${slot}=…: expected one of the parts in use (${used.join(', ')})`,
      );
}

/** `clip-l` as the options spell it, or `clip_l`. */
export function parseSlot(text: string): Slot {
  const slot = SLOTS.find((known) => known === text.replaceAll('-', '_'));
  if (slot === undefined)
    throw new InvalidArgumentError(`expected a slot (${SLOTS.join(', ')}), got "${text}".`);
  return slot;
}

export function oneOf<T extends string>(names: readonly T[]) {
  return (text: string): T => {
    const name = names.find((known) => known === text);
    if (name === undefined)
      throw new InvalidArgumentError(`expected one of ${names.join(', ')}, got "${text}".`);
    return name;
  };
}

export function wholeNumber(least: number) {
  return (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (!(value >= least && value <= 0x7fffffff))
      throw new InvalidArgumentError(`expected a whole number from ${least}, got "${text}".`);
    return value;
  };
}

export const repeated = (text: string, previous: readonly string[] = []): string[] => [...previous, text];

/** @returns the part of a ChunkLayout that `--t5-length` decides */
export function parseT5Length(text: string): Partial<ChunkLayout> & { t5Length?: T5Length } {
  if (Object.hasOwn(T5_LENGTHS, text)) return { t5Length: text as T5Length };
  if (!/^\d+$/.test(text))
    throw new InvalidArgumentError(
      `expected a number of tokens or ${Object.keys(T5_LENGTHS).join(', ')}, got "${text}".`,
    );
  const length = wholeNumber(2)(text); // a token and its EOS
  return { minLength: length, maxLength: length };
}

export type T5LengthValue = ReturnType<typeof parseT5Length>;

/** A config in the keys of Hugging Face's config.json: JSON itself, or the file that holds it. */
export function parseConfig(text: string): Readonly<Record<string, unknown>> {
  const isJson = text.trimStart().startsWith('{');
  const source = isJson ? text : readText(text, '--config');
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch (error) {
    throw new KotobaError(
      'ERR_ARGUMENT',
      `--config: expected JSON${isJson ? '' : ` in ${text}`}, got an error: ${(error as Error).message}`,
    );
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new KotobaError('ERR_ARGUMENT', `--config: expected a JSON object, got ${source.slice(0, 40)}`);
  return value as Record<string, unknown>;
}

/** @throws KotobaError ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_ARGUMENT for text that is not UTF-8 */
export function readText(path: string, option: string): string {
  try {
    return decodeUtf8(readFileSync(path), `${option} ${path}`);
  } catch (cause) {
    if (cause instanceof KotobaError) throw cause;
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw new KotobaError(
      missing ? 'ERR_FILE_NOT_FOUND' : 'ERR_FILE_READ',
      `${option} ${path}: ${missing ? 'no such file' : (cause as Error).message}`,
      { cause },
    );
  }
}

export function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new KotobaError('ERR_ARGUMENT', `${where}: expected UTF-8 text, got other bytes`, { cause });
  }
}
