/** Words for golden CLIPs of 600 random ids: a tokenizer.json that spells chosen ids as words, laid beside their weights. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BYTE_CHARACTERS } from '../../src/text/clip_vocabulary.js';
import { golden } from './golden.js';

const ROWS = 600;
const LETTERS = 'abcdefghijklmnopqrstuvwxyz';
/** As many as the vocabulary has room for beside every byte, with and without a word's end, and two special tokens. */
const MERGED = Array.from({ length: ROWS - 2 * 256 - 2 }, (_, i) => [
  LETTERS[Math.floor(i / LETTERS.length)]!,
  LETTERS[i % LETTERS.length]!,
]);

/** Words that are one token each, in an order of their own. */
export const WORDS: readonly string[] = [...LETTERS, ...MERGED.map((pair) => pair.join(''))];

/**
 * Copies a golden CLIP to `dir`.
 * @param spelling word → id; other words get the ids that are left
 * @returns the path of the weights
 */
export function goldenClip(dir: string, name: string, spelling: ReadonlyMap<string, number>): string {
  const used = new Set(spelling.values());
  const free = Array.from({ length: ROWS - 2 }, (_, id) => id).filter((id) => !used.has(id));
  const pieces = [
    ...BYTE_CHARACTERS,
    ...BYTE_CHARACTERS.map((char) => `${char}</w>`),
    ...MERGED.map(([left, right]) => `${left}${right}</w>`),
  ];
  const idOf = (piece: string): number => spelling.get(piece.replace('</w>', '')) ?? free.shift()!;
  const vocab = Object.fromEntries(
    pieces.map((piece) => [piece, piece.endsWith('</w>') ? idOf(piece) : free.shift()!]),
  );
  Object.assign(vocab, { '<|startoftext|>': ROWS - 2, '<|endoftext|>': ROWS - 1 });
  const merges = MERGED.map(([left, right]) => `${left} ${right}</w>`);
  mkdirSync(join(dir, name), { recursive: true });
  for (const file of ['model.safetensors', 'config.json'])
    copyFileSync(golden(`encoders/${name}/${file}`), join(dir, name, file));
  const model = { type: 'BPE', end_of_word_suffix: '</w>', vocab, merges };
  writeFileSync(join(dir, name, 'tokenizer.json'), JSON.stringify({ added_tokens: [], model }));
  return join(dir, name, 'model.safetensors');
}

/** Content ids of a golden sequence, spelled: the text, and which word stands for which id. */
export function spell(
  ids: ArrayLike<number>,
  words: readonly string[] = WORDS,
): { readonly text: string; readonly spelling: ReadonlyMap<string, number> } {
  const content = Array.from(ids).slice(1, Array.from(ids).indexOf(ROWS - 1));
  const distinct = [...new Set(content)];
  const spelling = new Map(distinct.map((id, i) => [words[i]!, id]));
  const wordOf = new Map([...spelling].map(([word, id]) => [id, word]));
  return { text: content.map((id) => wordOf.get(id)!).join(' '), spelling };
}
