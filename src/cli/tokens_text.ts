/** A split prompt as lines for people and as JSON. */
import {
  formatWeight,
  type ChunkLayout,
  type EncoderFamily,
  type TokenChunk,
  type TokenizedPrompt,
  type Tokenizer,
} from '../text/index.js';
import { counted, grouped, printable, table, wrap, type Style } from './text.js';

export interface Split {
  readonly family: EncoderFamily;
  readonly prompt: string;
  readonly tokenizer: Tokenizer;
  readonly layout: ChunkLayout;
  readonly result: TokenizedPrompt;
}

export interface TokensView {
  readonly style: Style;
  /** columns */
  readonly width: number;
  /** a line for each token */
  readonly ids: boolean;
  /** several prompts: each is named */
  readonly many: boolean;
}

const INDENT = '    ';

export function splitText(split: Split, view: TokensView): string[] {
  const { family, prompt, tokenizer, layout, result } = split;
  const { style } = view;
  const { chunks, truncated } = result;
  const total = chunks.reduce((sum, { ids }) => sum + ids.length, 0);
  const title = `${counted(result.tokenCount, 'token')} in ${counted(chunks.length, 'chunk')}, ${grouped(total)} with start, end and padding`;
  const about = `vocabulary: ${printable(tokenizer.source)}; ${layoutText(layout)}`;
  return [
    `${style.bold(style.cyan(family))}  ${title}`,
    ...(view.many ? [`  ${printable(prompt)}`] : []),
    ...wrap(about.split(' '), view.width, '  ').map((line) => style.dim(line)),
    ...chunks.flatMap((chunk, i) => chunkText(chunk, i, split, view)),
    ...(truncated.ids.length > 0
      ? [
          `  ${style.yellow(`cut off: ${counted(truncated.ids.length, 'token')}`)}`,
          ...wrap(
            words(
              truncated.pieces.map((piece) => ({ piece, weight: 1 })),
              tokenizer,
              style,
            ),
            view.width,
            INDENT,
          ),
        ]
      : []),
  ];
}

function layoutText({ minLength, maxLength, overflow }: ChunkLayout): string {
  if (maxLength === Infinity)
    return minLength > 1 ? `padded to ${minLength}, any length` : 'not padded, any length';
  const padded = minLength > 1 ? `padded to ${minLength}, ` : '';
  const beyond = {
    error: 'more is an error',
    truncate: 'more is cut off',
    chunk: 'more goes into further chunks',
  };
  return `${padded}at most ${maxLength}: ${beyond[overflow]}`;
}

function chunkText(chunk: TokenChunk, i: number, split: Split, view: TokensView): string[] {
  const { style, width } = view;
  const { chunks } = split.result;
  const room = split.layout.maxLength - (chunk.contentStart + 1);
  const of = room === Infinity ? '' : ` of ${room}`;
  const head = chunks.length > 1 ? [`  ${style.dim(`chunk ${i + 1}: ${chunk.contentLength}${of}`)}`] : [];
  if (view.ids) return [...head, ...idLines(chunk, split.tokenizer, style)];
  const content = Array.from({ length: chunk.contentLength }, (_, at) => ({
    piece: chunk.pieces[chunk.contentStart + at]!,
    weight: chunk.weights[chunk.contentStart + at]!,
  }));
  const before = chunk.contentStart > 0 ? [style.dim(chunk.pieces[0]!)] : [];
  const line = [...before, ...words(content, split.tokenizer, style), ...ending(chunk, style)];
  return [...head, ...wrap(line, width, INDENT)];
}

/** The end token and the padding in one word: "</s> +58 <pad>" */
function ending(chunk: TokenChunk, style: Style): string[] {
  const padding = chunk.ids.length - chunk.eosIndex - 1;
  const pad = padding > 0 ? [style.dim(`+${padding}×${printable(chunk.pieces.at(-1)!)}`)] : [];
  return [style.dim(chunk.pieces[chunk.eosIndex]!), ...pad];
}

interface WeightedPiece {
  readonly piece: string;
  readonly weight: number;
}

/**
 * Pieces as words of the line: `photo·real·istic`. A run of pieces of one weight is marked after its last:
 * `soft light×1.3`. On a terminal neighbouring tokens differ in brightness, so that every border is seen.
 */
function words(pieces: readonly WeightedPiece[], tokenizer: Tokenizer, style: Style): string[] {
  const out: string[] = [];
  let joins = false;
  for (const [i, { piece, weight }] of pieces.entries()) {
    const { text, startsWord, endsWord } = shown(piece, tokenizer);
    const mark = weight !== 1 && pieces[i + 1]?.weight !== weight ? style.yellow(`×${short(weight)}`) : '';
    const coloured = weight === 1 ? text : style.yellow(text);
    const token = (i % 2 === 1 ? style.bold(coloured) : coloured) + mark;
    if (joins && !startsWord) out.push(`${out.pop()!}${style.dim('·')}${token}`);
    else out.push(token);
    joins = !endsWord;
  }
  return out;
}

/** CLIP marks where a word ends (`cat</w>`), T5 where it starts (`▁cat`). */
function shown(piece: string, tokenizer: Tokenizer) {
  const isClip = tokenizer.family === 'clip';
  const startsWord = !isClip && piece.startsWith('▁');
  const readable = printable(tokenizer.readable(piece));
  return {
    text: startsWord ? readable.slice(1) || '▁' : readable,
    startsWord,
    endsWord: isClip && (piece.endsWith('</w>') || /^<\|\w+\|>$/.test(piece)),
  };
}

/** 1.1 · 1.1 is 1.2100000000000002 */
const short = (weight: number): string => formatWeight(Number(weight.toPrecision(6)));

function idLines(
  { ids, pieces, weights, eosIndex }: TokenChunk,
  tokenizer: Tokenizer,
  style: Style,
): string[] {
  const rows = Array.from({ length: eosIndex + 1 }, (_, i) => [
    style.dim(String(i)),
    String(ids[i]),
    printable(pieces[i]!),
    printable(tokenizer.readable(pieces[i]!)),
    weights[i] === 1 ? '' : style.yellow(`×${short(weights[i]!)}`),
  ]);
  const padding = ids.length - eosIndex - 1;
  const rest =
    padding > 0
      ? [`${INDENT}${style.dim(`and ${padding} times ${ids.at(-1)} ${printable(pieces.at(-1)!)}`)}`]
      : [];
  return [...table(rows, { indent: INDENT, right: [0, 1] }), ...rest];
}

export function splitJson({ family, prompt, tokenizer, layout, result }: Split) {
  const { maxLength } = layout;
  return {
    family,
    prompt,
    vocabulary: tokenizer.source,
    layout: { ...layout, maxLength: maxLength === Infinity ? null : maxLength },
    tokens: result.tokenCount,
    hasWeights: result.hasWeights,
    chunks: result.chunks.map(({ ids, weights, pieces, contentStart, contentLength, eosIndex }) => ({
      contentStart,
      contentLength,
      eosIndex,
      padding: ids.length - eosIndex - 1,
      ids: [...ids],
      weights: [...weights],
      pieces,
      text: pieces.map((piece) => tokenizer.readable(piece)),
    })),
    truncated: { ids: result.truncated.ids, pieces: result.truncated.pieces },
  };
}
