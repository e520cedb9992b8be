// The emphasis syntax of ComfyUI, with its results to the last bit. ComfyUI's parser calls itself on the inside of
// each bracket; here brackets are paired once and a stack of ranges replaces the recursion, so depth does not matter.
import { KotobaError } from '../errors.js';
import type { WeightedText } from './prompt.js';
import { pythonFloat } from './python_text.js';

const BRACKET = 1.1;
// ComfyUI hides escaped brackets behind these control characters while it parses.
const HIDDEN_CLOSE = '\0\x01';
const HIDDEN_OPEN = '\0\x02';

interface Range {
  readonly start: number;
  readonly end: number;
  readonly weight: number;
  /** Still to be searched for brackets, or text as it stands. */
  readonly parsed: boolean;
}

/**
 * @returns no entry for an empty prompt or `()`; neighbours are not joined, each becomes a word group of its own
 * @throws ERR_ARGUMENT for a weight of inf or nan, and for thousands of nested brackets
 */
export function parseComfyuiPrompt(prompt: string): WeightedText[] {
  const text = prompt.replaceAll('\\)', HIDDEN_CLOSE).replaceAll('\\(', HIDDEN_OPEN);
  const marks = markBrackets(text);
  const out: WeightedText[] = [];
  const stack: Range[] = [{ start: 0, end: text.length, weight: 1, parsed: false }];
  for (let range = stack.pop(); range; range = stack.pop()) {
    if (range.parsed) out.push([reveal(text.slice(range.start, range.end)), finite(range.weight)]);
    else stack.push(...insides(text, marks, range).reverse());
  }
  return out;
}

interface BracketMarks {
  /** For each `(`: the index of its `)`, or the text's length. */
  readonly close: Int32Array;
  /** Index of the last `:` at or before; of the last bracket at or before. -1 for none. */
  readonly lastColon: Int32Array;
  readonly lastBracket: Int32Array;
}

function markBrackets(text: string): BracketMarks {
  const close = new Int32Array(text.length).fill(text.length);
  const lastColon = new Int32Array(text.length);
  const lastBracket = new Int32Array(text.length);
  const open: number[] = [];
  let colon = -1;
  let bracket = -1;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === '(') open.push(i);
    else if (char === ')' && open.length > 0) close[open.pop()!] = i;
    if (char === ':') colon = i;
    if (char === '(' || char === ')') bracket = i;
    lastColon[i] = colon;
    lastBracket[i] = bracket;
  }
  return { close, lastColon, lastBracket };
}

/** The texts and bracketed groups of a range, in order. Each group loses its brackets and takes its weight. */
function insides(text: string, marks: BracketMarks, { start, end, weight }: Range): Range[] {
  const items: Range[] = [];
  let itemStart = start;
  let depth = 0; // below zero after unmatched `)`: as in ComfyUI, as many `(` are then plain text
  for (let i = start; i < end;) {
    if (text[i] === '(' && depth === 0) {
      if (i > itemStart) items.push(itemOf(text, marks, itemStart, i, weight));
      const close = Math.min(marks.close[i]! + 1, end); // an open bracket without its partner runs to the end
      items.push(itemOf(text, marks, i, close, weight));
      i = itemStart = close;
      continue;
    }
    if (text[i] === '(') depth++;
    else if (text[i] === ')') depth--;
    i++;
  }
  if (end > itemStart) items.push(itemOf(text, marks, itemStart, end, weight));
  return items;
}

function itemOf(text: string, marks: BracketMarks, start: number, end: number, weight: number): Range {
  const isGroup = end - start >= 2 && text[start] === '(' && text[end - 1] === ')';
  if (!isGroup) return { start, end, weight, parsed: true };
  const colon = end - 2 > start ? marks.lastColon[end - 2]! : -1;
  const given =
    colon > start + 1 && marks.lastBracket[end - 2]! < colon ? explicitWeight(text, colon, end - 1) : null;
  if (given === null) return { start: start + 1, end: end - 1, weight: weight * BRACKET, parsed: false };
  return { start: start + 1, end: colon, weight: given, parsed: false };
}

function explicitWeight(text: string, colon: number, end: number): number | null {
  const weight = pythonFloat(text.slice(colon + 1, end));
  return weight === null ? null : finite(weight);
}

/** `(x:inf)`, `(x:nan)` and thousands of nested brackets would only turn into a black picture. */
function finite(weight: number): number {
  if (Number.isFinite(weight)) return weight;
  throw new KotobaError('ERR_ARGUMENT', `prompt weight: expected a finite number but it comes to ${weight}`);
}

function reveal(text: string): string {
  return text.replaceAll(HIDDEN_CLOSE, ')').replaceAll(HIDDEN_OPEN, '(');
}
