/** Whether text encoders fit a transformer: their widths decide. */
import { KotobaError } from '../errors.js';
import { openModel, selectPart, type ClipPart, type FluxPart, type T5Part } from '../formats/index.js';
import type { EncoderChoice, EncoderChoices, EncoderSlot } from './image_types.js';

/** T5 tokens that each Flux.1 was trained with. */
export const T5_TOKENS = { dev: 512, schnell: 256 } as const;

const NAMES: Readonly<Record<EncoderSlot, string>> = { clip_l: 'CLIP-L or Long-CLIP-L', t5: 'T5 or Flan-T5' };
/** Public encoders by the width of their states. */
const KNOWN_WIDTHS: Readonly<Record<EncoderSlot, ReadonlyMap<number, string>>> = {
  clip_l: new Map([[768, 'CLIP-L, CLIP-GmP and Long-CLIP-L']]),
  t5: new Map([[4096, 'T5-XXL and Flan-T5-XXL']]),
};

export type EncoderParts = Readonly<Record<EncoderSlot, ClipPart | T5Part>>;

/** @throws KotobaError ERR_MODEL_SLOT for an encoder whose states the transformer cannot take, and what opening throws */
export function requireEncoders(choices: EncoderChoices, transformer: FluxPart): EncoderParts {
  const { vec_in_dim, context_in_dim } = transformer.config;
  return {
    clip_l: requireWidth('clip_l', choices.clip_l, vec_in_dim, transformer),
    t5: requireWidth('t5', choices.t5, context_in_dim, transformer),
  };
}

function requireWidth(
  slot: EncoderSlot,
  { path, config }: EncoderChoice,
  width: number,
  transformer: FluxPart,
): ClipPart | T5Part {
  const part = selectPart(openModel(path), { slot, ...(config && { config }) });
  if (part.family !== 'clip' && part.family !== 't5')
    throw new KotobaError('ERR_MODEL_SLOT', `${path}: expected ${NAMES[slot]}, got ${part.description}`);
  const own = part.family === 'clip' ? part.config.hidden_size : part.config.d_model;
  if (own === width) return part;
  const fitting = KNOWN_WIDTHS[slot].get(width);
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `${path}: ${part.description} gives ${own} values a token, but ${transformer.path} takes ${width} from ${NAMES[slot]}` +
      (fitting ? `: ${fitting} fit` : ''),
  );
}
