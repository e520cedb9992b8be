/** The files of an image model, opened, and checked against each other. */
import { KotobaError } from '../errors.js';
import {
  identify,
  isDenoiser,
  openModel,
  selectPart,
  vaeFactor,
  vaeOfFamily,
  type VaePart,
} from '../formats/index.js';
import type { Device } from '../runtime/device.js';
import type { OpPrecision } from '../runtime/ops.js';
import { latentChannels } from './painting/denoisers.js';
import { requireEncoders, type EncoderParts } from './conditioning/encoder_widths.js';
import type {
  DenoiserPart,
  EncoderChoices,
  EncoderSlot,
  ImageModel,
  PipelineOptions,
} from './image_types.js';
import { resolvePrecision } from './precision.js';
import { TRANSFORMER_UNIT, isSide, sideUnit } from './painting/request.js';
import { requireKnownInputs } from './painting/starting_picture.js';

export interface ImageParts {
  readonly denoiser: DenoiserPart;
  readonly vae: VaePart;
  readonly encoders: EncoderParts;
  /** Of all parts, encoders included. */
  readonly bytes: number;
}

/** @throws KotobaError ERR_FILE_*, ERR_FORMAT_*, ERR_MODEL_*: what is wrong with which file, and what would fit */
export function openParts(model: ImageModel, { config }: PipelineOptions): ImageParts {
  const denoiser = openDenoiser(model.denoiser, config);
  requireKnownInputs(denoiser);
  const vae = openVae(model.vae, denoiser);
  requirePictures(vae, denoiser);
  const encoders = requireEncoders(model.encoders, denoiser);
  const all = [denoiser, vae, ...Object.values(encoders)];
  return { denoiser, vae, encoders, bytes: all.reduce((sum, part) => sum + part.bytesRead, 0) };
}

/** How each family's autoencoder is called. */
const VAE_NAMES: Readonly<Record<DenoiserPart['family'], string>> = {
  sd1: 'SD1',
  sd2: 'SD2',
  sdxl: 'SDXL',
  sd3: 'SD3',
  flux: 'Flux.1 (ae.safetensors)',
};

/** @throws KotobaError ERR_MODEL_SLOT for a file without a denoiser */
export function openDenoiser(path: string, config?: Readonly<Record<string, unknown>>): DenoiserPart {
  const model = openModel(path);
  const found = identify(model).find(isDenoiser);
  const part = found ? selectPart(model, { slot: found.slot, ...(config && { config }) }) : selectPart(model);
  if (isDenoiser(part)) return part;
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `${path}: expected a UNet, an SD3 or a Flux.1 transformer, got ${part.description}`,
  );
}

function openVae(path: string, denoiser: DenoiserPart): VaePart {
  const part = selectPart(openModel(path), { slot: 'vae' });
  const vae = part.slot === 'vae' ? vaeOfFamily(part, denoiser.family) : undefined;
  const name = VAE_NAMES[denoiser.family];
  if (!vae)
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `${path}: expected the autoencoder of ${name}, got ${part.description}`,
    );
  const latents = latentChannels(denoiser);
  if (vae.config.z_channels === latents) return vae;
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `${path}: expected an autoencoder of ${latents} latent channels, which ${denoiser.path} was made for, ` +
      `got ${vae.config.z_channels}: take that of ${name}`,
  );
}

/** Pictures have three colours, and sides that both networks can halve. */
function requirePictures(vae: VaePart, denoiser: DenoiserPart): void {
  const { path, config } = vae;
  const { in_channels, out_ch, resolution } = config;
  const factor = vaeFactor(config);
  if (denoiser.slot === 'transformer' && TRANSFORMER_UNIT % (2 * factor) !== 0)
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `${path}: expected an autoencoder of at most ${TRANSFORMER_UNIT / 2} pixels a latent, got ${factor}`,
    );
  if (in_channels !== 3 || out_ch !== 3)
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `${path}: expected an autoencoder of three colours, got ${in_channels} in and ${out_ch} out`,
    );
  const unit = sideUnit({ denoiser, vae });
  if (resolution !== undefined && !isSide(resolution, unit))
    throw new KotobaError(
      'ERR_MODEL_CONFIG',
      `${path}: its config says resolution ${resolution}, expected a multiple of ${unit} pixels that a picture can have`,
    );
}

/** What the parts run at. @throws KotobaError ERR_ARGUMENT for a precision that the device does not have */
export function partPrecisions(
  { precision }: PipelineOptions,
  { denoiser, vae }: Pick<ImageParts, 'denoiser' | 'vae'>,
  device: Device,
): Readonly<Record<'denoiser' | 'vae', OpPrecision>> {
  const wanted = typeof precision === 'object' ? precision : { denoiser: precision, vae: precision };
  const ofVae = resolvePrecision(wanted.vae, vae, device);
  const isAuto = wanted.vae === undefined || wanted.vae === 'auto';
  return {
    denoiser: resolvePrecision(wanted.denoiser, denoiser, device),
    // The decoder of SDXL passes the largest FP16 number in its last levels, whatever its weights are stored in.
    vae: isAuto && denoiser.family === 'sdxl' && ofVae === 'fp16' ? 'fp32' : ofVae,
  };
}

/** The same for the encoders. */
export const encoderPrecisions = (
  choices: EncoderChoices,
  parts: EncoderParts,
  device: Device,
): Readonly<Partial<Record<EncoderSlot, OpPrecision>>> =>
  Object.fromEntries(
    Object.entries(parts).map(([slot, part]) => [
      slot,
      resolvePrecision(choices[slot as EncoderSlot]?.precision, part, device),
    ]),
  );

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
