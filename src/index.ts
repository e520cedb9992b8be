/**
 * Kotoba: the text encoders of image generation, from every file people have.
 *
 *   await using encoder = await TextEncoder.load('t5xxl_fp16.safetensors', { precision: 'fp32' });
 *   const { hidden, tokens, width } = await encoder.encode("a sparrow on a girl's hand");
 */
export { KotobaError, type ErrorCode } from './errors.js';
export {
  identify,
  openModel,
  selectPart,
  type ModelFile,
  type Part,
  type Slot,
  type TensorInfo,
} from './formats/index.js';
export { EncodeJob, type EncodeProgress } from './pipeline/encode_job.js';
export type { EncodeOptions, Encoding, LoadOptions, Precision } from './pipeline/encoder_types.js';
export { TextEncoder } from './pipeline/text_encoder.js';
export { Device, type DeviceOptions } from './runtime/device.js';
export {
  T5_LENGTHS,
  chunkLayout,
  clipTokenizer,
  loadT5Tokenizer,
  parsePrompt,
  tokenizePrompt,
  type ChunkLayout,
  type PromptDialect,
  type TokenizedPrompt,
  type Tokenizer,
} from './text/index.js';
export { writeNpy, writeSafetensors } from './formats/write.js';
