/** What of a prompt had no effect on a picture, and how it would have some. */
import type { Conditioning, EncoderSlot, GenerateResult } from '../pipeline/image_types.js';
import type { CliContext } from './io.js';
import { counted, printable, styleFor } from './text.js';

type Encoded = Pick<GenerateResult, 'profile'> & {
  readonly conditioning: Pick<Conditioning, 'hidden' | 'truncated' | 'states'>;
};

/** @param prompts of the results, in order */
export function textWarnings(results: readonly Encoded[], prompts: readonly string[]): string[] {
  return results.flatMap((result, i) => {
    const which = prompts.length === 1 ? 'the prompt' : `prompt ${i + 1} ("${short(prompts[i]!)}")`;
    const lost = Object.entries(result.conditioning.truncated ?? {}) as [EncoderSlot, number][];
    return lost.map(
      ([slot, tokens]) =>
        `${slot}: the last ${counted(tokens, 'token')} of ${which} had no effect; ${adviceFor(slot, result)}`,
    );
  });
}

function adviceFor(slot: EncoderSlot, { profile, conditioning }: Encoded): string {
  if (slot === 't5') return '--t5-length N reads more, at the cost of what the model was trained with';
  const { values, width } = conditioning.states[slot] ?? { values: [], width: 0 };
  if (values.length === width)
    return 'Flux takes one vector of what CLIP-L reads at once, 77 tokens; a Long-CLIP-L reads 248';
  return profile === 'comfy' || profile === 'a1111'
    ? 'shorten it'
    : `profile ${profile} cuts there; --profile comfy and a1111 read on`;
}

const SHOWN = 30;

const short = (text: string): string => {
  const line = printable(text);
  return line.length > SHOWN ? `${line.slice(0, SHOWN)}…` : line;
};

export function printWarnings({ io }: CliContext, warnings: readonly string[]): void {
  const style = styleFor(io.stderr, io.env);
  for (const warning of warnings) io.stderr.write(`${style.yellow('kotoba: warning:')} ${warning}\n`);
}
