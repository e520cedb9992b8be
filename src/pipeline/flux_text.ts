/** A prompt as Flux is conditioned on it: CLIP-L's pooled state and T5's states, padded as in training. */
import type { FluxConfig } from '../formats/index.js';
import type { Conditioner } from './conditioner.js';
import { T5_TOKENS } from './encoder_widths.js';
import type {
  Conditioning,
  EncodedPrompt,
  EncoderChoices,
  GenerateOptions,
  GenerateProgress,
} from './image_types.js';

/** The prompt, and the negative prompt where there is guidance against one. */
export type FluxText = Pick<EncodedPrompt, 'conditioning' | 'negative'>;

export interface FluxTextTask {
  readonly conditioner: Conditioner;
  readonly encoders: EncoderChoices;
  readonly config: FluxConfig;
  readonly options: GenerateOptions;
  readonly report: (progress: GenerateProgress) => void;
}

export async function encodeFluxText(prompt: string, task: FluxTextTask): Promise<FluxText> {
  const { cfg = 1, negativePrompt = '' } = task.options;
  const conditioning = await encodeOne(prompt, task);
  return cfg === 1 ? { conditioning } : { conditioning, negative: await encodeOne(negativePrompt, task) };
}

/** T5 tokens that a transformer was trained with. */
export function textTokens({ guidance_embed, max_sequence_length }: FluxConfig): number {
  return max_sequence_length ?? T5_TOKENS[guidance_embed ? 'dev' : 'schnell'];
}

async function encodeOne(
  prompt: string,
  { conditioner, encoders, config, options, report }: FluxTextTask,
): Promise<Conditioning> {
  const { dialect = 'plain', t5Length, signal } = options;
  const watching = (detail: string) => ({
    signal,
    onLayer: (done: number, total: number) => report({ phase: 'encode', done, total, detail }),
  });
  const length = textTokens(config);
  const layout = t5Length ?? { minLength: length, maxLength: length };
  const common = { prompt, dialect };
  const clip = await conditioner.encode(
    { ...common, slot: 'clip_l', choice: encoders.clip_l },
    watching('clip_l'),
  );
  const t5 = await conditioner.encode({ ...common, slot: 't5', choice: encoders.t5, layout }, watching('t5'));
  return { pooled: clip.pooled!, hidden: t5.hidden, tokens: t5.tokens };
}
