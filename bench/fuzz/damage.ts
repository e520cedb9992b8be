/** One damaged file from one seed: which sample, which of its files, and how. */
import { below, mutate, mutateInPlace, pick, seededRandom, type Random } from './mutate.js';
import { rewrite, safetensorsWith } from './rewrite.js';
import { rewritePng } from './rewrite_png.js';
import type { Sample } from './sample.js';
import { headerBytes, readSamples, type SampleSet } from './samples.js';

export interface Target {
  readonly sample: Sample;
  /** Which of its files. */
  readonly name: string;
  /** Bytes before the first tensor. */
  readonly headerBytes: number;
}

export type Damage = 'header' | 'text' | 'rewrite' | 'data' | 'cut';

export interface Damaged {
  readonly how: Damage;
  readonly bytes: Buffer;
}

export interface Case extends Damaged {
  readonly target: Target;
  /** Goes on to choose what is done with the file. */
  readonly random: Random;
}

export async function readTargets(set: SampleSet): Promise<Target[]> {
  const samples = await readSamples(set);
  return samples.flatMap((sample) =>
    [...sample.files].map(([name, bytes]) => ({ sample, name, headerBytes: headerBytes(bytes, name) })),
  );
}

export function caseOf(targets: readonly Target[], seed: number): Case {
  const random = seededRandom(seed);
  const target = pick(targets, random);
  return { target, random, ...damage(target, random) };
}

/** Half of the damaged headers are mutated where they stand, so that lengths and offsets still fit. */
function damage({ sample, name, headerBytes }: Target, random: Random): Damaged {
  const bytes = sample.files.get(name)!;
  const header = bytes.subarray(0, headerBytes);
  const data = bytes.subarray(headerBytes);
  const hasTensors = data.length > 0;
  const roll = random();
  if (name.endsWith('.png') && roll < 0.7) return { how: 'rewrite', bytes: rewritePng(bytes, random) };
  if (!hasTensors || roll < 0.45) {
    const mutated = random() < 0.5 ? mutate(header, random) : mutateInPlace(header, random);
    return { how: 'header', bytes: Buffer.concat([mutated, data]) };
  }
  if (roll < 0.6 && name.endsWith('.safetensors'))
    return { how: 'text', bytes: safetensorsWith(mutate(bytes.subarray(8, headerBytes), random), data) };
  if (roll < 0.85) return { how: 'rewrite', bytes: rewrite(bytes, random) };
  if (roll < 0.95) return { how: 'data', bytes: Buffer.concat([header, damageData(data, random)]) };
  const length = below(random, bytes.length + 1);
  return { how: 'cut', bytes: Buffer.from(bytes.subarray(0, length)) };
}

/** NaN, infinities and large numbers of every width, zeros, or noise over a part of the weights. */
function damageData(data: Buffer, random: Random): Buffer {
  const damaged = Buffer.from(data);
  const start = below(random, data.length);
  const end = random() < 0.5 ? start + 1 + below(random, 64) : data.length;
  const kind = below(random, 3);
  if (kind === 0) damaged.fill(pick([0x00, 0x7f, 0x7c, 0xff, 0x80, 0x60], random), start, end);
  else if (kind === 1) for (let i = start; i < end && i < data.length; i++) damaged[i] = below(random, 256);
  else return mutateInPlace(damaged, random);
  return damaged;
}
