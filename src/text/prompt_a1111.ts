// The emphasis syntax of AUTOMATIC1111's WebUI (1.10), with its results to the last bit.
// One pass; brackets keep the index of their first text, and closing one multiplies every text since.
import { KotobaError } from '../errors.js';
import type { WeightedText } from './prompt.js';
import { isPythonSpace, pythonFloat, PYTHON_SPACE } from './python_text.js';

const ROUND = 1.1;
const SQUARE = 1 / 1.1;
/** A bracket multiplies each text inside it, so deep nesting is quadratic; this is 0.1 s, and 1,000 levels of it. */
const MAX_MULTIPLICATIONS = 20_000_000;

const TOKEN = new RegExp(
  [
    String.raw`\\[()[\]\\]?`, // an escape; a lone backslash vanishes
    String.raw`[([]`,
    String.raw`:[${PYTHON_SPACE}]*([+-]?[.\p{Nd}]+)[${PYTHON_SPACE}]*\)`, // the weight that closes a round bracket
    String.raw`[)\]:]`,
    String.raw`[^\\()[\]:]+`,
  ].join('|'),
  'gu',
);
const BREAK_WORD = /(?<![\p{L}\p{N}_])BREAK(?![\p{L}\p{N}_])/gu;

/**
 * @returns at least one text; `['BREAK', -1]` marks a chunk break; neighbours of equal weight are joined
 * @throws ERR_ARGUMENT for a weight like `1.2.3`, and for thousands of nested brackets
 */
export function parseA1111Prompt(prompt: string): WeightedText[] {
  const texts: string[] = [];
  const weights: number[] = [];
  const round: number[] = [];
  const square: number[] = [];
  const push = (text: string, weight: number) => {
    texts.push(text);
    weights.push(weight);
  };
  let multiplications = 0;
  const multiplySince = (start: number, factor: number) => {
    multiplications += weights.length - start;
    if (multiplications > MAX_MULTIPLICATIONS) throw tooDeep();
    for (let i = start; i < weights.length; i++) weights[i]! *= factor;
  };
  for (const match of prompt.matchAll(TOKEN)) {
    const [token, weight] = match;
    if (token[0] === '\\') push(token.slice(1), 1);
    else if (token === '(') round.push(texts.length);
    else if (token === '[') square.push(texts.length);
    else if (weight !== undefined && round.length > 0)
      multiplySince(round.pop()!, parseWeight(weight, token));
    else if (token === ')' && round.length > 0) multiplySince(round.pop()!, ROUND);
    else if (token === ']' && square.length > 0) multiplySince(square.pop()!, SQUARE);
    else pushWithBreaks(token, push);
  }
  for (const start of round) multiplySince(start, ROUND);
  for (const start of square) multiplySince(start, SQUARE);
  if (!weights.every(Number.isFinite)) throw tooDeep();
  return texts.length === 0 ? [['', 1]] : joinEqualNeighbours(texts, weights);
}

function tooDeep(): KotobaError {
  return new KotobaError(
    'ERR_ARGUMENT',
    'prompt weights: brackets are nested so deeply that no usable weight comes out',
  );
}

function parseWeight(text: string, token: string): number {
  const weight = pythonFloat(text);
  if (weight === null || !Number.isFinite(weight)) {
    throw new KotobaError(
      'ERR_ARGUMENT',
      `prompt weight "${token}": expected a number but received "${text}"`,
    );
  }
  return weight;
}

/** Splits at the word BREAK and drops the white space around it. */
function pushWithBreaks(text: string, push: (text: string, weight: number) => void): void {
  let start = 0;
  for (const { index } of text.matchAll(BREAK_WORD)) {
    let end = index;
    while (end > start && isPythonSpace(text[end - 1])) end--;
    push(text.slice(start, end), 1);
    push('BREAK', -1);
    start = index + 'BREAK'.length;
    while (isPythonSpace(text[start])) start++;
  }
  push(text.slice(start), 1);
}

function joinEqualNeighbours(texts: readonly string[], weights: readonly number[]): WeightedText[] {
  const joined: [string, number][] = [];
  for (const [i, text] of texts.entries()) {
    const last = joined.at(-1);
    if (last && last[1] === weights[i]) last[0] += text;
    else joined.push([text, weights[i]!]);
  }
  return joined;
}
