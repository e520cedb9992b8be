// A prompt as weighted texts: the common form of both emphasis dialects, and of none.
import { KotobaError } from '../errors.js';
import { parseA1111Prompt } from './prompt_a1111.js';
import { parseComfyuiPrompt } from './prompt_comfyui.js';

/** A piece of prompt and its weight; 1 is neutral. */
export type WeightedText = readonly [text: string, weight: number];

/**
 * - `a1111`: `(x)` ×1.1, `[x]` ÷1.1, `(x:1.3)`, nested weights multiply, `BREAK`, `\(` escapes.
 * - `comfyui`: `(x)` ×1.1, `(x:1.3)` where the inner weight replaces the outer, `\(` escapes; no `[x]`, no BREAK.
 * - `plain`: every character is text.
 */
export type PromptDialect = 'a1111' | 'comfyui' | 'plain';

/** What A1111's parser puts between texts for the word BREAK: a new chunk starts here. */
export const BREAK: WeightedText = ['BREAK', -1];

/** Only a neutral BREAK breaks: `(a BREAK b:1.2)` weights the word, and A1111 then reads it as text. */
export function isBreak([text, weight]: WeightedText): boolean {
  return text === BREAK[0] && weight === BREAK[1];
}

/** @throws ERR_ARGUMENT for a weight that is no finite number, e.g. `(x:1.2.3)` in a1111, or an unknown dialect */
export function parsePrompt(prompt: string, dialect: PromptDialect): WeightedText[] {
  if (dialect === 'a1111') return parseA1111Prompt(prompt);
  if (dialect === 'comfyui') return parseComfyuiPrompt(prompt);
  if (dialect !== 'plain')
    throw new KotobaError(
      'ERR_ARGUMENT',
      `dialect: expected a1111, comfyui or plain, got "${String(dialect)}"`,
    );
  return [[prompt, 1]];
}

/** A weight in the plain decimals that both dialects read: no exponent, no loss. */
export function formatWeight(weight: number): string {
  const text = String(weight);
  const exponent = /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(text);
  if (!exponent) return text;
  const [, sign, first, rest = '', power] = exponent;
  const digits = first! + rest;
  const point = 1 + Number(power);
  if (point <= 0) return `${sign}0.${'0'.repeat(-point)}${digits}`;
  return `${sign}${digits.padEnd(point, '0')}`;
}
