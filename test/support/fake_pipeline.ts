/**
 * An ImagePipeline's encode() and generate() without networks: pictures and embeddings are functions of prompt, seed and encoder
 * files, with what each of them changes set by the test.
 */
import { chosenEncoders } from '../../src/pipeline/conditioning/encoder_widths.js';
import type { Picture } from '../../src/image/index.js';
import {
  EncodePromptJob,
  GenerateJob,
  type EncodedPrompt,
  type EncoderChoices,
  type GenerateOptions,
  type GenerateResult,
} from '../../src/pipeline/image_types.js';

export interface FakeCall {
  readonly prompt: string;
  readonly options: GenerateOptions;
}

export interface FakePipeline {
  encode(prompt: string, options?: GenerateOptions): EncodePromptJob;
  generate(prompt: string, options?: GenerateOptions): GenerateJob;
  /** of generate() */
  readonly calls: readonly FakeCall[];
}

export interface FakeSettings {
  /** How much every byte moves with the seed, 0…255. */
  readonly seedStep?: number;
  /** How much every byte moves with the T5's path. */
  readonly encoderStep?: (path: string) => number;
  /** T5 tokens of a prompt. */
  readonly tokens?: (path: string) => number;
  readonly side?: number;
  /** Encoders that paint a small black box, which no mean shows. */
  readonly boxed?: (path: string) => boolean;
}

const OWN: EncoderChoices = { t5: { path: 'own-t5' }, clip_l: { path: 'own-clip' } };

export function fakePipeline(settings: FakeSettings = {}): FakePipeline {
  const { seedStep = 4, encoderStep = () => 0, tokens = () => 3, side = 16, boxed = () => false } = settings;
  const calls: FakeCall[] = [];
  const encoded = new Set<string>();
  const read = (prompt: string, encoders: EncoderChoices): EncodedPrompt => {
    const before = encoded.size;
    for (const slot of ['t5', 'clip_l'] as const) encoded.add(JSON.stringify([slot, encoders[slot], prompt]));
    const { path } = encoders.t5!;
    const hidden = new Float32Array(4 * tokens(path)).fill(1 + encoderStep(path));
    const pooled = Float32Array.of(1, 2);
    const states = { t5: { values: hidden, width: 4 }, clip_l: { values: pooled, width: 2 } };
    const conditioning = { pooled, hidden, tokens: tokens(path), states };
    return { conditioning, encodes: encoded.size - before };
  };
  return {
    calls,
    encode: (prompt, options = {}) =>
      new EncodePromptJob(async () => read(prompt, chosenEncoders(OWN, options.encoders))),
    generate(prompt, options = {}) {
      calls.push({ prompt, options });
      return new GenerateJob(async (report): Promise<GenerateResult> => {
        const { seed = 0, count = 1, signal } = options;
        const encoders = chosenEncoders(OWN, options.encoders);
        report({ phase: 'sample', done: 1, total: 2, detail: 'step 1 of 2' });
        await new Promise((resolve) => setTimeout(resolve, 1));
        signal?.throwIfAborted();
        const value = (at: bigint): number =>
          Math.round(100 + seedStep * Number(at) + encoderStep(encoders.t5!.path)) + prompt.length;
        return {
          pictures: Array.from({ length: count }, (_, i) => {
            const own = BigInt(seed) + BigInt(i);
            return { seed: own, picture: ramp(side, value(own), boxed(encoders.t5!.path)) };
          }),
          width: side,
          height: side,
          steps: 2,
          sampler: 'euler',
          schedule: 'flux',
          sigmas: [1, 0.5, 0],
          cfg: 1,
          noise: 'torch',
          profile: 'bfl',
          preset: 'base',
          encoders,
          precisions: { denoiser: 'fp32', vae: 'fp32', clip_l: 'fp32', t5: 'fp32' },
          ...read(prompt, encoders),
          seconds: { encode: 0.1, sample: 0.2, decode: 0.3 },
        };
      });
    },
  };
}

/** Grey, so that no measure is of a constant. */
function ramp(side: number, value: number, hasBox: boolean): Picture {
  const rgb = Uint8Array.from({ length: side * side * 3 }, (_, i) =>
    hasBox && i < 24 ? 0 : value + (i % 16),
  );
  return { width: side, height: side, rgb };
}
