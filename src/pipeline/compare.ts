/**
 * The same prompts and seeds with several text encoders: one picture a cell, and how far each is from the reference
 * encoder's, in pixels and in embeddings. A difference counts only if it is larger than what another seed makes.
 */
import { KotobaError } from '../errors.js';
import {
  embeddingDistance,
  pictureDistance,
  type EmbeddingDistance,
  type Picture,
  type PictureDistance,
} from '../image/index.js';
import { MAX_SEED } from '../sampling/index.js';
import { seedNoise, type SeedNoise } from './compare_noise.js';
import {
  ENCODER_SLOTS,
  type Conditioning,
  type EncodePromptJob,
  type EncoderSlot,
  type ReplacedEncoders,
  type GenerateJob,
  type GenerateOptions,
  type GenerateProgress,
  type GenerateResult,
  type RunSettings,
} from './image_types.js';
import { Job } from './job.js';
import { runSettings } from './run_settings.js';

/** A column: encoders in the place of the pipeline's own. */
export interface CompareColumn {
  readonly label: string;
  readonly encoders: ReplacedEncoders;
}

/** The sampler's options go for every cell. */
export interface CompareOptions extends Omit<GenerateOptions, 'seed' | 'count' | 'encoders' | 'preview'> {
  readonly prompts: readonly string[];
  /** The first one is the reference. */
  readonly columns: readonly CompareColumn[];
  /** Different ones. Default: one, 0. */
  readonly seeds?: readonly (number | bigint)[] | undefined;
  /**
   * How different pictures of different seeds are. `measure` (default): from the seeds given; where there is only one,
   * the reference column has one picture more of each prompt, shown nowhere. `given`: from the seeds given only.
   */
  readonly seedNoise?: 'measure' | 'given' | undefined;
}

/**
 * How far the encoders' states are from those of the reference, by encoder; null where their lengths differ, or one of
 * the two is without that encoder, so that nothing can be said. A pooled vector counts as a single token.
 */
export type ConditioningDistance = Readonly<Partial<Record<EncoderSlot, EmbeddingDistance | null>>>;

export interface CompareCell {
  readonly column: number;
  readonly prompt: string;
  readonly seed: bigint;
  readonly picture: Picture;
  /** From the reference column's picture of the same prompt and seed. */
  readonly distance: PictureDistance;
  readonly conditioning: ConditioningDistance;
  /** Whether no measure is beyond that of two seeds of this prompt; null where those are unknown. */
  readonly belowSeedNoise: boolean | null;
}

export interface CompareResult {
  readonly columns: readonly ({ readonly label: string } & Pick<GenerateResult, 'encoders' | 'precisions'>)[];
  /** A prompt and a seed each, with a cell for every column. */
  readonly rows: readonly {
    readonly prompt: string;
    readonly seed: bigint;
    readonly cells: readonly CompareCell[];
  }[];
  /** Of each prompt, in order. */
  readonly seedNoise: readonly (SeedNoise | null)[];
  /** the same for every cell */
  readonly settings: RunSettings;
  /** Encoder runs: distinct encoder × prompt, whatever the number of cells. */
  readonly encodes: number;
  /** Pictures made, with those that measure seed noise. */
  readonly pictures: number;
  readonly seconds: number;
}

export interface CompareProgress {
  /** Pictures done, of `total`. */
  readonly done: number;
  readonly total: number;
  /** Of the picture under way. */
  readonly column: CompareColumn;
  readonly prompt: string;
  readonly seed: bigint;
  readonly generate?: GenerateProgress | undefined;
}

/** A comparison under way: await it for the cells, iterate `progress()`. */
export class CompareJob extends Job<CompareResult, CompareProgress> {}

/** What a comparison needs of an ImagePipeline. */
export interface Generator {
  encode(prompt: string, options: GenerateOptions): EncodePromptJob;
  generate(prompt: string, options: GenerateOptions): GenerateJob;
}

/**
 * All prompts are encoded first, column by column, then all pictures made: each encoder is loaded once, and none
 * beside the transformer where parts do not stay loaded.
 * @throws (rejects) KotobaError ERR_ARGUMENT, and what `generate` throws
 */
export function compareEncoders(pipeline: Generator, options: CompareOptions): CompareJob {
  return new CompareJob((report) => compare(pipeline, options, report));
}

interface Shot {
  readonly column: number;
  readonly prompt: number;
  readonly seed: bigint;
  /** Only to measure seed noise by. */
  readonly isHidden: boolean;
}

async function compare(
  pipeline: Generator,
  options: CompareOptions,
  report: (progress: CompareProgress) => void,
): Promise<CompareResult> {
  const { prompts, columns, seeds: given = [0], seedNoise: noise = 'measure', ...generateOptions } = options;
  const seeds = checked(prompts, columns, given);
  const started = performance.now();
  const shots = planned(prompts, columns, seeds, noise);
  const album = new Album(prompts, columns, seeds);
  let done = 0;
  const at = (column: CompareColumn, prompt: string, seed: bigint) => (generate?: GenerateProgress) =>
    report({ done, total: shots.length, column, prompt, seed, generate });
  for (const column of columns)
    for (const prompt of prompts) {
      const job = pipeline.encode(prompt, { ...generateOptions, encoders: column.encoders });
      album.encodes += (await watched(job, at(column, prompt, seeds[0]!))).encodes;
    }
  for (const shot of shots) {
    const [column, prompt] = [columns[shot.column]!, prompts[shot.prompt]!];
    const say = at(column, prompt, shot.seed);
    say();
    const job = pipeline.generate(prompt, { ...generateOptions, encoders: column.encoders, seed: shot.seed });
    album.add(shot, await watched(job, say));
    done++;
  }
  return await album.finish((performance.now() - started) / 1000);
}

async function watched<T>(
  job: Job<T, GenerateProgress>,
  say: (progress: GenerateProgress) => void,
): Promise<T> {
  for await (const progress of job.progress()) say(progress);
  return await job;
}

function checked(
  prompts: readonly string[],
  columns: readonly CompareColumn[],
  given: readonly (number | bigint)[],
): bigint[] {
  const wrong = (what: string) => new KotobaError('ERR_ARGUMENT', `compare: ${what}`);
  if (prompts.length === 0 || columns.length === 0 || given.length === 0)
    throw wrong(
      `expected at least one prompt, column and seed, got ${prompts.length}, ${columns.length} and ${given.length}`,
    );
  const odd = given.find((seed) => typeof seed !== 'bigint' && !Number.isSafeInteger(seed));
  if (odd !== undefined) throw wrong(`seeds: expected whole numbers (beyond 2^53 as bigints), got ${odd}`);
  const seeds = given.map(BigInt);
  const twice = seeds.find((seed, i) => seeds.indexOf(seed) < i);
  if (twice !== undefined) throw wrong(`seeds: expected different ones, got ${twice} twice`);
  return seeds;
}

function planned(
  prompts: readonly string[],
  columns: readonly CompareColumn[],
  seeds: readonly bigint[],
  noise: 'measure' | 'given',
): Shot[] {
  const [only, another] = seeds;
  const hidden =
    noise === 'measure' && another === undefined ? (only! === MAX_SEED ? 0n : only! + 1n) : undefined;
  return columns.flatMap((_, column) =>
    prompts.flatMap((__, prompt) => [
      ...seeds.map((seed): Shot => ({ column, prompt, seed, isHidden: false })),
      ...(hidden !== undefined && column === 0 ? [{ column, prompt, seed: hidden, isHidden: true }] : []),
    ]),
  );
}

/** Pictures as they come, the reference column's first. */
class Album {
  readonly #prompts: readonly string[];
  readonly #columns: readonly CompareColumn[];
  readonly #seeds: readonly bigint[];
  /** [prompt] of the reference column */
  readonly #reference: Conditioning[] = [];
  /** [column][prompt] */
  readonly #distances: ConditioningDistance[][] = [];
  /** [column][prompt][seed], a hidden one last */
  readonly #pictures: Picture[][][] = [];
  /** [column]: any result of it, for its settings */
  readonly #results: GenerateResult[] = [];
  /** Encoder runs so far. */
  encodes = 0;
  #count = 0;

  constructor(prompts: readonly string[], columns: readonly CompareColumn[], seeds: readonly bigint[]) {
    this.#prompts = prompts;
    this.#columns = columns;
    this.#seeds = seeds;
  }

  add({ column, prompt }: Shot, result: GenerateResult): void {
    const { conditioning } = result;
    this.#results[column] = result;
    this.#reference[prompt] ??= conditioning;
    (this.#distances[column] ??= [])[prompt] ??= conditioningDistance(conditioning, this.#reference[prompt]);
    ((this.#pictures[column] ??= [])[prompt] ??= []).push(result.pictures[0]!.picture);
    this.encodes += result.encodes;
    this.#count++;
  }

  async finish(seconds: number): Promise<CompareResult> {
    const ofSeeds: (SeedNoise | null)[] = [];
    for (const i of this.#prompts.keys())
      ofSeeds.push(await seedNoise(this.#pictures.map((ofColumn) => ofColumn[i]!)));
    const rows = this.#prompts.flatMap((prompt, p) =>
      this.#seeds.map((seed, s) => ({
        prompt,
        seed,
        cells: this.#columns.map((_, column) => this.#cell({ column, prompt: p, seed: s }, ofSeeds[p]!)),
      })),
    );
    return {
      columns: this.#columns.map(({ label }, i) => {
        const { encoders, precisions } = this.#results[i]!;
        return { label, encoders, precisions };
      }),
      rows,
      seedNoise: ofSeeds,
      settings: runSettings(this.#results[0]!),
      encodes: this.encodes,
      pictures: this.#count,
      seconds,
    };
  }

  #cell(at: { column: number; prompt: number; seed: number }, noise: SeedNoise | null): CompareCell {
    const { column, prompt, seed } = at;
    const picture = this.#pictures[column]![prompt]![seed]!;
    const distance = pictureDistance(picture, this.#pictures[0]![prompt]![seed]!);
    return {
      column,
      prompt: this.#prompts[prompt]!,
      seed: this.#seeds[seed]!,
      picture,
      distance,
      conditioning: this.#distances[column]![prompt]!,
      belowSeedNoise: noise && isWithin(distance, noise.median),
    };
  }
}

/** By all measures: the MAE hardly sees a small thing that comes or goes, SSIM does. */
const isWithin = (distance: PictureDistance, noise: PictureDistance): boolean =>
  distance.mae <= noise.mae && distance.psnr >= noise.psnr && distance.ssim >= noise.ssim;

function conditioningDistance(a: Conditioning, b: Conditioning): ConditioningDistance {
  const slots = ENCODER_SLOTS.filter((slot) => a.states[slot] ?? b.states[slot]);
  return Object.fromEntries(
    slots.map((slot) => {
      const [own, reference] = [a.states[slot], b.states[slot]];
      const isComparable = own && own.values.length === reference?.values.length;
      return [slot, isComparable ? embeddingDistance(own.values, reference.values, own.width) : null];
    }),
  );
}
