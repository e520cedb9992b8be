/** How each family of models wants to be sampled, and those distilled from it to few steps. */
import { basename } from 'node:path';
import { KotobaError } from '../../errors.js';
import type { DenoiserPart } from '../image_types.js';

export interface Preset {
  readonly steps: number;
  readonly sampler: string;
  readonly schedule: string;
  readonly cfg: number;
  /** of square pictures, pixels; absent: as the family was trained */
  readonly side?: number;
}

/** Distilled models by what their files are called: their shapes are those of the base model. */
const DISTILLED = { turbo: /turbo/i, lightning: /lightning/i, lcm: /(^|[^a-z])lcm([^a-z]|$)/i } as const;

export const PRESETS = ['base', ...(Object.keys(DISTILLED) as (keyof typeof DISTILLED)[])] as const;
export type PresetName = (typeof PRESETS)[number];

type Presets = Readonly<Partial<Record<PresetName, Preset>> & { base: Preset }>;

const karras = { steps: 25, sampler: 'dpmpp_2m', schedule: 'karras', cfg: 7 } as const;
/** Adversarial diffusion distillation, arXiv:2311.17042; Stability AI's own sampler for it. */
const adversarial = {
  steps: 4,
  sampler: 'euler_ancestral',
  schedule: 'sd_turbo',
  cfg: 1,
  side: 512,
} as const;
/** arXiv:2402.13929: even timesteps from the last one down. */
const lightning = { steps: 4, sampler: 'euler', schedule: 'sgm_uniform', cfg: 1 } as const;
/** arXiv:2310.04378 */
const consistency = { steps: 4, sampler: 'lcm', schedule: 'sgm_uniform', cfg: 1 } as const;

const FAMILY_PRESETS: Readonly<Record<DenoiserPart['family'], Presets>> = {
  sd1: { base: karras, lightning, lcm: consistency },
  sd2: { base: karras, turbo: adversarial },
  sdxl: { base: karras, turbo: adversarial, lightning, lcm: consistency },
  sd3: {
    base: { steps: 28, sampler: 'dpmpp_2m', schedule: 'normal', cfg: 4.5 },
    turbo: { steps: 4, sampler: 'euler', schedule: 'normal', cfg: 1 },
  },
  flux: { base: { steps: 28, sampler: 'euler', schedule: 'flux', cfg: 1 } },
};
/** Flux.1 [schnell] is told by its tensors. */
const SCHNELL: Preset = { steps: 4, sampler: 'euler', schedule: 'flux', cfg: 1 };

/** Side of the square pictures that a family was trained on, pixels. */
const SIDES: Readonly<Record<DenoiserPart['family'], number>> = {
  sd1: 512,
  sd2: 512,
  sdxl: 1024,
  sd3: 1024,
  flux: 1024,
};

export const familySide = (part: DenoiserPart): number =>
  part.family === 'sd2' && part.config.prediction === 'v' ? 768 : SIDES[part.family];

/**
 * @param wanted a name of PRESETS; without, by the name of the denoiser's file, its number of steps included
 *   ("sdxl_lightning_8step.safetensors")
 * @throws KotobaError ERR_ARGUMENT for a preset that the family does not have, naming those it has
 */
export function presetFor(part: DenoiserPart, wanted?: string): { name: PresetName; preset: Preset } {
  const presets = FAMILY_PRESETS[part.family];
  if (wanted !== undefined && !Object.hasOwn(presets, wanted))
    throw new KotobaError(
      'ERR_ARGUMENT',
      `preset: expected ${Object.keys(presets).join(', ')} for ${part.description}, got "${wanted}"`,
    );
  const name = (wanted as PresetName | undefined) ?? presetOfFile(part.path, presets);
  if (name === 'base' && part.family === 'flux' && !part.config.guidance_embed)
    return { name, preset: SCHNELL };
  const preset = presets[name]!;
  const steps = name === 'base' ? undefined : stepsOfFile(part.path);
  return { name, preset: { ...preset, ...(steps !== undefined && { steps }) } };
}

function presetOfFile(path: string, presets: Presets): PresetName {
  const file = basename(path);
  const found = Object.entries(DISTILLED).find(
    ([name, pattern]) => Object.hasOwn(presets, name) && pattern.test(file),
  );
  return (found?.[0] as PresetName | undefined) ?? 'base';
}

/** As distilled files are called: "4step", "8-steps". */
function stepsOfFile(path: string): number | undefined {
  const [, steps] = /(?:^|\D)(\d{1,2})[-_ ]?steps?/i.exec(basename(path)) ?? [];
  return steps === undefined || Number(steps) === 0 ? undefined : Number(steps);
}
