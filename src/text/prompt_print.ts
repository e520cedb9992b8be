// Weighted texts → a prompt that parses back to them; for metadata and for editing what was parsed.
import { formatWeight, isBreak, type PromptDialect, type WeightedText } from './prompt.js';
import { isPythonSpace } from './python_text.js';

/**
 * parsePrompt(printPrompt(x, d), d) equals x for every x that parsePrompt gives (finite weights). Weights in `plain`
 * are lost: that dialect has none.
 */
export function printPrompt(segments: readonly WeightedText[], dialect: PromptDialect): string {
  if (dialect === 'a1111') return printA1111(segments);
  if (dialect === 'comfyui') return printComfyui(segments);
  return segments.map(([text]) => text).join('');
}

function printA1111(segments: readonly WeightedText[]): string {
  return segments
    .map((segment, i) => {
      if (isBreak(segment)) return printBreak(segments[i - 1]?.[0], segments[i + 1]?.[0]);
      const [text, weight] = segment;
      // A lone backslash vanishes, so it can stand for an empty text and keep the word BREAK from breaking.
      const escaped = text.replace(/[\\()[\]]/g, '\\$&').replaceAll('BREAK', 'BR\\EAK') || '\\';
      return weight === 1 && text !== '' ? escaped : `(${escaped}:${formatWeight(weight)})`;
    })
    .join('');
}

/** White space next to BREAK is dropped unless a (vanishing) backslash stands between. */
function printBreak(before = '', after = ''): string {
  return `${isPythonSpace(before.at(-1)) ? '\\' : ''} BREAK ${isPythonSpace(after[0]) ? '\\' : ''}`;
}

function printComfyui(segments: readonly WeightedText[]): string {
  let afterPlain = false;
  return segments
    .map(([text, weight]) => {
      const escaped = text.replace(/[()]/g, '\\$&');
      afterPlain = weight === 1 && !afterPlain && !text.endsWith('\\'); // `\` would escape the next bracket
      return afterPlain ? escaped : `(${escaped}:${formatWeight(weight)})`;
    })
    .join('');
}
