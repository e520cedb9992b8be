// The text repair that CLIP's original tokenizer runs first (ftfy.fix_text with its defaults): character references,
// garbled encodings, ligatures, widths, quotes, line breaks, controls, NFC. Written from ftfy's documentation of
// what each step does; it equals ftfy 6.3 except for the rarer kinds of garbling that mojibake.ts names.
import { htmlUnescapeStrict } from './html_unescape.js';
import { repairMojibake } from './mojibake.js';
import { windows1252OfC1 } from './windows_1252.js';

/** One round undoes one level (`&amp;amp;`); ftfy runs to the end, which on made-up input is quadratic. */
const MAX_ROUNDS = 64;
/** UTF-16 units per independently repaired piece when a line is longer; ftfy's bound, too. */
const MAX_SEGMENT = 1_000_000;

/** Latin ligatures and digraphs → their letters. Other scripts' are left alone. */
const LIGATURES: Readonly<Record<string, string>> = {
  Ĳ: 'IJ', ĳ: 'ij', ŉ: 'ʼn', Ǳ: 'DZ', ǲ: 'Dz', ǳ: 'dz', Ǆ: 'DŽ', ǅ: 'Dž', ǆ: 'dž', Ǉ: 'LJ', ǈ: 'Lj', ǉ: 'lj',
  Ǌ: 'NJ', ǋ: 'Nj', ǌ: 'nj', ﬀ: 'ff', ﬁ: 'fi', ﬂ: 'fl', ﬃ: 'ffi', ﬄ: 'ffl', ﬅ: 'ſt', ﬆ: 'st',
}; // prettier-ignore
const LIGATURE = new RegExp(`[${Object.keys(LIGATURES).join('')}]`, 'g');

const TERMINAL_ESCAPE = /\x1b\[[\p{Nd};]*[a-zA-Z]/gu;
/** ASCII controls except tab, newline, form feed and return; deprecated format controls; annotation marks; BOM. */
const CONTROLS = /[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g;

/** @returns the text in NFC with every fix applied; lone surrogates become U+FFFD */
export function fixText(raw: string): string {
  const text = raw.replace(/\p{Surrogate}/gu, '\ufffd');
  let unescape = true;
  const out: string[] = [];
  for (let at = 0; at < text.length;) {
    const newline = text.indexOf('\n', at);
    const end = Math.min(newline < 0 ? text.length : newline + 1, at + MAX_SEGMENT);
    const segment = text.slice(at, end);
    unescape &&= !segment.includes('<'); // markup from here on: its references are meant as they stand
    out.push(fixSegment(segment, unescape));
    at = end;
  }
  return out.join('');
}

function fixSegment(segment: string, unescape: boolean): string {
  let text = segment;
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const before = text;
    // Levels of &amp;amp;…amp; come off one a round; taking all but one off at once ends at the same text.
    if (unescape) text = htmlUnescapeStrict(text.replace(/&(?:amp;)+(?=amp;)/g, '&'));
    text = fixCharacters(repairToTheEnd(text)).normalize('NFC');
    if (text === before) break;
  }
  return text;
}

/** All levels of garbling before anything else: straightening quotes would break the sequences of inner levels. */
function repairToTheEnd(text: string): string {
  let repaired = text;
  for (let level = 0; level < MAX_ROUNDS; level++) {
    const next = repairMojibake(repaired);
    if (next === repaired) break;
    repaired = next;
  }
  return repaired;
}

function fixCharacters(text: string): string {
  return text
    .replace(/[\x80-\x9f]/g, (c1) => windows1252OfC1(c1.charCodeAt(0)))
    .replace(LIGATURE, (char) => LIGATURES[char]!)
    .replace(/[\u3000\uff01-\uffef]/g, (wide) => (wide === '\u3000' ? ' ' : wide.normalize('NFKC')))
    .replace(/[\u201c-\u201f]/g, '"')
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(/\r\n?|[\u2028\u2029\x85]/g, '\n')
    .replace(TERMINAL_ESCAPE, '')
    .replace(CONTROLS, '');
}
