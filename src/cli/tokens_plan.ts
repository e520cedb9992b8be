/** Which encoders `kotoba tokens` shows, and how each is read: as asked for, else as a model and a profile read it. */
import { KotobaError } from '../errors.js';
import { openModel, selectPart } from '../formats/index.js';
import { findModel, modelDirs } from '../pipeline/find_model.js';
import type { EncoderSlot, Profile } from '../pipeline/image_types.js';
import { profileFor, type ProfileRules } from '../pipeline/conditioning/profiles.js';
import { clipPromptLayout, t5PromptLayout, TRAINED_TOKENS } from '../pipeline/conditioning/prompt_layout.js';
import { TEXT_RULES, type TextFamily, type TextRules } from '../pipeline/conditioning/text_rules.js';
import {
  chunkLayout,
  clipTokenizer,
  loadClipTokenizer,
  loadT5Tokenizer,
  type ChunkLayout,
  type ClipFlavour,
  type EncoderFamily,
  type Overflow,
  type PromptDialect,
  type Tokenizer,
} from '../text/index.js';
import type { T5LengthValue } from './options.js';

export const FAMILIES = ['clip-l', 'clip-g', 'clip-h', 'long-clip-l', 't5'] as const;

/** Models by what their text encoders are. */
export const MODELS = {
  sd1: 'sd1',
  sd2: 'sd2',
  sdxl: 'sdxl',
  'sdxl-refiner': 'sdxl_refiner',
  sd3: 'sd3',
  'flux-dev': 'flux',
  'flux-schnell': 'flux',
} as const satisfies Readonly<Record<string, TextFamily>>;
export type ModelName = keyof typeof MODELS;
const TRAINED: Readonly<Partial<Record<ModelName, number>>> = {
  sd3: TRAINED_TOKENS.sd3,
  'flux-dev': TRAINED_TOKENS.dev,
  'flux-schnell': TRAINED_TOKENS.schnell,
};

export interface PlanOptions {
  readonly family?: readonly EncoderFamily[];
  readonly for?: ModelName;
  readonly profile?: Profile;
  readonly clipL?: string;
  readonly clipG?: string;
  readonly t5?: string;
  readonly t5Tokenizer?: string;
  readonly clipFlavour?: ClipFlavour;
  readonly dialect?: PromptDialect;
  readonly overflow?: Overflow;
  readonly t5Length?: T5LengthValue;
  readonly modelsDir: readonly string[];
}

export interface PlannedEncoder {
  readonly family: EncoderFamily;
  readonly tokenizer: Tokenizer;
  /** @param clipRows rows that the CLIPs before it have for the prompt */
  readonly layout: (clipRows: number) => ChunkLayout;
}

export interface TokensPlan {
  readonly dialect: PromptDialect;
  /** CLIPs first. */
  readonly encoders: readonly PlannedEncoder[];
  /** With --for: how the encoders are joined. */
  readonly model?: { readonly rules: TextRules; readonly family: TextFamily } | undefined;
  readonly profile?: ProfileRules | undefined;
}

type Env = Readonly<Record<string, string | undefined>>;

/** @throws KotobaError ERR_ARGUMENT, ERR_TOKENIZER_*, and what opening a file throws */
export async function planTokens(options: PlanOptions, env: Env): Promise<TokensPlan> {
  const textFamily = options.for && MODELS[options.for];
  const isKnown = options.profile !== undefined || textFamily !== undefined;
  const profile = isKnown
    ? profileFor({ family: textFamily === 'flux' ? 'flux' : 'sd1' }, options.profile).rules
    : undefined;
  const dialect = options.dialect ?? profile?.dialect ?? 'plain';
  const reading = { options, profile, dialect, textFamily, env };
  const rules = textFamily && TEXT_RULES[textFamily];
  const encoders: PlannedEncoder[] = [];
  for (const family of familiesOf(options, rules))
    encoders.push(family === 't5' ? await planT5(reading) : await planClip(family, reading));
  return { dialect, encoders, profile, model: rules && { rules, family: textFamily! } };
}

const slotOf = (family: EncoderFamily): EncoderSlot =>
  family === 'long-clip-l' ? 'clip_l' : (family.replace('-', '_') as EncoderSlot);
const familyOf = (slot: EncoderSlot): EncoderFamily => slot.replace('_', '-') as EncoderFamily;

/** Each once: a model's in its order, else in the order given. */
function familiesOf(options: PlanOptions, rules: TextRules | undefined): EncoderFamily[] {
  const { family = [], clipL, clipG, t5, t5Tokenizer } = options;
  const hasT5 = t5 !== undefined || t5Tokenizer !== undefined;
  const asked = new Set<EncoderFamily>([
    ...family,
    ...(clipL !== undefined && !family.includes('long-clip-l') ? (['clip-l'] as const) : []),
    ...(clipG === undefined ? [] : (['clip-g'] as const)),
    ...(hasT5 ? (['t5'] as const) : []),
  ]);
  if (!rules) {
    const isT5Alone = family.length === 0 && clipL === undefined && clipG === undefined;
    return isT5Alone ? ['clip-l', ...asked] : [...asked];
  }
  const slots: EncoderSlot[] = [
    ...rules.clips.map(({ slot }) => slot),
    ...(rules.t5 === 'none' ? [] : ['t5' as const]),
  ];
  const odd = [...asked].find((one) => !slots.includes(slotOf(one)));
  if (odd)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `--for: ${rules.title} takes ${slots.map(familyOf).join(' and ')}, got ${odd}`,
    );
  return slots.flatMap((slot) => {
    const own = [...asked].find((one) => slotOf(one) === slot);
    return own ?? (slot === 't5' ? [] : familyOf(slot)); // T5's vocabulary must be given
  });
}

interface Reading {
  readonly options: PlanOptions;
  readonly profile: ProfileRules | undefined;
  readonly dialect: PromptDialect;
  readonly textFamily: TextFamily | undefined;
  readonly env: Env;
}

async function planClip(named: EncoderFamily, reading: Reading): Promise<PlannedEncoder> {
  const { options, profile, dialect } = reading;
  const flavour = options.clipFlavour ?? profile?.clipFlavour ?? 'openai';
  const slot = slotOf(named);
  const file = { clip_l: options.clipL, clip_g: options.clipG, clip_h: undefined, t5: undefined }[slot];
  const own = file === undefined ? undefined : await clipOfFile(slot, file, flavour, reading);
  const { family = named, tokenizer = clipTokenizer({ flavour }), lengths = {} } = own ?? {};
  const { padId } = chunkLayout(family);
  const rules = profile
    ? clipPromptLayout({ padId }, profile, dialect)
    : dialect === 'comfyui'
      ? ({ rules: 'comfyui' } as const)
      : {};
  const overflow = options.overflow && { overflow: options.overflow };
  const layout = chunkLayout(family, { ...rules, ...lengths, ...overflow });
  return { family, tokenizer, layout: () => layout };
}

/** The vocabulary and the length of a file's CLIP. */
async function clipOfFile(slot: EncoderSlot, name: string, flavour: ClipFlavour, { options, env }: Reading) {
  const path = findModel(name, modelDirs(options.modelsDir, env));
  const part = selectPart(openModel(path), { slot, allowUndecided: true });
  if (part.family !== 'clip')
    throw new KotobaError('ERR_MODEL_SLOT', `${path}: expected a CLIP, got ${part.description}`);
  const { vocab_size: rows, eos_token_id: eosId, max_position_embeddings: length } = part.config;
  const tokenizer = await loadClipTokenizer({ weights: part.path, rows, eosId, flavour });
  const family: EncoderFamily = part.slot === 'longclip_l' ? 'long-clip-l' : familyOf(slot);
  return { family, tokenizer, lengths: { minLength: length, maxLength: length } };
}

async function planT5(reading: Reading): Promise<PlannedEncoder> {
  const { options, profile, dialect, textFamily } = reading;
  const { t5Length, overflow } = options;
  const rules = profile && t5RulesOf(profile, textFamily);
  const trained = (options.for && TRAINED[options.for]) ?? 1;
  const common = {
    ...(dialect === 'comfyui' && { rules: 'comfyui' as const }),
    ...(overflow && { overflow }),
  };
  return {
    family: 't5',
    tokenizer: await t5TokenizerOf(reading),
    layout: (clipRows) =>
      chunkLayout('t5', {
        ...(rules ? t5PromptLayout(rules, { trained, clipRows }, t5Length) : t5Length),
        ...common,
      }),
  };
}

export const t5RulesOf = (profile: ProfileRules, family: TextFamily | undefined) =>
  family === 'sd3' || family === 'flux' ? profile.t5[family] : undefined;

async function t5TokenizerOf({ options, env }: Reading): Promise<Tokenizer> {
  const { t5, t5Tokenizer, modelsDir } = options;
  if (t5Tokenizer !== undefined) return await loadT5Tokenizer({ explicitPath: t5Tokenizer });
  if (t5 === undefined)
    throw new KotobaError(
      'ERR_TOKENIZER_MISSING',
      '--family t5: expected --t5 with the weights, or --t5-tokenizer with spiece.model or tokenizer.json',
    );
  const model = openModel(findModel(t5, modelDirs(modelsDir, env)));
  return await loadT5Tokenizer({
    ...(model.container === 'gguf' && { metadata: model.metadata }),
    dirs: [model.weightsDir],
    weights: model.path,
  });
}
