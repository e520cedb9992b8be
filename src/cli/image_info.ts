/** How a picture was made, for the texts inside its PNG. */
import { metadataTexts, type GenerationInfo, type PartInfo } from '../image/index.js';
import type { RunSettings } from '../pipeline/image_types.js';
import type { ImageCommandOptions } from './image_options.js';
import { kotobaVersion } from './version.js';

export interface PictureOrigin {
  readonly prompt: string;
  readonly seed: bigint;
  readonly settings: RunSettings;
  readonly options: Pick<
    ImageCommandOptions,
    'negative' | 'dialect' | 't5Length' | 'clipSkip' | 'shift' | 'slg' | 'mask'
  >;
  readonly parts: Readonly<Record<string, PartInfo>>;
  readonly device: string;
}

/** keyword → text, for writePng. */
export function pictureTexts(origin: PictureOrigin): Map<string, string> {
  const { prompt, seed, settings, options, parts, device } = origin;
  const { width, height, profile, preset, steps, sampler, schedule, sigmas, guidance, cfg, noise, strength } =
    settings;
  const { scale, layers } = options.slg ?? {};
  const skipLayers = scale !== undefined && { scale, ...(layers && { layers }) };
  const info: GenerationInfo = {
    prompt,
    ...(options.negative !== undefined && { negativePrompt: options.negative }),
    seed: Number.isSafeInteger(Number(seed)) ? Number(seed) : seed,
    width,
    height,
    steps,
    solver: sampler,
    schedule,
    sigmas,
    cfg,
    ...(guidance !== undefined && { guidance }),
    ...(strength !== undefined && { strength }),
    ...(options.mask !== undefined && { masked: true }),
    ...(skipLayers && { skipLayers }),
    noise: noise === 'torch' ? 'cpu' : 'philox',
    device,
    profile,
    ...(preset !== 'base' && { preset }),
    ...(options.clipSkip !== undefined && { clipSkip: options.clipSkip }),
    ...(options.shift !== undefined && { shift: options.shift }),
    ...(options.dialect && { dialect: options.dialect }),
    ...(options.t5Length && { t5Length: String(options.t5Length.t5Length ?? options.t5Length.maxLength) }),
    parts,
    version: kotobaVersion(),
  };
  return metadataTexts(info);
}
