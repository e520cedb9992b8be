/**
 * A1111's generation parameters ("infotext"), the text that web UIs write into and paste from pictures:
 *
 *   prompt, any number of lines
 *   Negative prompt: any number of lines
 *   Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Seed: 5, Size: 64x64, Model: "a, b", Version: …
 *
 * A value with a comma, a colon or a line feed is a JSON string. The last line counts as settings from three on.
 */
export interface Infotext {
  readonly prompt: string;
  readonly negativePrompt: string;
  /** in the order of the text */
  readonly settings: ReadonlyMap<string, string>;
}

const quote = (value: string): string => (/[,:\n]/.test(value) ? JSON.stringify(value) : value);

function unquote(value: string): string {
  if (value.length < 2 || !value.startsWith('"') || !value.endsWith('"')) return value;
  try {
    const text: unknown = JSON.parse(value);
    return typeof text === 'string' ? text : value;
  } catch {
    return value;
  }
}

export function formatInfotext({ prompt, negativePrompt, settings }: Infotext): string {
  const negative = negativePrompt && `\nNegative prompt: ${negativePrompt}`;
  const line = [...settings].map(([name, value]) => `${name}: ${quote(value)}`).join(', ');
  return `${prompt}${negative}\n${line}`.trim();
}

/** One setting and its comma, from where the search stands: a prompt of any length is scanned once. */
const SETTING = /\s*([\p{L}\p{N}_][\p{L}\p{N}_ \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/uy;

function parseSettings(line: string): [name: string, value: string][] {
  const found: [string, string][] = [];
  for (let at = 0; at < line.length;) {
    SETTING.lastIndex = at;
    const match = SETTING.exec(line);
    if (match) found.push([match[1]!, unquote(match[2]!.trim())]);
    const comma = line.indexOf(',', at);
    at = match ? at + match[0].length : comma < 0 ? line.length : comma + 1;
  }
  return found;
}

/** What `formatInfotext` and the web UIs write; whatever cannot be understood is taken as prompt. */
export function parseInfotext(text: string): Infotext {
  const lines = text.trim().split('\n');
  let settings = parseSettings(lines.at(-1)!);
  if (settings.length < 3) settings = [];
  else lines.pop();
  const start = lines.findIndex((line) => line.trim().startsWith('Negative prompt:'));
  const own = start < 0 ? lines : lines.slice(0, start);
  const negative = start < 0 ? [] : lines.slice(start);
  return {
    prompt: joined(own),
    negativePrompt: joined(negative).replace(/^Negative prompt:\s*/, ''),
    settings: new Map(settings),
  };
}

const joined = (lines: readonly string[]): string => lines.map((line) => line.trim()).join('\n');
