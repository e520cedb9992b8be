/** What ran where and how fast: as data for --json, as a table for people. */
import type { Slot } from '../formats/index.js';
import type { Encoding, TextEncoder } from '../index.js';
import type { PromptDialect, Tokenizer } from '../text/index.js';
import type { WrittenFile } from './encode_output.js';
import type { EncoderSource } from './encoder_sources.js';
import { deviceText } from './device.js';
import type { CliContext } from './io.js';
import { bytesText, counted, grouped, printable, secondsText, shapeText, styleFor, table } from './text.js';

export interface Timing {
  /** opening the file and mapping its weights */
  readonly loadSeconds: number;
  /** loading the tokenizer and splitting the prompts */
  readonly tokenizeSeconds: number;
  /** running the network: the first time it reads the weights from disk */
  readonly encodeSeconds: number;
}

/** One encoder's part of the job. */
export interface EncoderRun extends Timing {
  readonly slot: Slot;
  readonly file: string;
  readonly description: string;
  readonly precision: string;
  readonly device: string;
  readonly processor: string;
  readonly instructions: string;
  readonly threads: number;
  /** run through the network, padding included */
  readonly tokens: number;
  readonly chunks: number;
  readonly truncatedTokens: number;
  readonly width: number;
  /** from opening the file to having the embeddings */
  readonly firstEmbeddingSeconds: number;
  /** of the matmuls, 2 operations a weight and token */
  readonly gflops: number;
  readonly bytesRead: number;
  readonly tokenizer: string;
  readonly prompts: readonly PromptRun[];
}

interface PromptRun {
  readonly kept: number;
  readonly truncated: string;
  readonly truncatedTokens: number;
}

interface FinishedRun {
  readonly source: EncoderSource;
  readonly encoder: TextEncoder;
  readonly tokenizer: Tokenizer;
  readonly encodings: readonly Encoding[];
  readonly timing: Timing;
  readonly dialect: PromptDialect;
}

export function runOf({ source, encoder, tokenizer, encodings, timing, dialect }: FinishedRun): EncoderRun {
  const { name, description, instructions, threads } = encoder.device.info;
  const chunks = encodings.flatMap(({ prompt }) => prompt.chunks);
  const tokens = chunks.reduce((sum, { ids }) => sum + ids.length, 0) + emptyTokens(encodings, dialect);
  const prompts = encodings.map(({ prompt }) => ({
    kept: prompt.tokenCount,
    truncated: prompt.truncated.pieces.map((piece) => readable(piece, tokenizer)).join(''),
    truncatedTokens: prompt.truncated.ids.length,
  }));
  return {
    slot: source.slot,
    file: source.path,
    description: encoder.part.description,
    precision: encoder.precision,
    device: name,
    processor: description,
    instructions,
    threads,
    tokens,
    chunks: chunks.length,
    truncatedTokens: prompts.reduce((sum, { truncatedTokens }) => sum + truncatedTokens, 0),
    width: encoder.network.width,
    ...timing,
    firstEmbeddingSeconds: timing.loadSeconds + timing.tokenizeSeconds + timing.encodeSeconds,
    gflops: (2 * encoder.network.weightsPerToken * tokens) / timing.encodeSeconds / 1e9,
    bytesRead: encoder.part.bytesRead,
    tokenizer: tokenizer.source,
    prompts,
  };
}

/** With the space after it that CLIP leaves to the end of a word; T5 has spaces of its own. */
const readable = (piece: string, tokenizer: Tokenizer): string =>
  tokenizer.readable(piece) + (tokenizer.family === 'clip' && piece.endsWith('</w>') ? ' ' : '');

/** ComfyUI's weights need an empty prompt of every length that occurs, which runs too. */
function emptyTokens(encodings: readonly Encoding[], dialect: PromptDialect): number {
  if (dialect !== 'comfyui') return 0;
  const weighted = encodings.filter(({ prompt }) => prompt.hasWeights);
  return [...new Set(weighted.map(({ prompt }) => prompt.chunks[0]!.ids.length))].reduce((a, b) => a + b, 0);
}

/** Characters of a cut-off text that a warning quotes. */
const QUOTED = 60;

export function warningsOf({ slot, prompts }: EncoderRun): string[] {
  return prompts.flatMap(({ kept, truncated, truncatedTokens }, i) => {
    if (truncatedTokens === 0) return [];
    const which = prompts.length === 1 ? 'the prompt' : `prompt ${i + 1}`;
    const text = printable(truncated.replace(/\s+/g, ' ').trim());
    const quoted = text.length > QUOTED ? `${text.slice(0, QUOTED)}…` : text;
    return `${slot}: ${which} is cut after ${kept} of ${kept + truncatedTokens} tokens; not read: "${quoted}"`;
  });
}

export function printRuns({ io }: CliContext, runs: readonly EncoderRun[], output: WrittenFile): void {
  const style = styleFor(io.stdout, io.env);
  const what = runs.flatMap(({ slot, description, file }) => [
    [style.bold(style.cyan(slot)), printable(description)],
    ['', style.dim(printable(file))],
  ]);
  const head = ['', 'precision', 'tokens', 'width', 'read', 'load', 'encode', 'in all', 'GFLOP/s'];
  const numbers = runs.map((run) => [
    style.bold(style.cyan(run.slot)),
    run.precision,
    grouped(run.tokens),
    String(run.width),
    bytesText(run.bytesRead),
    secondsText(run.loadSeconds + run.tokenizeSeconds),
    secondsText(run.encodeSeconds),
    secondsText(run.firstEmbeddingSeconds),
    run.gflops.toFixed(run.gflops < 10 ? 1 : 0),
  ]);
  const lines = [
    ...table(what),
    '',
    ...table([head.map(style.dim), ...numbers], { right: [2, 3, 4, 5, 6, 7, 8] }),
    '',
    ...table(summary(runs, output).map(([key, ...values]) => [style.dim(key!), ...values])),
  ];
  io.stdout.write(`${lines.join('\n')}\n`);
}

function summary(runs: readonly EncoderRun[], output: WrittenFile): string[][] {
  const total = runs.reduce((sum, run) => sum + run.firstEmbeddingSeconds, 0);
  const memory = process.resourceUsage().maxRSS * 1024;
  const chunked = runs.filter(({ chunks, prompts }) => chunks > prompts.length);
  const cut = runs.filter(({ truncatedTokens }) => truncatedTokens > 0);
  const list = (of: readonly EncoderRun[], text: (run: EncoderRun) => string): string =>
    of.map((run) => `${run.slot} ${text(run)}`).join(', ');
  return [
    ...(chunked.length > 0 ? [['chunks', list(chunked, ({ chunks }) => String(chunks))]] : []),
    ...(cut.length > 0 ? [['cut', list(cut, (run) => counted(run.truncatedTokens, 'token'))]] : []),
    ['ran on', deviceText(runs[0]!)],
    ['took', `${secondsText(total)}, at most ${bytesText(memory)} of memory`],
    ['wrote', `${printable(output.path)}, ${bytesText(output.bytes)}`],
    ...table(withoutSeries(output)).map((line) => ['', line]),
  ];
}

/** Name and shape of what was written; `hidden_states.0` to `.24` as one. */
function withoutSeries({ tensors }: WrittenFile): string[][] {
  const rows: { name: string; last: string; shape: string }[] = [];
  for (const { name, shape } of tensors) {
    const [, stem, number] = /^(.*\.hidden_states)\.(\d+)$/.exec(name) ?? [];
    const before = rows.at(-1);
    if (number !== undefined && number !== '0' && before?.name === `${stem}.0`) before.last = ` … ${number}`;
    else rows.push({ name, last: '', shape: shapeText(shape) });
  }
  return rows.map(({ name, last, shape }) => [name + last, shape]);
}
