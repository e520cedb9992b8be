// Which vocabulary a CLIP is used with: the tokenizer.json that lies with its weights, else the built-in one.
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { KotobaError } from '../errors.js';
import { clipTokenizer, type ClipTokenizer, type ClipTokenizerOptions } from './clip_tokenizer.js';
import { readClipTokenizerJson } from './clip_tokenizer_json.js';
import { CLIP_VOCABULARY_SIZE } from './clip_vocabulary.js';
import { MAX_VOCABULARY_BYTES } from './unigram_vocabulary.js';

export interface LoadClipTokenizerOptions extends Pick<ClipTokenizerOptions, 'flavour'> {
  /** The file that holds the weights. */
  readonly weights: string;
  /** Rows of the embedding table. */
  readonly rows: number;
  /** The id that ends a text, where the pooled vector is taken. */
  readonly eosId: number;
}

/**
 * The tokenizer of a CLIP. Its own tokenizer.json counts where its ids fit the embedding table; a file of another
 * kind (a T5's) is passed over.
 * @throws ERR_TOKENIZER_MISSING where the table is not of the usual size and no file fits; ERR_TOKENIZER_FORMAT,
 *   ERR_FILE_READ for a damaged file
 */
export async function loadClipTokenizer(options: LoadClipTokenizerOptions): Promise<ClipTokenizer> {
  const { weights, rows, eosId, flavour } = options;
  const candidates = clipTokenizerPlaces(weights);
  const misfits: string[] = [];
  for (const file of candidates) {
    const text = await readBpe(file);
    if (text === undefined) continue;
    const vocabulary = readClipTokenizerJson(text, file);
    if (vocabulary.pieces.length <= rows && vocabulary.eosId === eosId)
      return clipTokenizer({ ...(flavour && { flavour }), vocabulary });
    misfits.push(`${file} has ${vocabulary.pieces.length} pieces and ends texts with ${vocabulary.eosId}`);
  }
  if (rows === CLIP_VOCABULARY_SIZE) return clipTokenizer(flavour ? { flavour } : {});
  const found = misfits.length > 0 ? misfits.join('; ') : `looked for ${candidates.join(', ')}`;
  throw new KotobaError(
    'ERR_TOKENIZER_MISSING',
    `${weights}: this CLIP knows ${rows} tokens and ends texts with ${eosId}, so it is not used with the usual vocabulary ` +
      `of ${CLIP_VOCABULARY_SIZE}: put its own tokenizer.json beside the weights (${found})`,
  );
}

/** Beside the weights, in `tokenizer` there, and in the `tokenizer*` that belongs to a diffusers `text_encoder*`. */
export function clipTokenizerPlaces(weights: string): string[] {
  const dir = path.dirname(path.resolve(weights));
  const sibling = /^text_encoder(_\d)?$/.exec(path.basename(dir));
  const folders = [dir, path.join(dir, 'tokenizer')];
  if (sibling !== null) folders.push(path.join(dir, '..', `tokenizer${sibling[1] ?? ''}`));
  return folders.map((folder) => path.join(folder, 'tokenizer.json'));
}

/** undefined where there is no such file, or it is no BPE's. */
async function readBpe(file: string): Promise<string | undefined> {
  const found = await stat(file).catch(() => undefined);
  if (!found?.isFile() || found.size > MAX_VOCABULARY_BYTES) return undefined;
  try {
    const text = (await readFile(file, 'utf8')).replace(/^\ufeff/, '');
    return /"type"\s*:\s*"BPE"/.test(text) ? text : undefined;
  } catch (cause) {
    throw new KotobaError(
      'ERR_FILE_READ',
      `cannot read the CLIP tokenizer ${file}: ${(cause as Error).message}`,
      { cause },
    );
  }
}
