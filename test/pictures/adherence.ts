/**
 * How well the small model's pictures obey held-out prompts: colour, shape, size and position of every object and the
 * background, read off the picture by scorer.ts. As a program it prints the table of models/README.md:
 *
 *   npx tsx test/pictures/adherence.ts [--json FILE]
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { pictureDistance, type Picture } from '../../src/image/index.js';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import type { EncoderChoice, GenerateOptions } from '../../src/pipeline/image_types.js';
import { SHIPPED_T5, shippedModel } from '../../src/pipeline/shipped_model.js';
import { judgePicture, type Judgement, type Palette, type Scene } from './scorer.js';

const here = dirname(fileURLToPath(import.meta.url));

export interface HeldOut {
  readonly palette: Palette;
  readonly prompts: readonly (Scene & { readonly prompt: string })[];
}

export const heldOut = JSON.parse(readFileSync(join(here, 'held_out.json'), 'utf8')) as HeldOut;

export interface Judged {
  readonly prompt: string;
  readonly scene: Scene;
  readonly picture: Picture;
  readonly judgement: Judgement;
}

/** One picture of every prompt, at the default settings; the prompt's number is its seed. */
export async function judgePrompts(
  pipeline: ImagePipeline,
  prompts: HeldOut['prompts'],
  options: GenerateOptions = {},
): Promise<Judged[]> {
  const judged: Judged[] = [];
  for (const [seed, { prompt, ...scene }] of prompts.entries()) {
    const { pictures } = await pipeline.generate(prompt, { seed, ...options });
    const { picture } = pictures[0]!;
    judged.push({ prompt, scene, picture, judgement: judgePicture(picture, scene, heldOut.palette) });
  }
  return judged;
}

/** Shares of 1. */
export interface Score {
  readonly all: number;
  readonly one: number;
  readonly two: number;
  readonly background: number;
  readonly colour: number;
  readonly shape: number;
  readonly size: number;
  readonly position: number;
}

export function scoreOf(judged: readonly Judged[]): Score {
  const share = (values: readonly boolean[]): number => values.filter(Boolean).length / values.length;
  const correct = (list: readonly Judged[]): number => share(list.map(({ judgement }) => judgement.correct));
  const objects = judged.flatMap(({ judgement }) => judgement.objects);
  return {
    all: correct(judged),
    one: correct(judged.filter(({ scene }) => scene.objects.length === 1)),
    two: correct(judged.filter(({ scene }) => scene.objects.length === 2)),
    background: share(judged.map(({ judgement }) => judgement.background)),
    colour: share(objects.map(({ colour }) => colour)),
    shape: share(objects.map(({ shape }) => shape)),
    size: share(objects.map(({ size }) => size)),
    position: share(objects.map(({ position }) => position)),
  };
}

/** Mean PSNR against the first contender's pictures of the same prompts and seeds, dB; equal ones are left out. */
function meanPsnr(judged: readonly Judged[], reference: readonly Judged[]): number {
  const values = judged
    .map(({ picture }, i) => pictureDistance(picture, reference[i]!.picture).psnr)
    .filter(Number.isFinite);
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : Infinity;
}

interface Contender {
  readonly name: string;
  readonly t5: EncoderChoice;
}

function contenders(): Contender[] {
  const list: Contender[] = [];
  for (const [name, choice] of Object.entries(SHIPPED_T5)) {
    const folder = choice().path;
    list.push({ name: `${name} F16`, t5: { path: folder } });
    list.push({ name: `${name} F16, int8`, t5: { path: folder, precision: 'int8' } });
    for (const type of ['Q8_0', 'Q4_0']) {
      const path = `${folder}-${type}.gguf`;
      if (existsSync(path)) list.push({ name: `${name} ${type}`, t5: { path } });
    }
  }
  return list;
}

async function main(args: readonly string[]): Promise<void> {
  await using pipeline = await ImagePipeline.load(shippedModel());
  let reference: Judged[] | undefined;
  const rows: Record<string, string | number>[] = [];
  for (const { name, t5 } of contenders()) {
    const judged = await judgePrompts(pipeline, heldOut.prompts, { encoders: { t5 } });
    reference ??= judged;
    const percent = Object.entries(scoreOf(judged)).map(
      ([key, value]) => [key, Number((100 * value).toFixed(1))] as const,
    );
    rows.push({
      t5: name,
      ...Object.fromEntries(percent),
      psnr: Number(meanPsnr(judged, reference).toFixed(1)),
    });
    console.log(rows.at(-1));
  }
  console.table(rows);
  const json = args[args.indexOf('--json') + 1];
  if (args.includes('--json') && json) writeFileSync(json, `${JSON.stringify(rows, null, 2)}\n`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href)
  await main(process.argv.slice(2));
