// Strings → weighted token ids. No device, no model, no tensor: plain JavaScript that runs in any thread.
export { cleanPrompt, type ClipFlavour } from './clean_prompt.js';
export { clipTokenizer, type ClipTokenizer, type ClipTokenizerOptions } from './clip_tokenizer.js';
export {
  chunkLayout,
  emptyPromptChunk,
  T5_LENGTHS,
  tokenizePrompt,
  tokenizePromptAsync,
  type ChunkLayout,
  type EncoderFamily,
  type Overflow,
  type T5Length,
  type TokenChunk,
  type TokenizedPrompt,
} from './chunks.js';
export {
  emphasizeKeepingMean,
  emphasizeTogether,
  interpolateFromEmpty,
  type FloatArray,
  type Weighted,
} from './emphasis.js';
export { readClipTokenizerJson } from './clip_tokenizer_json.js';
export type { ClipVocabulary } from './clip_vocabulary.js';
export {
  clipTokenizerPlaces,
  loadClipTokenizer,
  type LoadClipTokenizerOptions,
} from './find_clip_tokenizer.js';
export {
  findT5Tokenizer,
  loadT5Tokenizer,
  loadT5Vocabulary,
  missingT5Tokenizer,
  readT5Vocabulary,
  type LoadT5TokenizerOptions,
  type MissingT5Tokenizer,
  type T5TokenizerSearch,
} from './find_tokenizer.js';
export { hasGgufT5Vocabulary, readGgufVocabulary, type GgufMetadata } from './gguf_vocabulary.js';
export {
  BREAK,
  formatWeight,
  isBreak,
  parsePrompt,
  type PromptDialect,
  type WeightedText,
} from './prompt.js';
export { printPrompt } from './prompt_print.js';
export { readSentencePieceModel } from './sentencepiece_model.js';
export { t5Tokenizer, type T5Tokenizer, type T5TokenizerOptions } from './t5_tokenizer.js';
export type { EncodeAsyncOptions, EncodedText, Tokenizer } from './tokenizer.js';
export { readTokenizerJson } from './tokenizer_json.js';
export type { NormalizerSpec, PieceKind, UnigramVocabulary } from './unigram_vocabulary.js';
