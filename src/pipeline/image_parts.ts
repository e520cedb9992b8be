/** The files of an image model, opened, and checked against each other. */
import { KotobaError } from '../errors.js';
import {
  openModel,
  selectPart,
  vaeOfFamily,
  type FluxPart,
  type Part,
  type Slot,
  type VaePart,
} from '../formats/index.js';
import type { Device } from '../runtime/device.js';
import type { OpPrecision } from '../runtime/ops.js';
import { requireEncoders, type EncoderParts } from './encoder_widths.js';
import type { EncoderChoices, EncoderSlot, ImageModel, PipelineOptions } from './image_types.js';
import { resolvePrecision } from './precision.js';
import { SIDE_UNIT, isSide } from './request.js';

export interface ImageParts {
  readonly transformer: FluxPart;
  readonly vae: VaePart;
  readonly encoders: EncoderParts;
  /** Of all parts, encoders included. */
  readonly bytes: number;
}

/** @throws KotobaError ERR_FILE_*, ERR_FORMAT_*, ERR_MODEL_*: what is wrong with which file, and what would fit */
export function openParts(model: ImageModel, { config }: PipelineOptions): ImageParts {
  const transformer = openPart(model.transformer, 'transformer', config);
  if (transformer.family !== 'flux' || transformer.slot !== 'transformer')
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `${model.transformer}: expected a Flux.1 transformer, got ${transformer.description}`,
    );
  const vae = fluxVae(model.vae);
  const latents = transformer.config.in_channels / 4;
  if (vae.config.z_channels !== latents)
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `${model.vae}: expected an autoencoder of ${latents} latent channels, which ${model.transformer} was made for, ` +
        `got ${vae.config.z_channels}: take the ae.safetensors of Flux.1`,
    );
  requirePictures(vae);
  const encoders = requireEncoders(model.encoders, transformer);
  const all = [transformer, vae, ...Object.values(encoders)];
  return { transformer, vae, encoders, bytes: all.reduce((sum, part) => sum + part.bytesRead, 0) };
}

function fluxVae(path: string): VaePart {
  const part = openPart(path, 'vae');
  const vae = part.slot === 'vae' ? vaeOfFamily(part, 'flux') : undefined;
  if (vae) return vae;
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `${path}: expected the autoencoder of Flux.1 (ae.safetensors), got ${part.description}`,
  );
}

/** Sides of pictures are counted in patches of two latents, and pictures have three colours. */
function requirePictures({ path, config }: VaePart): void {
  const { ch_mult, in_channels, out_ch, resolution } = config;
  const factor = 2 ** (ch_mult.length - 1);
  if (SIDE_UNIT % (2 * factor) !== 0)
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `${path}: expected an autoencoder of at most ${SIDE_UNIT / 2} pixels a latent, as Flux.1 has, got ${factor}`,
    );
  if (in_channels !== 3 || out_ch !== 3)
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `${path}: expected an autoencoder of three colours, got ${in_channels} in and ${out_ch} out`,
    );
  if (resolution !== undefined && !isSide(resolution))
    throw new KotobaError(
      'ERR_MODEL_CONFIG',
      `${path}: its config says resolution ${resolution}, expected a multiple of ${SIDE_UNIT} pixels that a picture can have`,
    );
}

function openPart(path: string, slot: Slot, config?: Readonly<Record<string, unknown>>): Part {
  return selectPart(openModel(path), { slot, ...(config && { config }) });
}

/** What the parts run at. @throws KotobaError ERR_ARGUMENT for a precision that the device does not have */
export function partPrecisions(
  { precision }: PipelineOptions,
  { transformer, vae }: ImageParts,
  device: Device,
): Readonly<Record<'transformer' | 'vae', OpPrecision>> {
  const wanted = typeof precision === 'object' ? precision : { transformer: precision, vae: precision };
  return {
    transformer: resolvePrecision(wanted.transformer, transformer, device),
    vae: resolvePrecision(wanted.vae, vae, device),
  };
}

/** The same for the encoders. */
export const encoderPrecisions = (
  choices: EncoderChoices,
  parts: EncoderParts,
  device: Device,
): Readonly<Record<EncoderSlot, OpPrecision>> => ({
  clip_l: resolvePrecision(choices.clip_l.precision, parts.clip_l, device),
  t5: resolvePrecision(choices.t5.precision, parts.t5, device),
});

/** What `auto` comes to. @throws KotobaError ERR_ARGUMENT */
export function residency(
  { residency: wanted = 'auto' }: PipelineOptions,
  { bytes }: ImageParts,
  device: Device,
): 'lean' | 'keep' {
  if (wanted === 'lean' || wanted === 'keep') return wanted;
  if (wanted !== 'auto')
    throw new KotobaError(
      'ERR_ARGUMENT',
      `residency: expected auto, lean or keep, got "${wanted as string}"`,
    );
  return bytes <= device.memory / 2 ? 'keep' : 'lean';
}
