// Hugging Face's tokenizer.json of a CLIP: a byte-level BPE with `</w>` and CLIP's two special tokens.
import { KotobaError } from '../errors.js';
import {
  BYTE_CHARACTERS,
  CLIP_BOS_PIECE,
  CLIP_EOS_PIECE,
  vocabularyOf,
  type ClipVocabulary,
} from './clip_vocabulary.js';
import { MAX_PIECES } from './unigram_vocabulary.js';

type Json = Readonly<Record<string, unknown>>;

const WORD_END = '</w>';

/** @throws ERR_TOKENIZER_FORMAT for anything but a CLIP tokenizer.json */
export function readClipTokenizerJson(text: string, source: string): ClipVocabulary {
  const root = object(parseJson(text, source), source, 'the file');
  const model = object(root.model, source, '"model"');
  if (model.type !== 'BPE' || model.end_of_word_suffix !== WORD_END)
    throw formatError(
      source,
      `expected a BPE model whose words end in ${WORD_END}, which CLIP has, but found ${JSON.stringify(model.type)} ` +
        `with ${JSON.stringify(model.end_of_word_suffix ?? null)}`,
    );
  const ids = new Map(Object.entries(object(model.vocab, source, '"model.vocab"')));
  for (const { content, id } of list(root.added_tokens ?? [], source, '"added_tokens"').map((entry) =>
    object(entry, source, 'an entry of "added_tokens"'),
  ))
    if (typeof content === 'string') ids.set(content, id);
  const pieces = piecesById(ids, source);
  const merges = list(model.merges, source, '"model.merges"').map((merge, i) =>
    mergeText(merge, i, ids, source),
  );
  const needed = [
    CLIP_BOS_PIECE,
    CLIP_EOS_PIECE,
    ...BYTE_CHARACTERS,
    ...BYTE_CHARACTERS.map((char) => char + WORD_END),
  ];
  const absent = needed.find((piece) => !ids.has(piece));
  if (absent !== undefined)
    throw formatError(
      source,
      `expected CLIP's special tokens and every byte, but ${JSON.stringify(absent)} is missing`,
    );
  return vocabularyOf(source, pieces, merges);
}

/** Ids must be 0, 1, 2, …, each once. */
function piecesById(ids: ReadonlyMap<string, unknown>, source: string): string[] {
  if (ids.size > MAX_PIECES)
    throw formatError(source, `expected at most ${MAX_PIECES} pieces but found ${ids.size}`);
  const pieces = new Array<string | undefined>(ids.size).fill(undefined);
  for (const [piece, id] of ids) {
    const isFree = Number.isInteger(id) && (id as number) in pieces && pieces[id as number] === undefined;
    if (!isFree)
      throw formatError(
        source,
        `expected ids 0 to ${ids.size - 1}, each once, but ${JSON.stringify(piece)} has ${JSON.stringify(id)}`,
      );
    pieces[id as number] = piece;
  }
  return pieces as string[];
}

/** "left right" of old files, ["left", "right"] of new ones. */
function mergeText(merge: unknown, i: number, ids: ReadonlyMap<string, unknown>, source: string): string {
  const [left, right, ...more] =
    typeof merge === 'string' ? merge.split(' ') : Array.isArray(merge) ? merge : [];
  const isPair = typeof left === 'string' && typeof right === 'string' && more.length === 0;
  if (!isPair || !ids.has(left) || !ids.has(right) || !ids.has(left + right))
    throw formatError(source, `merge ${i}, ${JSON.stringify(merge)}, is no pair of pieces that make a piece`);
  return `${left} ${right}`;
}

function parseJson(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw formatError(source, `not JSON, or cut off: ${(cause as Error).message}`, { cause });
  }
}

function object(value: unknown, source: string, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw formatError(source, `expected ${what} to be an object`);
  return value as Json;
}

function list(value: unknown, source: string, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw formatError(source, `expected ${what} to be a list`);
  return value as readonly unknown[];
}

function formatError(source: string, problem: string, options?: ErrorOptions): KotobaError {
  return new KotobaError('ERR_TOKENIZER_FORMAT', `CLIP vocabulary ${source}: ${problem}`, options);
}
