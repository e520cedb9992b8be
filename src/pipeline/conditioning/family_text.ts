/** A prompt as a family of image models is conditioned on it: see text_rules.ts, profiles.ts and join_encoders.ts. */
import { KotobaError } from '../../errors.js';
import type { PromptDialect } from '../../text/index.js';
import type { Conditioner, EncodedText, TextRequest } from './conditioner.js';
import type {
  Conditioning,
  DenoiserPart,
  EncodedPrompt,
  EncoderChoice,
  EncoderChoices,
  EncoderSlot,
  EncoderStates,
  GenerateOptions,
  GenerateProgress,
} from '../image_types.js';
import { concatenate } from '../token_rows.js';
import { chunksToFill, emphasizeSides, joinedRows, sideBySide } from './join_encoders.js';
import { profileFor, type ProfileRules, type T5Rules } from './profiles.js';
import { clipPromptLayout, t5PromptLayout, trainedTokens } from './prompt_layout.js';
import {
  TEXT_RULES,
  textFamily,
  type ClipEncoderSlot,
  type ClipRules,
  type TextFamily,
  type TextRules,
} from './text_rules.js';

/** The prompt, and the negative prompt where there is guidance against one. */
export type PromptText = Pick<EncodedPrompt, 'conditioning' | 'negative'>;

export interface TextTask {
  readonly conditioner: Conditioner;
  /** Those that requireEncoders() lets through. */
  readonly encoders: EncoderChoices;
  readonly denoiser: DenoiserPart;
  readonly options: GenerateOptions;
  /** Classifier-free guidance, settled: 1 is none, and then the negative prompt is not encoded. */
  readonly cfg: number;
  readonly report: (progress: GenerateProgress) => void;
}

/**
 * Encodes the prompt and its negative, encoder by encoder, so that each is loaded once where only one may be loaded.
 * @throws (rejects) KotobaError ERR_ARGUMENT for an unknown profile, a missing encoder or a clipSkip without effect;
 *   what Conditioner.encode throws
 */
export async function encodeText(prompt: string, task: TextTask): Promise<PromptText> {
  const reading = readingOf(task);
  const { negativePrompt } = task.options;
  const zeroes = reading.profile.zeroEmptyNegative[reading.family];
  const isZero = zeroes === 'empty' ? !negativePrompt : zeroes === 'unset' && negativePrompt === undefined;
  const hasNegative = task.cfg !== 1;
  const prompts = hasNegative && !isZero ? [prompt, negativePrompt ?? ''] : [prompt];
  const [conditioning, encoded] = await encodePrompts(prompts, reading);
  if (!hasNegative) return { conditioning: conditioning! };
  return { conditioning: conditioning!, negative: encoded ?? zeroed(conditioning!) };
}

/**
 * T5 tokens of one prompt, at least: for memory estimates; 0 without T5.
 * @throws KotobaError ERR_ARGUMENT
 */
export function textTokens({
  denoiser,
  options,
  encoders,
}: Pick<TextTask, 'denoiser' | 'options' | 'encoders'>): number {
  const family = textFamily(denoiser);
  if (TEXT_RULES[family].t5 === 'none' || !encoders.t5) return 0;
  const rules = t5RulesOf(profileFor(denoiser, options.profile).rules, family);
  const surroundings = { trained: trainedTokens(denoiser), clipRows: FIRST_CHUNK };
  return t5PromptLayout(rules, surroundings, options.t5Length).minLength ?? 1;
}

/** Rows of the CLIPs of a short prompt. */
const FIRST_CHUNK = 77;

/** What a task comes to. */
interface Reading extends TextTask {
  readonly family: TextFamily;
  readonly rules: TextRules;
  readonly profile: ProfileRules;
  readonly dialect: PromptDialect;
}

/** @throws KotobaError ERR_ARGUMENT */
function readingOf(task: TextTask): Reading {
  const { denoiser, options } = task;
  const { rules: profile } = profileFor(denoiser, options.profile);
  const family = textFamily(denoiser);
  const rules = TEXT_RULES[family];
  if (options.clipSkip !== undefined && !rules.attendsClip)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `clipSkip: expected none for ${rules.title}, which takes CLIP's pooled vector only, got ${options.clipSkip}`,
    );
  return { ...task, family, rules, profile, dialect: options.dialect ?? profile.dialect };
}

/** Zeros in the place of a negative prompt. Their number has no effect, as attending to zeros gives zero. */
const zeroed = ({ hidden, tokens, pooled }: Conditioning): Conditioning => ({
  hidden: new Float32Array(hidden.length),
  tokens,
  pooled: pooled && new Float32Array(pooled.length),
  states: {},
});

type ClipTexts = ReadonlyMap<ClipEncoderSlot, EncodedText>;

async function encodePrompts(prompts: readonly string[], reading: Reading): Promise<Conditioning[]> {
  const { rules, encoders } = reading;
  const clips = prompts.map(() => new Map<ClipEncoderSlot, EncodedText>());
  for (const clip of rules.clips)
    for (const [i, prompt] of prompts.entries())
      clips[i]!.set(clip.slot, await encodeClip(prompt, clip, reading));
  const contexts = [];
  for (const texts of clips) contexts.push(await clipContext(texts, reading));
  const conditionings: Conditioning[] = [];
  for (const [i, prompt] of prompts.entries()) {
    const context = contexts[i]!;
    const t5 = encoders.t5 && rules.t5 !== 'none' ? await encodeT5(prompt, context.rows, reading) : undefined;
    conditionings.push(assemble(clips[i]!, context, t5, reading));
  }
  return conditionings;
}

async function encodeClip(prompt: string, clip: ClipRules, reading: Reading): Promise<EncodedText> {
  const { dialect, profile, options } = reading;
  const { slot, norm, layersWithoutLast } = clip;
  return await encode(reading, {
    ...{ slot, prompt, dialect, norm, layersWithoutLast },
    weighting: hasOneMean(reading) ? 'none' : 'applied',
    layout: clipPromptLayout(clip, profile, dialect),
    clipSkip: options.clipSkip ?? clip.clipSkip,
    clipFlavour: profile.clipFlavour,
  });
}

async function encodeT5(prompt: string, clipRows: number, reading: Reading): Promise<EncodedText> {
  const { dialect, profile, denoiser, options, family } = reading;
  const rules = t5RulesOf(profile, family);
  const layout = t5PromptLayout(rules, { trained: trainedTokens(denoiser), clipRows }, options.t5Length);
  return await encode(reading, { slot: 't5', prompt, dialect, weighting: rules.weighting, layout });
}

async function encode(reading: Reading, request: Omit<TextRequest, 'choice'>): Promise<EncodedText> {
  const { conditioner, options, report } = reading;
  const { slot: detail } = request;
  return await conditioner.encode(
    { ...request, choice: choiceOf(reading, detail) },
    {
      signal: options.signal,
      onLayer: (done, total) => report({ phase: 'encode', done, total, detail }),
    },
  );
}

/** @throws KotobaError ERR_ARGUMENT */
function choiceOf({ encoders, rules }: Reading, slot: EncoderSlot): EncoderChoice {
  const choice = encoders[slot];
  if (choice) return choice;
  throw new KotobaError(
    'ERR_ARGUMENT',
    `${slot}: expected the encoder, which ${rules.title} needs, got none`,
  );
}

const t5RulesOf = (profile: ProfileRules, family: TextFamily): T5Rules =>
  profile.t5[family === 'flux' ? 'flux' : 'sd3'];

/** A1111 weights SD3's CLIPs side by side: see emphasizeTogether(). */
const hasOneMean = ({ dialect, family }: Reading): boolean => dialect === 'a1111' && family === 'sd3';

interface ClipContext {
  readonly rows: number;
  /** of each CLIP, weights applied, `rows` of them at least */
  readonly columns: readonly (EncoderStates & { readonly slot: ClipEncoderSlot })[];
}

async function clipContext(texts: ClipTexts, reading: Reading): Promise<ClipContext> {
  const slots = [...texts.keys()];
  const sides = [...texts.values()];
  const weighted = hasOneMean(reading) ? emphasizeSides(sides) : sides.map(({ hidden }) => hidden);
  const rows = joinedRows(sides);
  const columns = [];
  for (const [i, side] of sides.entries()) {
    const fill = chunksToFill(side, rows);
    const clip = reading.rules.clips[i]!;
    const empty = fill > 0 ? [(await encodeClip('', clip, reading)).hidden] : [];
    const values = concatenate([weighted[i]!, ...new Array<Float32Array[]>(fill).fill(empty).flat()]);
    columns.push({ slot: slots[i]!, width: side.width, values });
  }
  return { rows, columns };
}

function assemble(
  clips: ClipTexts,
  context: ClipContext,
  t5: EncodedText | undefined,
  reading: Reading,
): Conditioning {
  const { rules, denoiser } = reading;
  const width = denoiser.family === 'flux' ? denoiser.config.context_in_dim : denoiser.config.context_dim;
  const ofClips = rules.attendsClip
    ? [
        sideBySide(
          context.columns.map(({ values, width: w }) => ({ hidden: values, width: w })),
          context.rows,
          width,
        ),
      ]
    : [];
  const ofT5 = t5?.hidden ?? new Float32Array(width * absentRows(reading, context.rows));
  const hidden = concatenate([...ofClips, ...(ofT5.length > 0 ? [ofT5] : [])]);
  return {
    hidden,
    tokens: hidden.length / width,
    pooled: pooledOf(clips, reading),
    states: statesOf(clips, context, t5, reading),
    truncated: truncatedOf(clips, t5, reading),
  };
}

/** Rows of zeros where there is no T5. */
function absentRows({ rules, profile, family }: Reading, clipRows: number): number {
  if (rules.t5 === 'none') return 0;
  const { absent } = t5RulesOf(profile, family);
  return absent === 'clip' ? clipRows : absent;
}

function pooledOf(clips: ClipTexts, { rules, family, profile }: Reading): Float32Array | undefined {
  if (rules.pooled.length === 0) return undefined;
  const vectors = rules.pooled.map(({ slot, kind }) => {
    const { pooled, projected } = clips.get(slot)!;
    const wanted = family === 'sd3' && slot === 'clip_l' ? profile.sd3ClipL : kind;
    return (wanted === 'projected' ? projected : undefined) ?? pooled!;
  });
  return concatenate(vectors);
}

function statesOf(
  clips: ClipTexts,
  { columns }: ClipContext,
  t5: EncodedText | undefined,
  { rules }: Reading,
): Conditioning['states'] {
  const states: Partial<Record<EncoderSlot, EncoderStates>> = {};
  for (const { slot, values, width } of columns) {
    const { pooled } = clips.get(slot)!;
    states[slot] = rules.attendsClip ? { values, width } : { values: pooled!, width: pooled!.length };
  }
  if (t5) states.t5 = { values: t5.hidden, width: t5.width };
  return states;
}

/** A vector that is all of a CLIP that is used knows the first chunk only. */
function truncatedOf(
  clips: ClipTexts,
  t5: EncodedText | undefined,
  { rules }: Reading,
): Conditioning['truncated'] {
  const lost: Partial<Record<EncoderSlot, number>> = {};
  for (const [slot, { truncated, afterFirst }] of clips) {
    const count = truncated + (rules.attendsClip ? 0 : afterFirst);
    if (count > 0) lost[slot] = count;
  }
  if (t5 && t5.truncated > 0) lost.t5 = t5.truncated;
  return lost;
}
