/** What a user does with a file: open, identify, select, load, use. Right results or coded errors only. */
import { join } from 'node:path';
import type { EncodedTokens } from '../../src/encoders/encode_tokens.js';
import { KotobaError } from '../../src/errors.js';
import {
  isDenoiser,
  SLOTS,
  identify,
  leftovers,
  openModel,
  selectPart,
  type ModelFile,
} from '../../src/formats/index.js';
import { TextEncoder } from '../../src/pipeline/text_encoder.js';
import type { Device } from '../../src/runtime/device.js';
import { loadT5Tokenizer } from '../../src/text/index.js';
import { readAndScale, runPipeline, runDenoiser, runVae } from './image_chain.js';
import { below, pick, type Random } from './mutate.js';
import type { Sample } from './sample.js';

/** How far a file came. */
export type Stage = 'refused' | 'selected' | 'encoded';

export interface Verdict {
  readonly stage: Stage;
  /** The error's code, or `ok`. */
  readonly outcome: string;
}

const kPrompts = [
  '',
  "a sparrow on a girl's hand",
  '\ud83d\0 \u202e漢字 ﬁ',
  '<extra_id_0></s>',
  'x'.repeat(300),
];

/** @throws anything that is not a KotobaError: a finding */
export async function runChain(
  sample: Sample,
  dir: string,
  devices: readonly Device[],
  random: Random,
): Promise<Verdict> {
  let stage: Stage = 'refused';
  try {
    if (sample.kind === 'tokenizer') {
      await tokenize(join(dir, sample.open), random);
      return { stage: 'encoded', outcome: 'ok' };
    }
    const path = join(dir, sample.open);
    if (sample.kind === 'picture') {
      await readAndScale(path, random);
      return { stage: 'encoded', outcome: 'ok' };
    }
    const model = openModel(path);
    const slot = chooseSlot(model, random);
    const options = { ...(slot && { slot }), ...(sample.config && { config: sample.config }) };
    const part = selectPart(model, options);
    stage = 'selected';
    const device = pick(devices, random);
    if (sample.pipeline && random() < 0.5) await runPipeline(sample.pipeline, path, device, random);
    else if (part.slot === 'vae') await runVae(part, device, random);
    else if (isDenoiser(part)) await runDenoiser(part, device, random);
    else await encode(path, options, device, random);
    return { stage: 'encoded', outcome: 'ok' };
  } catch (error) {
    if (!(error instanceof KotobaError) || error.message === '') throw error;
    return { stage, outcome: error.code };
  }
}

async function tokenize(path: string, random: Random): Promise<void> {
  const specialTokens = random() < 0.5 ? ('text' as const) : ('recognise' as const);
  const tokenizer = await loadT5Tokenizer({ explicitPath: path, specialTokens });
  const { ids } = tokenizer.encode(pick(kPrompts, random));
  const bad = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < tokenizer.vocabularySize));
  if (bad !== undefined) throw new RangeError(`the tokenizer gave the id ${bad}`);
}

/** One of its encoders, if it has several, or now and then a wrong one. */
function chooseSlot(model: ModelFile, random: Random) {
  const parts = identify(model);
  leftovers(model, parts);
  const encoders = parts.filter(({ family }) => family === 'clip' || family === 't5');
  if (random() < 0.05) return pick(SLOTS, random);
  return encoders.length > 1 ? pick(encoders, random).slot : undefined;
}

async function encode(
  path: string,
  options: { slot?: (typeof SLOTS)[number]; config?: Readonly<Record<string, unknown>> },
  device: Device,
  random: Random,
): Promise<void> {
  const precision = random() < 0.5 ? 'fp32' : 'int8';
  await using encoder = await TextEncoder.load(path, { ...options, input: 'ids', device, precision });
  const { positions, vocabulary, width, depth, projection } = encoder.network;
  const tokens = 1 + below(random, Math.min(positions, 12));
  const batch = 1 + below(random, 2);
  const outside = random() < 0.02;
  const ids = Int32Array.from({ length: batch * tokens }, () => below(random, vocabulary));
  if (outside) ids[below(random, ids.length)] = pick([-1, vocabulary, 0x7fffffff], random);
  const encoded = await encoder.encodeTokens({ ids, batch }, { raw: [0, depth] });
  if (outside) throw new RangeError('an id outside the table was encoded');
  checkResult(encoded, batch * tokens * width, batch * width, batch * projection);
  if (random() < 0.2) await encodePrompt(encoder, random);
}

/** The tokenizer of these weights, where they have one, with ids that the table may not have. */
async function encodePrompt(encoder: TextEncoder, random: Random): Promise<void> {
  if (encoder.part.family === 'clip') return; // its vocabulary of 49408 is built in and fits none of the samples
  await encoder.encode(pick(kPrompts, random), { layout: { minLength: 16, maxLength: 64 } });
}

function checkResult(encoded: EncodedTokens, hidden: number, pooled: number, projected: number): void {
  const all: (readonly [string, Float32Array | undefined, number])[] = [
    ['the last hidden state', encoded.lastHiddenState, hidden],
    ...[...encoded.raw].map(([i, values]) => [`hidden state ${i}`, values, hidden] as const),
    ['the pooled state', encoded.pooled, pooled],
    ['the projection', encoded.projected, projected],
  ];
  for (const [what, values, length] of all) {
    if (values === undefined) continue;
    if (values.length !== length) throw new RangeError(`${what} has ${values.length} values, not ${length}`);
    if (!values.every((value) => Number.isFinite(value)))
      throw new RangeError(`${what} is not finite, and nothing said so`);
  }
}
