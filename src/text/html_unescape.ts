// Character references, twice: as Python's html.unescape reads them (CLIP's own cleaning calls that), and the
// stricter reading of ftfy 6, which wants the semicolon but also takes all-capital names.
import { htmlEntities, htmlEntitiesWithoutSemicolon } from './html_entities.js';
import { windows1252OfC1 } from './windows_1252.js';

const REFERENCE = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu;
const STRICT_REFERENCE = /&#?[0-9A-Za-z]{1,24};/g;

/** `html.unescape(text)`: also names without a semicolon where the standard allows them (`&ampx` → `&x`). */
export function htmlUnescape(text: string): string {
  if (!text.includes('&')) return text;
  return text.replace(REFERENCE, (_, body: string) => (body[0] === '#' ? numeric(body) : named(body)));
}

/** ftfy's `unescape_html`: only references that end in a semicolon; `&EACUTE;` is `É`. */
export function htmlUnescapeStrict(text: string): string {
  if (!text.includes('&')) return text;
  return text.replace(STRICT_REFERENCE, (reference) => {
    const name = reference.slice(1, -1);
    if (name[0] === '#') {
      const plain = htmlUnescape(reference);
      return plain.includes(';') ? reference : plain;
    }
    return htmlEntities().get(name) ?? capitals(name) ?? reference;
  });
}

function numeric(body: string): string {
  const digits = body.replace(/;$/, '');
  const code = /^#[xX]/.test(digits) ? parseInt(digits.slice(2), 16) : parseInt(digits.slice(1), 10);
  if (code === 0 || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return '\ufffd';
  if (code >= 0x80 && code <= 0x9f) return windows1252OfC1(code);
  return isNoCharacter(code) ? '' : String.fromCodePoint(code);
}

/** Controls and noncharacters, which html.unescape drops. */
function isNoCharacter(code: number): boolean {
  const control = code < 0x20 && code !== 0x09 && code !== 0x0a && code !== 0x0c && code !== 0x0d;
  return control || code === 0x7f || (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
}

function named(body: string): string {
  const entities = htmlEntities();
  const legacy = htmlEntitiesWithoutSemicolon();
  if (body.endsWith(';')) {
    const whole = entities.get(body.slice(0, -1));
    if (whole !== undefined) return whole;
  }
  for (let end = body.length; end > 1; end--) {
    const prefix = body.slice(0, end);
    if (legacy.has(prefix)) return entities.get(prefix)! + body.slice(end);
  }
  return `&${body}`;
}

/** A lower-case name written in capitals, unless the capitals already mean something to html.unescape. */
function capitals(name: string): string | undefined {
  const lower = name.toLowerCase();
  if (name === lower || name !== lower.toUpperCase()) return undefined;
  const text = htmlEntities().get(lower);
  const reference = `&${name};`;
  return text !== undefined && htmlUnescape(reference) === reference ? text.toUpperCase() : undefined;
}
