/** Prompts from the command line, from files and from stdin: one a line. */
import { KotobaError } from '../errors.js';
import type { Io } from './io.js';
import { decodeUtf8, readText } from './options.js';

/**
 * @param given prompts in order; `-` stands for the lines of stdin
 * @param files more prompts, a line each; `-` as above
 * @throws KotobaError ERR_ARGUMENT without any prompt
 */
export async function readPrompts(
  given: readonly string[],
  files: readonly string[],
  stdin: Io['stdin'],
): Promise<string[]> {
  if ([...given, ...files].filter((name) => name === '-').length > 1)
    throw new KotobaError('ERR_ARGUMENT', 'prompts: stdin (-) can be read only once');
  const prompts: string[] = [];
  for (const prompt of given) prompts.push(...(prompt === '-' ? await readStdin(stdin) : [prompt]));
  for (const file of files)
    prompts.push(...(file === '-' ? await readStdin(stdin) : lines(readText(file, '--prompt-file'))));
  if (prompts.length === 0)
    throw new KotobaError('ERR_ARGUMENT', 'prompts: expected at least one, got none; see --help');
  return prompts;
}

async function readStdin(stdin: Io['stdin']): Promise<string[]> {
  const parts: Buffer[] = [];
  for await (const part of stdin) parts.push(Buffer.from(part as Uint8Array));
  return lines(decodeUtf8(Buffer.concat(parts), 'stdin'));
}

/** An empty line is an empty prompt; the end of the last line is no prompt. */
function lines(text: string): string[] {
  const all = text.split(/\r?\n/);
  if (all.at(-1) === '') all.pop();
  return all;
}
