/** Prompts → equally long token rows for the device, and the encoded rows back to one embedding per prompt. */
import type { TextNetwork, TokenBatch } from '../encoders/text_network.js';
import { KotobaError } from '../errors.js';
import {
  emphasizeKeepingMean,
  emptyPromptChunk,
  interpolateFromEmpty,
  type ChunkLayout,
  type PromptDialect,
  type TokenChunk,
  type TokenizedPrompt,
  type Tokenizer,
} from '../text/index.js';

/** Tokens of one pass at most: more does not make it faster, and activations grow with it. */
const TOKENS_PER_PASS = 4096;

/** Rows of one length that go to the device together. */
export interface Pass {
  readonly rows: readonly TokenChunk[];
  /** [rows · tokens] */
  readonly ids: Int32Array;
}

/** What one row comes back as. */
export interface EncodedRow {
  /** [tokens, width] */
  readonly hidden: Float32Array;
  /** [width] */
  readonly pooled?: Float32Array | undefined;
  /** [projection] */
  readonly projected?: Float32Array | undefined;
  /** Number → [tokens, width], raw. */
  readonly hiddenStates: ReadonlyMap<number, Float32Array>;
}

/** One empty row per length, where ComfyUI's weights need it. */
export function emptyRows(tokenizer: Tokenizer, prompts: readonly TokenizedPrompt[], layout: ChunkLayout) {
  const lengths = new Set(prompts.filter((p) => p.hasWeights).map((p) => p.chunks[0]!.ids.length));
  return new Map([...lengths].map((length) => [length, emptyPromptChunk(tokenizer, layout, length)]));
}

export function passes(rows: readonly TokenChunk[]): Pass[] {
  return [...groupByLength(rows)].flatMap(([length, group]) => {
    const perPass = Math.max(1, Math.floor(TOKENS_PER_PASS / length));
    const count = Math.ceil(group.length / perPass);
    return Array.from({ length: count }, (_, i) => {
      const part = group.slice(i * perPass, (i + 1) * perPass);
      const ids = new Int32Array(part.length * length);
      for (const [at, row] of part.entries()) ids.set(row.ids, at * length);
      return { rows: part, ids };
    });
  });
}

/** Map.groupBy needs Node 21. */
function groupByLength(rows: readonly TokenChunk[]): Map<number, TokenChunk[]> {
  const groups = new Map<number, TokenChunk[]>();
  for (const row of rows) {
    const group = groups.get(row.ids.length);
    if (group) group.push(row);
    else groups.set(row.ids.length, [row]);
  }
  return groups;
}

/**
 * Applies the prompt's weights to each of its rows, and joins the rows along the tokens.
 * @param dialect whose weights; undefined: none
 */
export function joinRows(
  prompt: TokenizedPrompt,
  encoded: ReadonlyMap<TokenChunk, EncodedRow>,
  empty: EncodedRow | undefined,
  dialect: PromptDialect | undefined,
): Float32Array {
  const rows = prompt.chunks.map((chunk) => {
    const { hidden } = encoded.get(chunk)!;
    if (!prompt.hasWeights || dialect === undefined) return hidden;
    return dialect === 'comfyui' && empty
      ? interpolateFromEmpty(hidden, empty.hidden, chunk.weights)
      : emphasizeKeepingMean(hidden, chunk.weights);
  });
  return concatenate(rows);
}

/** @throws KotobaError ERR_ARGUMENT, ERR_TOKEN_ID for ids that are not this network's */
export function requireTokens({ ids, batch, mask }: TokenBatch, network: TextNetwork): void {
  const tokens = ids.length / batch;
  const { positions, vocabulary, name } = network;
  if (!Number.isInteger(tokens) || tokens < 1 || tokens > positions)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${name}: expected 1 to ${positions} tokens in each of ${batch} sequences, got ${ids.length} ids`,
    );
  if (mask && mask.length !== ids.length)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${name}: expected a mask of ${ids.length} values, got ${mask.length}`,
    );
  const bad = ids.findIndex((id) => id < 0 || id >= vocabulary);
  if (bad >= 0)
    throw new KotobaError(
      'ERR_TOKEN_ID',
      `${name}: expected ids from 0 to ${vocabulary - 1}, got ${ids[bad]} at position ${bad}: ` +
        `the tokenizer does not belong to these weights`,
    );
}

/** One after another. */
export function concatenate(parts: readonly Float32Array[]): Float32Array {
  if (parts.length === 1) return parts[0]!;
  const joined = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
