// Where the vocabulary of a T5 is looked for on disk, and what to say when it is nowhere.
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { KotobaError } from '../errors.js';
import { hasGgufT5Vocabulary, readGgufVocabulary, type GgufMetadata } from './gguf_vocabulary.js';
import { readSentencePieceModel } from './sentencepiece_model.js';
import { t5Tokenizer, type T5Tokenizer, type T5TokenizerOptions } from './t5_tokenizer.js';
import { readTokenizerJson } from './tokenizer_json.js';
import { formatError, MAX_VOCABULARY_BYTES, type UnigramVocabulary } from './unigram_vocabulary.js';

// spiece.model first: it reads faster and is the original. Other repositories name it as T5's ancestors do.
const FILE_NAMES = ['spiece.model', 'tokenizer.json'] as const;
/** Sub-folders of a diffusers pipeline; SD3 keeps T5's in the third, Flux in the second. */
const FOLDERS = ['', 'tokenizer_3', 'tokenizer_2', 'tokenizer'] as const;

export interface T5TokenizerSearch {
  /** The file found, or null. */
  readonly file: string | null;
  /** Every place looked at, for the message when there is none. */
  readonly lookedAt: readonly string[];
}

/**
 * Looks for `spiece.model` or a Unigram `tokenizer.json` beside the weights, in `tokenizer*` folders there, and the
 * same in the parent folder (diffusers layout). A CLIP tokenizer.json in such a folder is passed over.
 * @param dirs folders that hold the weights
 * @param explicitPath a file or folder given by the user: then nothing else is looked at
 * @throws ERR_FILE_NOT_FOUND if explicitPath does not exist or holds no vocabulary
 */
export async function findT5Tokenizer(
  dirs: readonly string[],
  explicitPath?: string,
): Promise<T5TokenizerSearch> {
  if (explicitPath !== undefined) return { file: await explicitFile(explicitPath), lookedAt: [explicitPath] };
  const lookedAt: string[] = [];
  for (const dir of new Set(dirs.flatMap((d) => [path.resolve(d), path.dirname(path.resolve(d))]))) {
    const file = await searchFolder(dir, lookedAt);
    if (file) return { file, lookedAt };
  }
  return { file: null, lookedAt };
}

async function explicitFile(given: string): Promise<string> {
  const kind = await kindOf(given);
  if (kind === 'file') return given;
  const found = kind === 'folder' ? await searchFolder(given, []) : null;
  if (found) return found;
  const problem =
    kind === 'folder' ? 'has neither spiece.model nor a Unigram tokenizer.json' : 'does not exist';
  throw new KotobaError('ERR_FILE_NOT_FOUND', `the T5 tokenizer ${given} ${problem}`);
}

async function searchFolder(dir: string, lookedAt: string[]): Promise<string | null> {
  for (const folder of FOLDERS) {
    for (const name of FILE_NAMES) {
      const file = path.join(dir, folder, name);
      lookedAt.push(file);
      if ((await kindOf(file)) !== 'file') continue;
      if (name === 'spiece.model' || (await mentionsUnigram(file))) return file;
    }
  }
  return null;
}

async function kindOf(file: string): Promise<'file' | 'folder' | null> {
  const found = await stat(file).catch(() => null);
  return found?.isFile() ? 'file' : found?.isDirectory() ? 'folder' : null;
}

async function mentionsUnigram(file: string): Promise<boolean> {
  const bytes = await readVocabularyFile(file).catch(() => null);
  return bytes !== null && bytes.includes('"Unigram"');
}

async function readVocabularyFile(file: string): Promise<Buffer> {
  try {
    const { size } = await stat(file);
    if (size > MAX_VOCABULARY_BYTES) {
      throw formatError(file, `expected at most ${MAX_VOCABULARY_BYTES} bytes but the file has ${size}`);
    }
    return await readFile(file);
  } catch (cause) {
    if (cause instanceof KotobaError) throw cause;
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw new KotobaError(
      missing ? 'ERR_FILE_NOT_FOUND' : 'ERR_FILE_READ',
      `cannot read the T5 tokenizer ${file}: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/**
 * A vocabulary from a `tokenizer.json` or a SentencePiece model of any name; told apart by content.
 * @throws ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_TOKENIZER_FORMAT
 */
export async function readT5Vocabulary(file: string): Promise<UnigramVocabulary> {
  const bytes = await readVocabularyFile(file);
  const text = bytes
    .subarray(0, 64)
    .toString('latin1')
    .replace(/^\xef\xbb\xbf/, '')
    .trimStart();
  if (text.startsWith('version https://git-lfs')) {
    throw formatError(file, 'this is a Git LFS pointer, not the file itself; fetch it with git lfs pull');
  }
  if (text.startsWith('{')) return readTokenizerJson(bytes.toString('utf8').replace(/^\ufeff/, ''), file);
  return readSentencePieceModel(bytes, file);
}

export interface LoadT5TokenizerOptions extends T5TokenizerOptions {
  /** `--t5-tokenizer`: a file or a folder. Wins over everything else. */
  readonly explicitPath?: string;
  /** Metadata of the weights when they are GGUF. */
  readonly metadata?: GgufMetadata;
  /** Folders of the weight files. */
  readonly dirs?: readonly string[];
  /** The weights' name, for messages. */
  readonly weights?: string;
}

/**
 * The tokenizer of a T5: the user's choice, else the GGUF's own vocabulary, else a file beside the weights.
 * @throws ERR_TOKENIZER_MISSING naming the three ways; ERR_TOKENIZER_FORMAT, ERR_FILE_* for a damaged or missing file
 */
export async function loadT5Tokenizer(options: LoadT5TokenizerOptions): Promise<T5Tokenizer> {
  return t5Tokenizer(await loadT5Vocabulary(options), options);
}

/** Its vocabulary alone. @throws as loadT5Tokenizer does */
export async function loadT5Vocabulary(options: LoadT5TokenizerOptions): Promise<UnigramVocabulary> {
  const { explicitPath, metadata, dirs = [], weights = 'these T5 weights' } = options;
  if (explicitPath === undefined && metadata && hasGgufT5Vocabulary(metadata)) {
    return readGgufVocabulary(metadata, weights);
  }
  const { file, lookedAt } = await findT5Tokenizer(dirs, explicitPath);
  if (!file) throw missingT5Tokenizer({ weights, isGguf: metadata !== undefined, lookedAt });
  return readT5Vocabulary(file);
}

export interface MissingT5Tokenizer {
  readonly weights: string;
  readonly isGguf: boolean;
  readonly lookedAt: readonly string[];
}

/** The error that names the three ways to give a T5 its vocabulary. */
export function missingT5Tokenizer({ weights, isGguf, lookedAt }: MissingT5Tokenizer): KotobaError {
  const folders = [...new Set(lookedAt.map((file) => path.dirname(file)))];
  return new KotobaError(
    'ERR_TOKENIZER_MISSING',
    `${weights}: a T5 needs its vocabulary, and weights alone do not have it. Give it in one of three ways:\n` +
      '  1. put spiece.model or tokenizer.json beside the weights (or in a tokenizer, tokenizer_2 or tokenizer_3 folder there);\n' +
      '  2. name the file or folder: --t5-tokenizer PATH (library: t5Tokenizer); kotoba pull t5-vocabulary fetches one,\n' +
      '     which --t5-tokenizer t5-vocabulary then takes;\n' +
      `  3. use a GGUF file that carries tokenizer.ggml.* metadata${isGguf ? ' (this one does not)' : ''}.\n` +
      `Every T5 v1.1, Flan-T5 and T5-XXL has the same vocabulary. Looked in: ${folders.join(', ') || 'no folder'}`,
  );
}
