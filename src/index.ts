/**
 * Kotoba: text encoders of image generation and the pictures they condition, from every file people have.
 *
 *   await using pipeline = await ImagePipeline.load(shippedModel());
 *   const { pictures } = await pipeline.generate('a red circle left of a blue square', { seed: 7 });
 *   await writePng('out.png', pictures[0].picture);
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
export type { DeviceChoice } from './pipeline/device_choice.js';
export type { Replay } from './pipeline/encode_runner.js';
export type { EncodeOptions, Encoding, LoadOptions } from './pipeline/encoder_types.js';
export { PRECISIONS, type Precision } from './pipeline/precision.js';
export { ImagePipeline } from './pipeline/image_pipeline.js';
export {
  EncodePromptJob,
  GenerateJob,
  type Conditioning,
  type EncodedPrompt,
  type EncoderChoice,
  type EncoderChoices,
  type ReplacedEncoders,
  type EncoderSlot,
  type GenerateOptions,
  type GenerateProgress,
  type GenerateResult,
  type GeneratedPicture,
  type ImageModel,
  type PipelineOptions,
  type PipelinePart,
  type Residency,
} from './pipeline/image_types.js';
export {
  CompareJob,
  compareEncoders,
  type CompareCell,
  type CompareColumn,
  type CompareOptions,
  type CompareResult,
} from './pipeline/compare.js';
export { compareGrid } from './pipeline/compare_grid.js';
export { SHIPPED_T5, shippedModel } from './pipeline/shipped_model.js';
export { TextEncoder } from './pipeline/text_encoder.js';
export { Device, type DeviceName, type DeviceOptions } from './runtime/device.js';
export type { OpPrecision } from './runtime/ops.js';
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
export {
  encodePng,
  pictureDistance,
  readPicture,
  writePng,
  type Picture,
  type PictureDistance,
} from './image/index.js';
export { SCHEDULES, SOLVERS, type ScheduleName, type SolverName } from './sampling/index.js';
