// The two model classes used from @huggingface/tokenizers, typed here: its declaration files import each other
// without extensions, which Node's module resolution does not follow. Text cleaning, splitting and framing are ours,
// because they differ from program to program; the search for pieces is the library's.
import * as library from '@huggingface/tokenizers';

/** Byte-pair merges of one word. */
export interface BpeModel {
  readonly tokens_to_ids: ReadonlyMap<string, number>;
  bpe(word: string): string[];
  readonly cache: { capacity: number };
}

export interface BpeConfig {
  readonly type: 'BPE';
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly string[];
  readonly unk_token: string;
  readonly end_of_word_suffix: string;
}

/** Most probable pieces of one word; characters in no piece come back as they are. */
export interface UnigramModel {
  readonly tokens_to_ids: ReadonlyMap<string, number>;
  /** Score of a character in no piece. */
  unk_score: number;
  tokenize(word: string): string[];
}

export interface UnigramConfig {
  readonly type: 'Unigram';
  readonly vocab: readonly (readonly [piece: string, score: number])[];
  readonly unk_id: number;
}

const classes = library as unknown as {
  BPE: new (config: BpeConfig) => BpeModel;
  Unigram: new (config: UnigramConfig, eosToken: string) => UnigramModel;
};

export function bpeModel(config: BpeConfig): BpeModel {
  const model = new classes.BPE(config);
  // Its own cache reorders a Map on every look-up: 26 µs a word once 10,000 are in it. WordCache stands in.
  model.cache.capacity = 0;
  return model;
}

export function unigramModel(config: UnigramConfig): UnigramModel {
  return new classes.Unigram(config, '');
}
