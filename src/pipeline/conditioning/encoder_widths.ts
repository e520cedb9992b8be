/** Whether text encoders fit a denoiser: which it takes, and how wide their states and vectors must be. */
import { KotobaError } from '../../errors.js';
import { openModel, selectPart, type ClipPart, type T5Part } from '../../formats/index.js';
import {
  ENCODER_SLOTS,
  type DenoiserPart,
  type EncoderChoice,
  type EncoderChoices,
  type EncoderSlot,
  type ReplacedEncoders,
} from '../image_types.js';
import { TEXT_RULES, textColumns, textFamily, type TextFamily } from './text_rules.js';

export type EncoderParts = Readonly<Partial<Record<EncoderSlot, ClipPart | T5Part>>>;

/** A model's own encoders, and those of a request in their places. */
export function chosenEncoders(own: EncoderChoices, replaced: ReplacedEncoders = {}): EncoderChoices {
  const all = Object.entries({ ...own, ...replaced });
  return Object.fromEntries(all.filter(([, choice]) => choice !== 'none'));
}

interface KnownEncoders {
  /** what belongs in the slot */
  readonly name: string;
  /** Width of the public ones, and their names. */
  readonly width: number;
  readonly fitting: string;
}
const KNOWN: Readonly<Record<EncoderSlot, KnownEncoders>> = {
  clip_l: {
    name: 'CLIP-L or Long-CLIP-L',
    width: 768,
    fitting: 'CLIP-L, CLIP-GmP and Long-CLIP-L',
  },
  clip_g: { name: 'CLIP-G', width: 1280, fitting: 'the CLIP-G (ViT-bigG) of SDXL and SD3' },
  clip_h: { name: 'CLIP-H', width: 1024, fitting: 'the CLIP-H (ViT-H) of SD2' },
  t5: { name: 'T5 or Flan-T5', width: 4096, fitting: 'T5-XXL and Flan-T5-XXL' },
};

/** Which encoders a denoiser takes, in order. */
export function encoderSlots(
  denoiser: DenoiserPart,
): readonly { readonly slot: EncoderSlot; readonly isOptional: boolean }[] {
  const { clips, t5 } = TEXT_RULES[textFamily(denoiser)];
  return [
    ...clips.map(({ slot }) => ({ slot, isOptional: false })),
    ...(t5 === 'none' ? [] : [{ slot: 't5' as const, isOptional: t5 === 'optional' }]),
  ];
}

/**
 * @returns the parts of the encoders given, headers read only
 * @throws KotobaError ERR_ARGUMENT for an encoder that is missing, or one that the denoiser does not take;
 *   ERR_MODEL_SLOT for one that does not fit, saying what would; and what opening throws
 */
export function requireEncoders(choices: EncoderChoices, denoiser: DenoiserPart): EncoderParts {
  const taken = encoderSlots(denoiser);
  for (const slot of ENCODER_SLOTS)
    if (choices[slot] && !taken.some((other) => other.slot === slot))
      throw wrongSlots(denoiser, taken, `none for ${slot}`, choices[slot].path);
  const parts: Partial<Record<EncoderSlot, ClipPart | T5Part>> = {};
  for (const { slot, isOptional } of taken) {
    const choice = choices[slot];
    if (choice) parts[slot] = openEncoder(slot, choice, denoiser);
    else if (!isOptional) throw wrongSlots(denoiser, taken, `${KNOWN[slot].name} for ${slot}`, 'none');
  }
  for (const demand of demandsOf(denoiser)) requireWidth(demand, parts, denoiser);
  return parts;
}

function wrongSlots(
  denoiser: DenoiserPart,
  taken: ReturnType<typeof encoderSlots>,
  expected: string,
  got: string,
): KotobaError {
  const list = taken.map(({ slot, isOptional }) => (isOptional ? `${slot} (optional)` : slot)).join(', ');
  const { title } = TEXT_RULES[textFamily(denoiser)];
  return new KotobaError(
    'ERR_ARGUMENT',
    `text encoders: expected ${expected}, got ${got}: ${denoiser.path} is ${title}, which takes ${list}`,
  );
}

function openEncoder(
  slot: EncoderSlot,
  { path, config }: EncoderChoice,
  denoiser: DenoiserPart,
): ClipPart | T5Part {
  const there = `${denoiser.path} takes ${KNOWN[slot].name} there`;
  try {
    const part = selectPart(openModel(path), { slot, ...(config && { config }) });
    if (part.family === 'clip' || part.family === 't5') return part;
    throw new KotobaError('ERR_MODEL_SLOT', `${path}: got ${part.description}`);
  } catch (error) {
    if (!(error instanceof KotobaError) || error.code !== 'ERR_MODEL_SLOT') throw error;
    throw new KotobaError('ERR_MODEL_SLOT', `${error.message}; ${there}`, { cause: error });
  }
}

/** Columns that encoders must have together. */
interface Demand {
  readonly from: readonly { readonly slot: EncoderSlot; readonly kind: 'states' | 'pooled' | 'projected' }[];
  readonly columns: number;
  /** SD3 fills up with zeros. */
  readonly isMost?: boolean;
}

function demandsOf(denoiser: DenoiserPart): Demand[] {
  const family = textFamily(denoiser);
  const { clips, t5, attendsClip, pooled } = TEXT_RULES[family];
  const { context, vector } = columnsOf(denoiser, family);
  const states = (slot: EncoderSlot) => ({ slot, kind: 'states' as const });
  return [
    ...(attendsClip
      ? [{ from: clips.map(({ slot }) => states(slot)), columns: context, isMost: family === 'sd3' }]
      : []),
    ...(pooled.length > 0 ? [{ from: pooled, columns: vector }] : []),
    ...(t5 === 'none' ? [] : [{ from: [states('t5')], columns: context }]),
  ];
}

/** Columns of what is attended to, and of the text in what modulates. */
function columnsOf(denoiser: DenoiserPart, family: TextFamily): { context: number; vector: number } {
  if (denoiser.family === 'flux') {
    const { context_in_dim, vec_in_dim } = denoiser.config;
    return { context: context_in_dim, vector: vec_in_dim };
  }
  const { context_dim, adm_in_channels } = denoiser.config;
  return { context: context_dim, vector: textColumns(family, adm_in_channels) };
}

function requireWidth(demand: Demand, parts: EncoderParts, denoiser: DenoiserPart): void {
  const given = demand.from.flatMap(({ slot, kind }) => {
    const part = parts[slot];
    return part ? [{ slot, part, kind, width: widthOf(part, kind) }] : [];
  });
  if (given.length === 0) return; // optional
  const sum = given.reduce((total, { width }) => total + width, 0);
  if (sum === demand.columns || (demand.isMost && sum < demand.columns)) return;
  const usual = given.reduce((total, { slot }) => total + KNOWN[slot].width, 0);
  const isUsual = usual === demand.columns || (demand.isMost === true && usual < demand.columns);
  const odd = given.filter(({ slot, width }) => isUsual && width !== KNOWN[slot].width);
  const blamed = odd.length > 0 ? odd : given;
  const takes = isUsual
    ? blamed.map(({ slot }) => `${KNOWN[slot].width} from ${KNOWN[slot].name}`).join(' and ')
    : `${demand.columns} from ${given.map(({ slot }) => KNOWN[slot].name).join(' and ')}`;
  const fitting = isUsual ? `: ${blamed.map(({ slot }) => KNOWN[slot].fitting).join(', ')} fit` : '';
  const gives = blamed.map(
    ({ part, kind, width }) => `${part.path}: ${part.description} gives ${amount(kind, width)}`,
  );
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `${gives.join('; ')}, but ${denoiser.path} takes ${takes}${given.length > 1 && !isUsual ? ' together' : ''}${fitting}`,
  );
}

function widthOf(part: ClipPart | T5Part, kind: Demand['from'][number]['kind']): number {
  if (part.family === 't5') return part.config.d_model;
  return kind === 'projected' ? (part.config.projection_dim ?? 0) : part.config.hidden_size;
}

function amount(kind: Demand['from'][number]['kind'], width: number): string {
  if (kind === 'states') return `${width} values a token`;
  if (kind === 'projected' && width === 0) return 'no projected vector (the file has no text_projection)';
  return `a vector of ${width} values`;
}
