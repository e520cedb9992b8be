/** `kotoba tokens`: how each tokenizer splits a prompt: pieces, weights, chunk borders, padding, what is cut off. */
import { Command, Option } from 'commander';
import { PROFILES } from '../pipeline/image_types.js';
import { parsePrompt, tokenizePromptAsync, type EncoderFamily } from '../text/index.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { readPrompts } from './prompts.js';
import { styleFor, widthOf } from './text.js';
import { clipRowsOf, contextOf, contextText } from './tokens_context.js';
import {
  FAMILIES,
  MODELS,
  planTokens,
  type ModelName,
  type PlanOptions,
  type TokensPlan,
} from './tokens_plan.js';
import { splitJson, splitText, type Split } from './tokens_text.js';

interface TokensOptions extends PlanOptions {
  readonly ids?: boolean;
  readonly promptFile: readonly string[];
  readonly json?: boolean;
}

const HELP = `
Examples:
  $ kotoba tokens "a sparrow on a girl's hand"
  $ kotoba tokens "a (sparrow:1.3) on a [hand] BREAK soft light" --dialect a1111 --ids
  $ kotoba tokens "a sparrow" --t5 t5xxl-Q8_0.gguf --t5-length flux-dev
  $ kotoba tokens "a (sparrow:1.3) on a hand" --for sdxl --profile a1111
  $ kotoba tokens - --for flux-dev --profile comfy --t5 t5xxl-Q8_0.gguf < prompts.txt
  $ kotoba tokens "a sparrow" --family clip-l --family t5 --t5-tokenizer spiece.model --json

Reading it: a space begins a word, · joins the pieces of one word, ×1.3 is the weight of what stands before it.
Weights are read only with --dialect a1111 or comfyui, or a profile that reads them. With --for the encoders of a model
are shown as a program reads prompts for it, and what they come to together.`;

export function tokensCommand(context: CliContext): Command {
  return new Command('tokens')
    .description('how a prompt is split into tokens')
    .argument('[prompts...]', 'prompts; - reads them from stdin, one a line')
    .addOption(
      new Option(
        '--family <name>',
        `whose tokens: ${FAMILIES.join(', ')}; may be repeated (default: clip-l, and t5 where a vocabulary is given)`,
      ).argParser((text: string, before: readonly EncoderFamily[] = []) => [
        ...before,
        option.oneOf(FAMILIES)(text),
      ]),
    )
    .addOption(
      new Option(
        '--for <model>',
        "the encoders of a model, joined; --family and files take their parts' places",
      ).choices(Object.keys(MODELS) as ModelName[]),
    )
    .addOption(
      new Option(
        '--profile <name>',
        'whose weights, chunks, padding and lengths (default with --for: bfl for Flux, else comfy)',
      ).choices(PROFILES),
    )
    .option('--clip-l <file>', 'a CLIP-L or Long-CLIP-L: its vocabulary and length')
    .option('--clip-g <file>', 'a CLIP-G: its vocabulary and length')
    .option('--t5 <file>', 'T5 weights: the vocabulary in them or beside them')
    .addOption(option.t5TokenizerOption())
    .addOption(option.dialectOption().default(undefined, "the profile's, else plain"))
    .addOption(option.overflowOption())
    .addOption(option.t5LengthOption())
    .addOption(option.clipFlavourOption().default(undefined, "the profile's, else openai"))
    .option('--ids', 'a line for each token, with its id')
    .addOption(
      new Option('--prompt-file <file>', 'more prompts, one a line; may be repeated')
        .default([], 'none')
        .argParser(option.repeated),
    )
    .addOption(option.modelsDirOption())
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action((prompts: string[], options: TokensOptions) => tokens(context, prompts, options));
}

async function tokens(context: CliContext, given: string[], options: TokensOptions): Promise<void> {
  const { io, signal } = context;
  const prompts = await readPrompts(given, options.promptFile, io.stdin);
  const plan = await planTokens(options, io.env);
  const ofPrompts: Split[][] = [];
  for (const prompt of prompts) ofPrompts.push(await splitsOf(prompt, plan, signal));
  // All prompts of an encoder stand together, unless they are joined with those of others.
  const groups = plan.model
    ? ofPrompts
    : plan.encoders.map((_, encoder) => ofPrompts.map((splits) => splits[encoder]!));
  if (options.json) {
    const contexts = plan.model && ofPrompts.map((splits) => contextOf(splits, plan));
    const splits = groups.flat().map(splitJson);
    io.stdout.write(`${JSON.stringify({ splits, ...(contexts && { contexts }) }, null, 2)}\n`);
    return;
  }
  const style = styleFor(io.stdout, io.env);
  const view = { style, width: widthOf(io.stdout), ids: options.ids === true, many: prompts.length > 1 };
  const blocks = groups.flatMap((splits) => [
    ...splits.map((split) => splitText(split, view)),
    ...(plan.model ? [contextText(contextOf(splits, plan), splits, plan, style)] : []),
  ]);
  io.stdout.write(`${blocks.map((lines) => lines.join('\n')).join('\n\n')}\n`);
}

async function splitsOf(prompt: string, plan: TokensPlan, signal: AbortSignal): Promise<Split[]> {
  const segments = parsePrompt(prompt, plan.dialect);
  const splits: Split[] = [];
  for (const { family, tokenizer, layout: layoutFor } of plan.encoders) {
    const layout = layoutFor(clipRowsOf(splits));
    const result = await tokenizePromptAsync(tokenizer, segments, layout, { signal });
    splits.push({ family, prompt, tokenizer, layout, result });
  }
  return splits;
}
