// The reference tokenizers and prompt parsers are Python; its idea of white space, word characters and number
// literals differs from JavaScript's. These are the pieces of it that decide results.

/** Character class body: what Python's `str.isspace` and `\s` match. JavaScript's `\s` has U+FEFF and lacks the rest. */
export const PYTHON_SPACE =
  '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';

const SPACE = new RegExp(`[${PYTHON_SPACE}]`, 'u');
const SPACES = new RegExp(`[${PYTHON_SPACE}]+`, 'gu');

export function isPythonSpace(char: string | undefined): boolean {
  return char !== undefined && SPACE.test(char);
}

/** `str.strip()`; by index, because a regex anchored at the end is quadratic on long runs of spaces. */
export function pythonStrip(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isPythonSpace(text[start])) start++;
  while (end > start && isPythonSpace(text[end - 1])) end--;
  return text.slice(start, end);
}

/** `re.sub(r"\s+", " ", text)`. */
export function collapsePythonSpaces(text: string): string {
  return text.replace(SPACES, ' ');
}

const FLOAT_LITERAL = /^[+-]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:[eE][+-]?\d+(?:_\d+)*)?$/;
const NAMED_FLOAT = /^([+-]?)(inf|infinity|nan)$/i;

/**
 * `float(text)`: surrounding white space, digits of any script, underscores between digits, exponents, `inf`, `nan`.
 * @returns null where Python raises ValueError
 */
export function pythonFloat(text: string): number | null {
  const literal = asciiDigits(pythonStrip(text));
  if (FLOAT_LITERAL.test(literal)) return Number(literal.replaceAll('_', ''));
  const named = NAMED_FLOAT.exec(literal);
  if (!named) return null;
  if (named[2]!.toLowerCase() === 'nan') return NaN;
  return named[1] === '-' ? -Infinity : Infinity;
}

/** Every decimal digit (Unicode Nd) as its ASCII twin. Digits come in runs of ten that start at zero. */
function asciiDigits(text: string): string {
  return text.replace(/\p{Nd}/gu, (digit) => {
    const codePoint = digit.codePointAt(0)!;
    let zero = codePoint;
    while (/^\p{Nd}$/u.test(String.fromCodePoint(zero - 1))) zero--;
    return String((codePoint - zero) % 10);
  });
}
