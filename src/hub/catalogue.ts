/** models/catalogue.json: the files of the article and their families, each under a name such as `flan-t5-xxl:q4_k`. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Slot } from '../formats/index.js';
import { packageRoot } from '../package_root.js';

export interface CatalogueEntry {
  /** family:variant */
  readonly name: string;
  /** what it is, for people */
  readonly title: string;
  readonly slots: readonly Slot[];
  readonly repository: string;
  /** the first is the one that is opened: an index before its shards */
  readonly files: readonly string[];
  /** of all files; undefined where nobody said */
  readonly bytes?: number | undefined;
  /** `published`, or computed from what is in it */
  readonly bytesAre: 'published' | 'about';
  readonly licence: string;
  /** whether the licence must be accepted on the Hub first; null: not known */
  readonly gated: boolean | null;
  readonly note?: string | undefined;
}

interface StoredEntry {
  readonly variant: string;
  /** further names of the variant */
  readonly also?: readonly string[];
  readonly repository: string;
  readonly files: readonly string[];
  readonly bytes?: number;
  readonly aboutBytes?: number;
  readonly slots?: readonly Slot[];
  readonly licence?: string;
  readonly gated?: boolean | null;
  readonly note?: string;
}

interface StoredFamily {
  readonly name: string;
  readonly title: string;
  readonly slots: readonly Slot[];
  readonly licence: string;
  readonly gated: boolean | null;
  readonly entries: readonly StoredEntry[];
}

let read: readonly StoredFamily[] | undefined;
function families(): readonly StoredFamily[] {
  const path = join(packageRoot(), 'models', 'catalogue.json');
  return (read ??= (JSON.parse(readFileSync(path, 'utf8')) as { families: StoredFamily[] }).families);
}

/** In the order of the file: families, and in each the one its name alone means first. */
export const catalogue = (): CatalogueEntry[] =>
  families().flatMap((family) => family.entries.map((entry) => entryOf(family, entry)));

function entryOf(family: StoredFamily, entry: StoredEntry): CatalogueEntry {
  const { repository, files, bytes, aboutBytes, note } = entry;
  const { slots = family.slots, licence = family.licence } = entry;
  return {
    name: `${family.name}:${entry.variant}`,
    title: family.title,
    slots,
    repository,
    files,
    bytes: bytes ?? aboutBytes,
    bytesAre: bytes === undefined ? 'about' : 'published',
    licence,
    gated: entry.gated === undefined ? family.gated : entry.gated,
    note,
  };
}

/** @param name `family` or `family:variant`, in any case; undefined for what the catalogue does not have */
export function catalogueEntry(name: string): CatalogueEntry | undefined {
  const [, family, variant] = splitName(name);
  if (family === undefined) return undefined;
  const entry = family.entries.find(
    (one) => variant === undefined || one.variant === variant || one.also?.includes(variant),
  );
  return entry && entryOf(family, entry);
}

/** Names of the family that `name` belongs to, for messages: its variants where the one asked for is not among them. */
export function variantsFor(name: string): string[] {
  const [, family] = splitName(name);
  return family?.entries.map(({ variant }) => `${family.name}:${variant}`) ?? [];
}

function splitName(name: string): [string, StoredFamily | undefined, string | undefined] {
  const [familyName = '', variant] = name.toLowerCase().split(':');
  return [familyName, families().find((one) => one.name === familyName), variant];
}
