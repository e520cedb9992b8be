/** Embeddings as named tensors, and the file they go into. */
import { statSync } from 'node:fs';
import { basename, extname } from 'node:path';
import { KotobaError } from '../errors.js';
import { writeNpy, writeSafetensors, type ArrayToWrite } from '../formats/write.js';
import type { Slot } from '../formats/index.js';
import type { Encoding } from '../index.js';
import type { PromptDialect, TokenChunk } from '../text/index.js';
import type { EncoderRun } from './encode_report.js';
import { requireNoInput, requireWritableFile } from './output_path.js';
import { kotobaVersion } from './version.js';

export interface SlotResult {
  readonly slot: Slot;
  /** one per prompt */
  readonly encodings: readonly Encoding[];
}

export interface WrittenFile {
  readonly path: string;
  readonly bytes: number;
  readonly tensors: readonly {
    readonly name: string;
    readonly dtype: string;
    readonly shape: readonly number[];
  }[];
}

const isNpy = (path: string): boolean => extname(path).toLowerCase() === '.npy';

/**
 * Before anything is computed: a name we can write, a folder that takes it, and no model file that would be lost.
 * @throws KotobaError ERR_ARGUMENT, ERR_FILE_WRITE, ERR_FILE_EXISTS
 */
export function checkOutput(path: string, inputs: readonly { readonly path: string }[]): void {
  if (!/\.(safetensors|npy)$/i.test(path))
    throw new KotobaError('ERR_ARGUMENT', `--output: expected a .safetensors or .npy file, got ${path}`);
  requireWritableFile('--output', path);
  requireNoInput(
    '--output',
    path,
    inputs.map((input) => input.path),
  );
}

/** @throws KotobaError ERR_ARGUMENT where a .npy cannot hold what was asked for */
export function requireOneArray(
  path: string,
  encoders: number,
  chunks: readonly (readonly TokenChunk[])[],
): void {
  if (!isNpy(path)) return;
  const lengths = new Set(chunks.map(lengthOf));
  const what =
    encoders > 1
      ? `${encoders} encoders`
      : lengths.size > 1
        ? `prompts of ${lengths.size} different lengths`
        : undefined;
  if (what !== undefined)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `--output ${path}: a .npy file holds one array, got ${what}; write a .safetensors file`,
    );
}

const lengthOf = (chunks: readonly TokenChunk[]): number =>
  chunks.reduce((sum, { ids }) => sum + ids.length, 0);

/** Tensors by name, `<slot>.hidden` first. Batched where all prompts have one length. */
export function outputTensors(results: readonly SlotResult[]): Map<string, ArrayToWrite> {
  const tensors = new Map<string, ArrayToWrite>();
  for (const { slot, encodings } of results) {
    const isBatch = new Set(encodings.map(({ tokens }) => tokens)).size === 1;
    const groups = isBatch
      ? [{ prefix: slot, batch: [encodings.length], of: encodings }]
      : encodings.map((encoding, i) => ({ prefix: `${slot}.${i}`, batch: [], of: [encoding] }));
    for (const { prefix, batch, of } of groups)
      for (const [name, array] of sequenceTensors(of, batch)) tensors.set(`${prefix}.${name}`, array);
    for (const name of ['pooled', 'projected'] as const) {
      const vectors = encodings.flatMap((encoding) => encoding[name] ?? []);
      if (vectors.length === encodings.length)
        tensors.set(`${slot}.${name}`, {
          data: join(vectors),
          shape: [encodings.length, vectors[0]!.length],
        });
    }
  }
  return tensors;
}

/** Everything that has a row per token. `batch` is [] for a single prompt without that dimension. */
function sequenceTensors(encodings: readonly Encoding[], batch: readonly number[]): [string, ArrayToWrite][] {
  const { tokens, width, hiddenStates } = encodings[0]!;
  const shape = [...batch, tokens, width];
  const states = [...hiddenStates.keys()].map((n): [string, ArrayToWrite] => [
    `hidden_states.${n}`,
    { data: join(encodings.map((encoding) => encoding.hiddenStates.get(n)!)), shape },
  ]);
  const ids = encodings.flatMap(({ prompt }) => prompt.chunks.map((chunk) => chunk.ids));
  return [
    ['hidden', { data: join(encodings.map(({ hidden }) => hidden)), shape }],
    ...states,
    ['token_ids', { data: join(ids), shape: [...batch, tokens] }],
  ];
}

/** One after another; a single one is not copied. */
function join<T extends Float32Array | Int32Array>(parts: readonly T[]): T {
  if (parts.length === 1) return parts[0]!;
  const Values = parts[0]!.constructor as new (length: number) => T;
  const joined = new Values(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

interface About {
  readonly prompts: readonly string[];
  readonly runs: readonly EncoderRun[];
  readonly dialect: PromptDialect;
}

/** @throws KotobaError ERR_FILE_WRITE; no half file is left */
export async function writeOutput(
  path: string,
  tensors: ReadonlyMap<string, ArrayToWrite>,
  about: About,
): Promise<WrittenFile> {
  const kept = isNpy(path) ? [...tensors].slice(0, 1) : [...tensors];
  if (isNpy(path)) await writeNpy(path, kept[0]![1]);
  else await writeSafetensors(path, tensors, metadata(about));
  return {
    path,
    bytes: statSync(path).size,
    tensors: kept.map(([name, { data, shape }]) => ({
      name,
      dtype: data instanceof Float32Array ? 'F32' : 'I32',
      shape,
    })),
  };
}

/** How the numbers came about, as JSON strings. File names without folders: the file may be passed on. */
function metadata({ prompts, runs, dialect }: About): Record<string, string> {
  const bySlot = (value: (run: EncoderRun) => unknown): string =>
    JSON.stringify(Object.fromEntries(runs.map((run) => [run.slot, value(run)])));
  return {
    prompts: JSON.stringify(prompts),
    dialect,
    files: bySlot(({ file }) => basename(file)),
    encoders: bySlot(({ description }) => description),
    precisions: bySlot(({ precision }) => precision),
    kotoba_version: kotobaVersion(),
    node_version: process.version,
  };
}
