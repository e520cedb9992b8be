/**
 * Where a network goes in a checkpoint that has none: under the prefix and the names that other programs look for in its
 * kind. SD1's, SD2's and SDXL's are Stability AI's; SD3's and Flux's are those of ComfyUI's all-in-one files.
 */
import { KotobaError } from '../errors.js';
import {
  isDenoiser,
  openAiClipEntries,
  type Part,
  type Slot,
  type TensorInfo,
  type TensorSource,
} from '../formats/index.js';
import type { Place } from './replace.js';

interface Vacancy {
  readonly prefix: string;
  readonly names?: 'open_clip';
  /** a projection has no place there */
  readonly drops?: string;
}

const TEXT_PROJECTION = 'text_projection.weight';
const COMBINED = {
  clip_l: { prefix: 'text_encoders.clip_l.transformer.' },
  t5: { prefix: 'text_encoders.t5xxl.transformer.' },
} as const;
const VACANCIES: Readonly<Partial<Record<string, Readonly<Partial<Record<Slot, Vacancy>>>>>> = {
  sd1: {
    clip_l: { prefix: 'cond_stage_model.transformer.', drops: TEXT_PROJECTION },
    vae: { prefix: 'first_stage_model.' },
  },
  sd2: {
    clip_h: { prefix: 'cond_stage_model.model.', names: 'open_clip' },
    vae: { prefix: 'first_stage_model.' },
  },
  sdxl: {
    clip_l: { prefix: 'conditioner.embedders.0.transformer.', drops: TEXT_PROJECTION },
    clip_g: { prefix: 'conditioner.embedders.1.model.', names: 'open_clip' },
    vae: { prefix: 'first_stage_model.' },
  },
  sd3: {
    ...COMBINED,
    clip_g: { prefix: 'text_encoders.clip_g.transformer.' },
    vae: { prefix: 'first_stage_model.' },
  },
  flux: { ...COMBINED, vae: { prefix: 'vae.' } },
};

/**
 * @param parts what the checkpoint holds; its denoiser tells its kind
 * @returns undefined where the file is no checkpoint, or its kind has no such place
 * @throws KotobaError ERR_MODEL_TENSORS for a text encoder whose states the denoiser cannot take
 */
export function vacantPlace(parts: readonly Part[], slot: Slot, by: Part): Place | undefined {
  const denoiser = parts.find(isDenoiser);
  const vacancy = denoiser && VACANCIES[denoiser.family]?.[slot];
  if (!vacancy || denoiser.prefix !== 'model.diffusion_model.') return undefined;
  requireWidth(denoiser, by);
  const { prefix, names, drops } = vacancy;
  const canonical = new Map([...by.tensors].filter(([name]) => name !== drops));
  return {
    family: by.family,
    path: denoiser.path,
    description: `${denoiser.description}: its ${slot}`,
    prefix,
    tensors: names === 'open_clip' ? openClip(by, prefix, canonical) : asCanonical(by, prefix, canonical),
  };
}

function requireWidth(denoiser: Part, by: Part): void {
  if (by.family !== 't5') return;
  const { config } = denoiser;
  const wanted =
    'context_in_dim' in config ? config.context_in_dim : 'context_dim' in config ? config.context_dim : 0;
  if (wanted !== by.config.d_model)
    throw new KotobaError(
      'ERR_MODEL_TENSORS',
      `${by.path}: ${by.description}: is ${by.config.d_model} wide: expected ${wanted}, which is what ` +
        `${denoiser.description} in ${denoiser.path} takes`,
    );
}

type Sources = ReadonlyMap<string, TensorSource>;

/** A tensor that is to be: nothing but its name and shape is looked at. */
const future = (by: Part, name: string, shape: readonly number[]): TensorInfo => ({
  name,
  shape,
  dtype: 'F32',
  path: by.path,
  offset: 0,
  bytes: 0,
});

const asCanonical = (by: Part, prefix: string, tensors: Sources): Sources =>
  new Map(
    [...tensors].map(([name, { shape }]) => [name, { tensor: future(by, prefix + name, shape), shape }]),
  );

/** q, k and v as thirds of one matrix, the projection turned round. */
function openClip(by: Part, prefix: string, tensors: Sources): Sources {
  const layers = by.family === 'clip' ? by.config.num_hidden_layers : 0;
  const places = new Map<string, TensorSource>();
  for (const { canonical, storedAs } of openAiClipEntries(layers)) {
    const shape = tensors.get(canonical)?.shape;
    if (!shape) continue;
    const { file, third, transposed } = storedAs.at(-1)!;
    const [height = 1, ...inner] = shape;
    const whole = third === undefined ? shape : [3 * height, ...inner];
    const tensor = future(by, prefix + file, transposed ? [...whole].reverse() : whole);
    places.set(canonical, {
      tensor,
      ...(third !== undefined && { rows: [third * height, (third + 1) * height] as const }),
      ...(transposed && { transposed }),
      shape,
    });
  }
  return places;
}
