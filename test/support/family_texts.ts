/** encodeText() for tests: a conditioner of its own unless one is given. */
import { Conditioner } from '../../src/pipeline/conditioning/conditioner.js';
import type { EncodeOptions, Encoding } from '../../src/pipeline/encoder_types.js';
import { encodeText, type PromptText } from '../../src/pipeline/conditioning/family_text.js';
import type {
  Conditioning,
  DenoiserPart,
  EncoderChoices,
  EncoderSlot,
  GenerateOptions,
  GenerateProgress,
} from '../../src/pipeline/image_types.js';
import { TextEncoder } from '../../src/pipeline/text_encoder.js';
import type { Device } from '../../src/runtime/device.js';

export interface Asked extends Omit<GenerateOptions, 'encoders'> {
  readonly conditioner?: Conditioner;
  readonly report?: (progress: GenerateProgress) => void;
}

export class TextReader {
  readonly device: Device;
  readonly encoders: EncoderChoices;

  constructor(device: Device, encoders: EncoderChoices) {
    this.device = device;
    this.encoders = encoders;
  }

  /** With the negative prompt where `cfg` is not 1. */
  async both(prompt: string, denoiser: DenoiserPart, asked: Asked = {}): Promise<PromptText> {
    const { conditioner, report = () => {}, cfg = 1, ...options } = asked;
    const own = conditioner ?? new Conditioner(this.device, 'keep');
    const { encoders } = this;
    try {
      return await encodeText(prompt, { conditioner: own, encoders, denoiser, options, cfg, report });
    } finally {
      if (!conditioner) await own.release();
    }
  }

  async read(prompt: string, denoiser: DenoiserPart, asked: Asked = {}): Promise<Conditioning> {
    return (await this.both(prompt, denoiser, asked)).conditioning;
  }

  /** What one of the encoders gives by itself. */
  async alone(slot: EncoderSlot, prompt: string, options: EncodeOptions = {}): Promise<Encoding> {
    await using encoder = await TextEncoder.load(this.encoders[slot]!.path, { device: this.device, slot });
    return await encoder.encode(prompt, options);
  }

  with(encoders: EncoderChoices): TextReader {
    return new TextReader(this.device, { ...this.encoders, ...encoders });
  }
}

/** Columns [first, last) of rows [top, bottom) of a conditioning. */
export function block(
  { hidden, tokens }: Pick<Conditioning, 'hidden' | 'tokens'>,
  [first, last]: readonly [number, number],
  [top, bottom]: readonly [number, number] = [0, tokens],
): Float32Array {
  const width = hidden.length / tokens;
  const rows = Array.from({ length: bottom - top }, (_, i) => (top + i) * width);
  return Float32Array.from(rows.flatMap((row) => [...hidden.subarray(row + first, row + last)]));
}

export const isZero = (values: Float32Array): boolean => values.every((value) => value === 0);
