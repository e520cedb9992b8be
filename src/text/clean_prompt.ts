// What happens to a prompt before CLIP's byte-pair encoding, in the three ways people's software does it.
import { fixText } from './fix_text.js';
import { htmlUnescape } from './html_unescape.js';
import { collapsePythonSpaces, pythonStrip } from './python_text.js';

/**
 * Which tokenizer a prompt is cleaned for. They differ only on unusual text (curly quotes, full-width letters, CJK,
 * character references, emoji joiners); on plain prompts the ids are the same.
 * - `openai`: openai/CLIP simple_tokenizer with ftfy: what the model was trained on, and the default.
 * - `comfyui`: transformers' CLIPTokenizer without ftfy, which is what ComfyUI and A1111-like programs usually run:
 *   drops control characters, puts spaces around CJK ideographs.
 * - `hf`: the tokenizer.json normaliser (CLIPTokenizerFast): NFC, collapsed spaces, lower case.
 */
export type ClipFlavour = 'openai' | 'comfyui' | 'hf';

/** Lower-cased, normalised text with single spaces. Never throws; lone surrogates become U+FFFD. */
export function cleanPrompt(text: string, flavour: ClipFlavour): string {
  if (flavour === 'openai') return cleanOpenai(text);
  const wellFormed = text.replace(/\p{Surrogate}/gu, '\ufffd');
  return flavour === 'comfyui' ? cleanBasicTokenizer(wellFormed) : cleanFast(wellFormed);
}

/** ftfy, then html.unescape twice (the original does both), strip, collapse, lower. */
function cleanOpenai(text: string): string {
  const basic = pythonStrip(htmlUnescape(htmlUnescape(fixText(text))));
  return pythonStrip(collapsePythonSpaces(basic)).toLowerCase();
}

// The ideograph blocks around which BERT's basic tokenizer puts spaces; kana and Hangul are not among them.
const IDEOGRAPH =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b820}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;
/** U+FFFD and every character of category C (control, format, private, unassigned) but tab, newline and return. */
const UNWANTED = /(?![\t\n\r])[\p{C}\ufffd]/gu;

/** transformers' BasicTokenizer(strip_accents=False, do_split_on_punc=False), its words joined by spaces. */
function cleanBasicTokenizer(text: string): string {
  const spaced = text
    .replace(UNWANTED, '')
    .replace(/[\t\n\r\p{Zs}]/gu, ' ')
    .replace(IDEOGRAPH, ' $& ');
  const words = pythonStrip(collapsePythonSpaces(spaced.normalize('NFC')));
  return words
    .split(' ')
    .map((word) => word.toLowerCase())
    .join(' ');
}

/** Rust's Lowercase maps character by character, so a final capital sigma becomes σ, never ς. */
function cleanFast(text: string): string {
  const spaced = text.normalize('NFC').replace(/\p{White_Space}+/gu, ' ');
  return spaced.replace(/\p{Changes_When_Lowercased}/gu, (char) => char.toLowerCase());
}
