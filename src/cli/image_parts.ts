/** The files of an image model as reports and picture metadata name them: what is inside, at which precision, which hash. */
import { createHash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import { KotobaError } from '../errors.js';
import { identify, openModel, type Slot } from '../formats/index.js';
import { describeDTypes } from '../formats/describe.js';
import { usedTensors } from '../formats/part.js';
import type { PartInfo } from '../image/index.js';
import type { PipelinePart } from '../pipeline/image_types.js';
import { IMAGE_PARTS, pipelinePart, type PartFiles } from './image_models.js';

export interface PartReport {
  readonly slot: Slot;
  /** as given */
  readonly file: string;
  readonly description: string;
  readonly precision: string;
  /** how the weights are stored: "F16", "Q4_K, Q6_K and F32" */
  readonly dtype: string;
  readonly bytesRead: number;
  /** of the file that holds the weights; absent where there are several, or it is large and --hash was not given */
  readonly sha256?: string | undefined;
}

/** What each part ran at. */
export type Precisions = Readonly<Partial<Record<PipelinePart, string>>>;

export interface PartSource {
  readonly part: PipelinePart;
  readonly report: Omit<PartReport, 'precision' | 'sha256'>;
  /** file name, with its folder where a folder was given; no more of the path: pictures are shared */
  readonly name: string;
  /** the one file that holds all of its tensors */
  readonly weights: string | undefined;
}

/** Larger files are hashed only on demand: a 24 GB transformer takes 15 s and more of a core. */
export const MOST_HASHED_BYTES = 2_000_000_000;

export const partSources = (files: PartFiles): PartSource[] =>
  IMAGE_PARTS.flatMap((part) => {
    const path = files[part];
    return path === undefined ? [] : [partSource(part, path)];
  });

export function partSource(wanted: PipelinePart, path: string): PartSource {
  const parts = identify(openModel(path));
  const part =
    parts.find(({ slot }) => pipelinePart(slot) === wanted) ??
    parts.find(({ fits }) => fits.some((slot) => pipelinePart(slot) === wanted)) ??
    parts[0]!;
  const used = [...new Set([...usedTensors(part.tensors)].map((tensor) => tensor.path))];
  return {
    part: wanted,
    report: {
      slot: wanted === 'denoiser' ? part.slot : wanted,
      file: path,
      description: part.description,
      dtype: describeDTypes(part.tensors),
      bytesRead: part.bytesRead,
    },
    name: relative(dirname(resolve(path)), resolve(used.length === 1 ? used[0]! : path)),
    weights: used.length === 1 ? used[0] : undefined,
  };
}

export type Hashes = ReadonlyMap<string, string>;

/** path → SHA-256 of each file up to `most` bytes, once; in slices, so that it can go on beside other work. */
export async function hashWeights(
  sources: readonly PartSource[],
  most: number,
  signal: AbortSignal,
): Promise<Hashes> {
  const hashes = new Map<string, string>();
  for (const { weights } of sources)
    if (weights !== undefined && !hashes.has(weights) && statSync(weights).size <= most)
      hashes.set(weights, await sha256(weights, signal));
  return hashes;
}

async function sha256(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  try {
    for await (const part of createReadStream(path, { highWaterMark: 1 << 20, signal }))
      hash.update(part as Buffer);
  } catch (cause) {
    if (signal.aborted)
      throw new KotobaError('ERR_CANCELLED', 'cancelled while hashing the files', { cause });
    throw new KotobaError('ERR_FILE_READ', `${path}: cannot be read: ${(cause as Error).message}`, { cause });
  }
  return hash.digest('hex');
}

export const partReport = (
  { part, report, weights }: PartSource,
  precisions: Precisions,
  hashes: Hashes,
): PartReport => ({
  ...report,
  precision: precisions[part]!,
  sha256: weights === undefined ? undefined : hashes.get(weights),
});

/** As PNG metadata names parts. */
export function partInfos(
  sources: readonly PartSource[],
  precisions: Precisions,
  hashes: Hashes,
): Record<string, PartInfo> {
  return Object.fromEntries(
    sources.map(({ part, report: { slot, dtype }, name, weights }) => {
      const precision = precisions[part]!;
      const sha256 = weights === undefined ? undefined : hashes.get(weights);
      return [slot, { file: name, precision, dtype, ...(sha256 !== undefined && { sha256 }) }];
    }),
  );
}
