// `spiece.model`: a serialised SentencePiece ModelProto. Fields used, by number:
// model 1 piece*, 2 trainer, 3 normalizer; piece 1 text, 2 score, 3 type; trainer 3 model type, 24 white space as
// suffix, 40 unk, 41 bos, 42 eos, 43 pad; normalizer 2 charsmap, 3 dummy prefix, 4 remove extra spaces, 5 escape.
import { protobufFields } from './protobuf.js';
import {
  checkVocabulary,
  formatError,
  MAX_PIECES,
  MAX_VOCABULARY_BYTES,
  type NormalizerSpec,
  type PieceKind,
  type UnigramVocabulary,
} from './unigram_vocabulary.js';

const KINDS: readonly (PieceKind | undefined)[] = [
  undefined,
  'normal',
  'unknown',
  'control',
  'user',
  'unused',
  'byte',
];
const UNIGRAM = 1;
/** T5 adds this many sentinels after the pieces, counting down: the last id is <extra_id_0>. */
const EXTRA_IDS = 100;

/** @throws ERR_TOKENIZER_FORMAT for anything but a whole unigram model */
export function readSentencePieceModel(bytes: Uint8Array, source: string): UnigramVocabulary {
  if (bytes.length > MAX_VOCABULARY_BYTES) {
    throw formatError(source, `expected at most ${MAX_VOCABULARY_BYTES} bytes but found ${bytes.length}`);
  }
  try {
    return checkVocabulary(readModel(bytes, source));
  } catch (cause) {
    if (cause instanceof Error && cause.name !== 'KotobaError') {
      throw formatError(source, `not a whole SentencePiece model: ${cause.message}`, { cause });
    }
    throw cause;
  }
}

function readModel(bytes: Uint8Array, source: string): UnigramVocabulary {
  const pieces: Piece[] = [];
  let trainer: Uint8Array | undefined;
  let normalizer: Uint8Array | undefined;
  for (const { number, value } of protobufFields(bytes)) {
    if (!(value instanceof Uint8Array)) continue;
    if (number === 1) pieces.push(readPiece(value, pieces.length));
    else if (number === 2) trainer = value;
    else if (number === 3) normalizer = value;
    if (pieces.length > MAX_PIECES) throw new Error(`more than ${MAX_PIECES} pieces`);
  }
  if (pieces.length === 0) throw new Error('it has no pieces');
  if (!trainer || !normalizer) {
    throw new Error(
      `expected a trainer and a normalizer section after ${pieces.length} pieces; the file may be cut off`,
    );
  }
  const ids = readTrainer(trainer);
  const texts = pieces.map((piece) => piece.text);
  return {
    source,
    pieces: texts,
    scores: pieces.map((piece) => piece.score),
    kinds: pieces.map((piece) => piece.kind),
    unknownId: ids.unknown,
    eosId: ids.eos >= 0 ? ids.eos : texts.indexOf('</s>'),
    padId: ids.pad >= 0 ? ids.pad : 0,
    normalizer: readNormalizer(normalizer),
    specials: specialTexts(pieces),
  };
}

interface Piece {
  readonly text: string;
  readonly score: number;
  readonly kind: PieceKind;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function readPiece(bytes: Uint8Array, id: number): Piece {
  let text = '';
  let score = 0;
  let kind: PieceKind | undefined = 'normal';
  for (const { number, value } of protobufFields(bytes)) {
    if (number === 1 && value instanceof Uint8Array) text = utf8.decode(value);
    else if (number === 2 && typeof value === 'number') score = value;
    else if (number === 3 && typeof value === 'number') kind = KINDS[value];
  }
  if (!kind) throw new Error(`piece ${id} "${text}" has an unknown type`);
  return { text, score, kind };
}

function readTrainer(bytes: Uint8Array): { unknown: number; eos: number; pad: number } {
  const numbers = new Map<number, number>();
  for (const { number, value } of protobufFields(bytes))
    if (typeof value === 'number') numbers.set(number, value);
  const type = numbers.get(3) ?? UNIGRAM;
  if (type !== UNIGRAM)
    throw new Error(`expected a unigram model (type 1), which T5 uses, but found type ${type}`);
  if (numbers.get(24)) throw new Error('its words end, not begin, with the space mark; no T5 does that');
  return { unknown: numbers.get(40) ?? 0, eos: numbers.get(42) ?? 2, pad: numbers.get(43) ?? -1 };
}

function readNormalizer(bytes: Uint8Array): NormalizerSpec {
  let charsmap: Uint8Array | null = null;
  const flags = new Map<number, boolean>();
  for (const { number, value } of protobufFields(bytes)) {
    if (number === 2 && value instanceof Uint8Array && value.length > 0) charsmap = value.slice();
    else if (typeof value === 'number') flags.set(number, value !== 0);
  }
  if (flags.get(5) === false)
    throw new Error('it leaves spaces unmarked (escape_whitespaces = false); no T5 does that');
  return { charsmap, addDummyPrefix: flags.get(3) ?? true, removeExtraWhitespaces: flags.get(4) ?? true };
}

function specialTexts(pieces: readonly Piece[]): Map<string, number> {
  const specials = new Map<string, number>();
  for (const [id, { text, kind }] of pieces.entries())
    if (kind === 'control' || kind === 'unknown') specials.set(text, id);
  if (!pieces.some(({ text }) => text === '<extra_id_0>')) {
    for (let n = 0; n < EXTRA_IDS; n++) specials.set(`<extra_id_${n}>`, pieces.length + EXTRA_IDS - 1 - n);
  }
  return specials;
}
