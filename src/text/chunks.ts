// Weighted texts → the id rows an encoder takes: BOS, up to 75 tokens, EOS, padding (CLIP), or tokens, EOS, padding
// (T5). What does not fit is an error, is cut, or goes on in further chunks; nothing is lost silently.
import { KotobaError } from '../errors.js';
import { packA1111, packComfyui, type WeightedToken } from './chunk_rules.js';
import { isBreak, type WeightedText } from './prompt.js';
import type { EncodeAsyncOptions, EncodedText, Tokenizer } from './tokenizer.js';

export type EncoderFamily = 'clip-l' | 'clip-g' | 'clip-h' | 'long-clip-l' | 't5';

/** What to do with tokens past `maxLength`. */
export type Overflow = 'error' | 'truncate' | 'chunk';

export interface ChunkLayout {
  /** Tokens of a chunk at most, BOS and EOS included. Infinity: no limit. */
  readonly maxLength: number;
  /** Chunks are padded up to this many tokens. */
  readonly minLength: number;
  /** Token that fills a chunk after its EOS; `eos`: the tokenizer's own. */
  readonly padId: number | 'eos';
  readonly overflow: Overflow;
  /**
   * Where a long prompt is broken. `a1111`: after 75 tokens, or at a comma at most `commaBacktrack` tokens back, and
   * at BREAK. `comfyui`: weighted groups of fewer than 8 tokens stay whole and move to the next chunk. Choose the one
   * of the prompt's dialect: BREAK is a break only under `a1111`.
   */
  readonly rules: 'a1111' | 'comfyui';
  /** A1111's "comma padding backtrack", tokens; 0 turns it off. */
  readonly commaBacktrack: number;
}

/**
 * T5 lengths [min, max] in tokens. The official pipelines pad and cut to one length; ComfyUI only pads.
 * Flux, SD3: no attention mask, so padding changes the result and the length is part of the model's contract.
 */
export const T5_LENGTHS = {
  'flux-dev': [512, 512],
  'flux-schnell': [256, 256],
  sd3: [77, 77],
  'sd3-256': [256, 256],
  'comfyui-flux': [256, Infinity],
  'comfyui-sd3': [77, Infinity],
  unpadded: [1, Infinity],
} as const satisfies Readonly<Record<string, readonly [number, number]>>;

export type T5Length = keyof typeof T5_LENGTHS;

const CLIP_CONTEXT = 77;
const LONG_CLIP_CONTEXT = 248;

const FAMILY_LAYOUTS: Readonly<Record<EncoderFamily, ChunkLayout>> = {
  'clip-l': clipLayout(CLIP_CONTEXT, 'eos'),
  'clip-g': clipLayout(CLIP_CONTEXT, 0),
  'clip-h': clipLayout(CLIP_CONTEXT, 0),
  'long-clip-l': clipLayout(LONG_CLIP_CONTEXT, 'eos'),
  t5: {
    minLength: 1,
    maxLength: Infinity,
    padId: 0,
    overflow: 'truncate',
    rules: 'a1111',
    commaBacktrack: 0,
  },
};

function clipLayout(length: number, padId: ChunkLayout['padId']): ChunkLayout {
  return {
    minLength: length,
    maxLength: length,
    padId,
    overflow: 'chunk',
    rules: 'a1111',
    commaBacktrack: 20,
  };
}

/**
 * The layout a family is used with: CLIP-L 77 padded with EOS, CLIP-G and CLIP-H 77 padded with 0, Long-CLIP 248 padded
 * with EOS, all in chunks; T5 unpadded unless a length is given. Anything can be overridden.
 */
export function chunkLayout(
  family: EncoderFamily,
  overrides: Partial<ChunkLayout> & { t5Length?: T5Length } = {},
): ChunkLayout {
  const { t5Length, ...rest } = overrides;
  if (t5Length !== undefined && !Object.hasOwn(T5_LENGTHS, t5Length))
    throw new KotobaError(
      'ERR_ARGUMENT',
      `t5Length: expected one of ${Object.keys(T5_LENGTHS).join(', ')}, got "${String(t5Length)}"`,
    );
  const lengths = t5Length ? { minLength: T5_LENGTHS[t5Length][0], maxLength: T5_LENGTHS[t5Length][1] } : {};
  return { ...FAMILY_LAYOUTS[family], ...lengths, ...rest };
}

/** One row of the encoder's batch. */
export interface TokenChunk {
  /** [tokens] */
  readonly ids: Int32Array;
  /** [tokens], 1 for BOS, EOS and padding */
  readonly weights: Float64Array;
  /** The vocabulary's spelling of each id. */
  readonly pieces: readonly string[];
  /** The prompt's own tokens are ids[contentStart … contentStart + contentLength). */
  readonly contentStart: number;
  readonly contentLength: number;
  /** Index of the EOS after the content; after it comes padding only. */
  readonly eosIndex: number;
}

export interface TokenizedPrompt {
  /** At least one, all of the same length. */
  readonly chunks: readonly TokenChunk[];
  /** Prompt tokens in the chunks, without BOS, EOS and padding. */
  readonly tokenCount: number;
  /** What was cut off (`overflow: 'truncate'`), in order; empty otherwise. */
  readonly truncated: EncodedText;
  /** Is any weight not 1? */
  readonly hasWeights: boolean;
}

/**
 * @param segments what parsePrompt gives; each is tokenized on its own, as A1111 and ComfyUI do
 * @throws ERR_ARGUMENT for a layout without room for a token, or a prompt too long with `overflow: 'error'`
 */
export function tokenizePrompt(
  tokenizer: Tokenizer,
  segments: readonly WeightedText[],
  layout: ChunkLayout,
): TokenizedPrompt {
  const groups = segments.map((segment) => groupOf(segment, layout, (text) => tokenizer.encode(text)));
  return layOut(tokenizer, groups, layout);
}

/** The same, giving the thread back every few milliseconds. @throws also ERR_CANCELLED */
export async function tokenizePromptAsync(
  tokenizer: Tokenizer,
  segments: readonly WeightedText[],
  layout: ChunkLayout,
  options?: EncodeAsyncOptions,
): Promise<TokenizedPrompt> {
  const groups: TokenGroup[] = [];
  for (const segment of segments) {
    const encoded = await tokenizer.encodeAsync(segment[0], options);
    groups.push(groupOf(segment, layout, () => encoded));
  }
  return layOut(tokenizer, groups, layout);
}

/** The row ComfyUI interpolates from: no prompt, padded to `length` tokens. */
export function emptyPromptChunk(tokenizer: Tokenizer, layout: ChunkLayout, length: number): TokenChunk {
  return frame(tokenizer, [], layout.padId, length);
}

/** The tokens of one segment, or null for A1111's BREAK. */
export type TokenGroup = readonly WeightedToken[] | null;

function groupOf(
  segment: WeightedText,
  { rules }: ChunkLayout,
  encode: (text: string) => EncodedText,
): TokenGroup {
  if (rules === 'a1111' && isBreak(segment)) return null;
  const { ids, pieces } = encode(segment[0]);
  return ids.map((id, i) => ({ id, piece: pieces[i]!, weight: segment[1] }));
}

/** Far beyond what any encoder is padded to; a slip of the keyboard must not fill the memory. */
const MOST_PADDED = 1 << 20;

function checkLayout({ minLength, maxLength, overflow, rules }: ChunkLayout, framing: number): void {
  const capacity = maxLength - framing;
  const wholeNumbers = Number.isInteger(minLength) && (Number.isInteger(capacity) || capacity === Infinity);
  if (!wholeNumbers || capacity < 1 || minLength > maxLength || minLength > MOST_PADDED) {
    throw new KotobaError(
      'ERR_ARGUMENT',
      `chunk lengths: expected whole numbers, room for a token, minimum ≤ maximum and at most ${MOST_PADDED} to be ` +
        `padded to, but received ${minLength} to ${maxLength}`,
    );
  }
  if (!['error', 'truncate', 'chunk'].includes(overflow))
    throw new KotobaError('ERR_ARGUMENT', `overflow: expected error, truncate or chunk, got "${overflow}"`);
  if (!['a1111', 'comfyui'].includes(rules))
    throw new KotobaError('ERR_ARGUMENT', `rules: expected a1111 or comfyui, got "${rules}"`);
}

function layOut(tokenizer: Tokenizer, groups: readonly TokenGroup[], layout: ChunkLayout): TokenizedPrompt {
  const framing = tokenizer.bosId === null ? 1 : 2;
  checkLayout(layout, framing);
  const capacity = layout.maxLength - framing;
  const cut: WeightedToken[] = [];
  const rows =
    layout.overflow === 'chunk'
      ? pack(tokenizer, groups, capacity, layout)
      : [fit(groups, capacity, layout, cut)];
  const longest = rows.reduce((max, row) => Math.max(max, row.length), 0);
  const length = Math.max(layout.minLength, longest + framing);
  return {
    chunks: rows.map((row) => frame(tokenizer, row, layout.padId, length)),
    tokenCount: rows.reduce((sum, row) => sum + row.length, 0),
    truncated: { ids: cut.map(({ id }) => id), pieces: cut.map(({ piece }) => piece) },
    hasWeights: rows.some((row) => row.some(({ weight }) => weight !== 1)),
  };
}

function pack(
  tokenizer: Tokenizer,
  groups: readonly TokenGroup[],
  capacity: number,
  layout: ChunkLayout,
): WeightedToken[][] {
  if (layout.rules === 'comfyui') return packComfyui(groups, capacity);
  return packA1111(groups, capacity, tokenizer.commaId, layout.commaBacktrack);
}

/** Everything in one chunk; BREAK has nothing to break then. */
function fit(
  groups: readonly TokenGroup[],
  capacity: number,
  layout: ChunkLayout,
  cut: WeightedToken[],
): WeightedToken[] {
  const all = groups.flatMap((group) => group ?? []);
  if (all.length <= capacity) return all;
  if (layout.overflow === 'error') {
    throw new KotobaError(
      'ERR_ARGUMENT',
      `the prompt has ${all.length} tokens but the encoder takes ${capacity}: shorten it, or choose truncate or chunk`,
    );
  }
  for (const token of all.slice(capacity)) cut.push(token);
  return all.slice(0, capacity);
}

function frame(
  tokenizer: Tokenizer,
  row: readonly WeightedToken[],
  pad: ChunkLayout['padId'],
  length: number,
): TokenChunk {
  const padId = pad === 'eos' ? tokenizer.eosId : pad;
  const contentStart = tokenizer.bosId === null ? 0 : 1;
  const eosIndex = contentStart + row.length;
  const size = Math.max(length, eosIndex + 1);
  const ids = new Int32Array(size).fill(padId);
  const weights = new Float64Array(size).fill(1);
  const pieces = new Array<string>(size).fill(tokenizer.piece(padId));
  const put = (at: number, { id, piece, weight }: WeightedToken) => {
    ids[at] = id;
    pieces[at] = piece;
    weights[at] = weight;
  };
  const special = (id: number) => ({ id, piece: tokenizer.piece(id), weight: 1 });
  if (tokenizer.bosId !== null) put(0, special(tokenizer.bosId));
  for (const [i, token] of row.entries()) put(contentStart + i, token);
  put(eosIndex, special(tokenizer.eosId));
  return { ids, weights, pieces, contentStart, contentLength: row.length, eosIndex };
}
