/** `kotoba tokens`: how each tokenizer splits a prompt: pieces, weights, chunk borders, padding, what is cut off. */
import { Command, Option } from 'commander';
import { KotobaError } from '../errors.js';
import { openModel } from '../formats/index.js';
import { findModel, modelDirs } from '../pipeline/find_model.js';
import {
  chunkLayout,
  clipTokenizer,
  loadT5Tokenizer,
  parsePrompt,
  tokenizePromptAsync,
  type ChunkLayout,
  type ClipFlavour,
  type EncoderFamily,
  type Overflow,
  type PromptDialect,
  type Tokenizer,
} from '../text/index.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { readPrompts } from './prompts.js';
import { styleFor, widthOf } from './text.js';
import { splitJson, splitText, type Split } from './tokens_text.js';

const FAMILIES = ['clip-l', 'clip-g', 'long-clip-l', 't5'] as const;

interface TokensOptions {
  family?: readonly EncoderFamily[];
  t5?: string;
  t5Tokenizer?: string;
  clipFlavour: ClipFlavour;
  dialect: PromptDialect;
  overflow?: Overflow;
  t5Length?: option.T5LengthValue;
  ids?: boolean;
  promptFile: readonly string[];
  modelsDir: readonly string[];
  json?: boolean;
}

const HELP = `
Examples:
  $ kotoba tokens "a sparrow on a girl's hand"
  $ kotoba tokens "a (sparrow:1.3) on a [hand] BREAK soft light" --dialect a1111 --ids
  $ kotoba tokens "a sparrow" --t5 t5xxl-Q8_0.gguf --t5-length flux-dev
  $ kotoba tokens "a sparrow" --family clip-l --family t5 --t5-tokenizer spiece.model --json

Reading it: a space begins a word, · joins the pieces of one word, ×1.3 is the weight of what stands before it.
Weights are read only with --dialect a1111 or comfyui.`;

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
    .option('--t5 <file>', 'T5 weights: the vocabulary in them or beside them')
    .addOption(option.t5TokenizerOption())
    .addOption(option.dialectOption())
    .addOption(option.overflowOption())
    .addOption(option.t5LengthOption())
    .addOption(option.clipFlavourOption())
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
  const splits: Split[] = [];
  for (const family of familiesOf(options)) {
    const tokenizer = await tokenizerFor(family, options, io.env);
    const layout = layoutFor(family, options);
    for (const prompt of prompts) {
      const segments = parsePrompt(prompt, options.dialect);
      const result = await tokenizePromptAsync(tokenizer, segments, layout, { signal });
      splits.push({ family, prompt, tokenizer, layout, result });
    }
  }
  if (options.json) {
    io.stdout.write(`${JSON.stringify({ splits: splits.map(splitJson) }, null, 2)}\n`);
    return;
  }
  const style = styleFor(io.stdout, io.env);
  const view = { style, width: widthOf(io.stdout), ids: options.ids === true, many: prompts.length > 1 };
  io.stdout.write(`${splits.map((split) => splitText(split, view).join('\n')).join('\n\n')}\n`);
}

/** Each once, in the order given. */
function familiesOf({ family, t5, t5Tokenizer }: TokensOptions): EncoderFamily[] {
  const hasT5 = t5 !== undefined || t5Tokenizer !== undefined;
  const named = family ?? ['clip-l'];
  return [...new Set<EncoderFamily>([...named, ...(hasT5 ? (['t5'] as const) : [])])];
}

async function tokenizerFor(
  family: EncoderFamily,
  { clipFlavour, t5, t5Tokenizer, modelsDir }: TokensOptions,
  env: CliContext['io']['env'],
): Promise<Tokenizer> {
  if (family !== 't5') return clipTokenizer({ flavour: clipFlavour });
  if (t5Tokenizer !== undefined) return await loadT5Tokenizer({ explicitPath: t5Tokenizer });
  if (t5 === undefined)
    throw new KotobaError(
      'ERR_TOKENIZER_MISSING',
      '--family t5: expected --t5 with the weights, or --t5-tokenizer with spiece.model or tokenizer.json',
    );
  const model = openModel(findModel(t5, modelDirs(modelsDir, env)));
  return await loadT5Tokenizer({
    ...(model.container === 'gguf' && { metadata: model.metadata }),
    dirs: [model.weightsDir],
    weights: model.path,
  });
}

function layoutFor(family: EncoderFamily, { dialect, overflow, t5Length }: TokensOptions): ChunkLayout {
  return chunkLayout(family, {
    ...(dialect === 'comfyui' && { rules: 'comfyui' }),
    ...(overflow && { overflow }),
    ...(family === 't5' && t5Length),
  });
}
