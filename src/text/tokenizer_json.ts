// Hugging Face's tokenizer.json of a T5: a Unigram model with its SentencePiece rules as a normaliser chain.
// Read as the SentencePiece model it was converted from, so that all three sources give the same ids.
import {
  checkVocabulary,
  formatError,
  MAX_PIECES,
  MAX_VOCABULARY_BYTES,
  type NormalizerSpec,
  type PieceKind,
  type UnigramVocabulary,
} from './unigram_vocabulary.js';

type Json = Readonly<Record<string, unknown>>;

const BYTE_PIECE = /^<0x[0-9A-F]{2}>$/;

/** @throws ERR_TOKENIZER_FORMAT for anything but a T5 tokenizer.json */
export function readTokenizerJson(text: string, source: string): UnigramVocabulary {
  if (text.length > MAX_VOCABULARY_BYTES) {
    throw formatError(source, `expected at most ${MAX_VOCABULARY_BYTES} characters but found ${text.length}`);
  }
  const root = object(parseJson(text, source), source, 'the file');
  const model = object(root.model, source, '"model"');
  if (model.type !== 'Unigram') {
    const kind =
      typeof model.type === 'string'
        ? `${model.type}${model.type === 'BPE' ? ' (CLIP has one)' : ''}`
        : 'none';
    throw formatError(
      source,
      `expected a tokenizer.json with a Unigram model, which T5 uses, but found the model type ${kind}`,
    );
  }
  const specials = readAddedTokens(root.added_tokens, source);
  const { pieces, scores } = readPieces(model.vocab, source);
  const unknownId = typeof model.unk_id === 'number' ? model.unk_id : pieces.indexOf('<unk>');
  const added = new Set(specials.values());
  return checkVocabulary({
    source,
    pieces,
    scores,
    kinds: pieces.map((piece, id): PieceKind => {
      if (id === unknownId) return 'unknown';
      if (added.has(id)) return 'control';
      return model.byte_fallback === true && BYTE_PIECE.test(piece) ? 'byte' : 'normal';
    }),
    unknownId,
    eosId: specials.get('</s>') ?? pieces.indexOf('</s>'),
    padId: specials.get('<pad>') ?? 0,
    normalizer: readNormalizer(root, source),
    specials,
  });
}

function parseJson(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw formatError(source, `not JSON, or cut off: ${(cause as Error).message}`, { cause });
  }
}

function object(value: unknown, source: string, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw formatError(
      source,
      `expected ${what} to be an object but found ${value === undefined ? 'nothing' : JSON.stringify(value).slice(0, 40)}`,
    );
  }
  return value as Json;
}

function readPieces(vocab: unknown, source: string): { pieces: string[]; scores: number[] } {
  if (!Array.isArray(vocab) || vocab.length > MAX_PIECES) {
    throw formatError(
      source,
      `expected "model.vocab" to be a list of at most ${MAX_PIECES} [piece, score] pairs`,
    );
  }
  const pieces: string[] = [];
  const scores: number[] = [];
  for (const [id, entry] of (vocab as unknown[]).entries()) {
    const [piece, score] = Array.isArray(entry) ? (entry as unknown[]) : [];
    if (typeof piece !== 'string' || typeof score !== 'number') {
      throw formatError(source, `expected entry ${id} of "model.vocab" to be [piece, score]`);
    }
    pieces.push(piece);
    scores.push(score);
  }
  return { pieces, scores };
}

function readAddedTokens(value: unknown, source: string): Map<string, number> {
  const specials = new Map<string, number>();
  if (value === undefined || value === null) return specials;
  if (!Array.isArray(value)) throw formatError(source, 'expected "added_tokens" to be a list');
  for (const [i, entry] of (value as unknown[]).entries()) {
    const { id, content } = object(entry, source, `entry ${i} of "added_tokens"`);
    if (
      typeof content !== 'string' ||
      !Number.isInteger(id) ||
      (id as number) < 0 ||
      (id as number) > MAX_PIECES
    ) {
      throw formatError(source, `expected entry ${i} of "added_tokens" to have a text and an id`);
    }
    specials.set(content, id as number);
  }
  return specials;
}

// What remains beside Precompiled is how converters spell SentencePiece's own white-space rules, in several ways over
// the years (Strip, Replace " {2,}", WhitespaceSplit, Metaspace); T5 removes extra spaces and prefixes one in all.
const WHITE_SPACE_STEPS = new Set(['Strip', 'Replace', 'Metaspace', 'WhitespaceSplit']);

function readNormalizer(root: Json, source: string): NormalizerSpec {
  let charsmap: Uint8Array | null = null;
  for (const step of [
    ...steps(root.normalizer, 'normalizers', source),
    ...steps(root.pre_tokenizer, 'pretokenizers', source),
  ]) {
    if (step.type === 'Precompiled') charsmap = decodeCharsmap(step.precompiled_charsmap, source);
    else if (!WHITE_SPACE_STEPS.has(String(step.type))) {
      throw formatError(
        source,
        `its normalisation step "${String(step.type)}" is none that a T5 tokenizer has`,
      );
    }
  }
  return { charsmap, addDummyPrefix: true, removeExtraWhitespaces: true };
}

function steps(value: unknown, listKey: string, source: string): Json[] {
  if (value === undefined || value === null) return [];
  const step = object(value, source, `the ${listKey} step`);
  if (step.type !== 'Sequence') return [step];
  const list = step[listKey];
  if (!Array.isArray(list)) throw formatError(source, `expected "${listKey}" to be a list`);
  return (list as unknown[]).map((entry) => object(entry, source, `an entry of "${listKey}"`));
}

function decodeCharsmap(value: unknown, source: string): Uint8Array | null {
  if (value === null || value === undefined || value === '') return null;
  if (typeof value !== 'string' || !/^[A-Za-z0-9+/]*={0,2}$/.test(value)) {
    throw formatError(source, 'expected "precompiled_charsmap" in base64');
  }
  return new Uint8Array(Buffer.from(value, 'base64'));
}
