/**
 * Files → tensors by name → networks. No device, no model code, no tensor data: only headers are read.
 *
 *   const model = openModel('sd3_medium_incl_clips.safetensors');   // file, shard, index.json or folder
 *   for (const part of identify(model)) console.log(part.slot, part.description, part.bytesRead);
 *   const clip = selectPart(model, { slot: 'clip_l' });             // complete and checked, or a coded error
 *   const { tensor, rows } = clip.tensors.get('text_model.encoder.layers.0.self_attn.q_proj.weight')!;
 *
 * dtype  element types          safetensors, gguf*, shards, open   containers: bytes → TensorInfo
 * names/ one table per scheme   identify, *_part, select           TensorInfo → Part under canonical names
 */
export { memorySource, withFile } from './byte_source.js';
export type { ByteSource } from './byte_source.js';
export {
  DTYPES,
  blockBytes,
  blockWeights,
  elementCount,
  isFp8,
  isWeightDType,
  tensorBytes,
} from './dtype.js';
export type { DType } from './dtype.js';
export { parseGguf } from './gguf.js';
export { identify, leftovers } from './identify.js';
export type { IdentifyOptions, Leftover } from './identify.js';
export type {
  Container,
  MetadataValue,
  ModelFile,
  NumberArray,
  ParsedFile,
  TensorInfo,
} from './model_file.js';
export { unetPlan } from './names/unet.js';
export type { UnetBlock } from './names/unet.js';
export { openModel } from './open.js';
export { SLOTS, isDenoiser, piecesOf, rowsOf, vaeFactor } from './part.js';
export type {
  ClipConfig,
  ClipPart,
  ClipSlot,
  DenoiserPart,
  DiffusionPart,
  Family,
  FluxConfig,
  FluxPart,
  MmditConfig,
  MmditPart,
  Part,
  Piece,
  Rows,
  Slot,
  T5Config,
  T5Part,
  TensorSource,
  UnetConfig,
  UnetPart,
  VaeConfig,
  VaeHalf,
  VaePart,
} from './part.js';
export { readNumbers } from './read.js';
export { parseSafetensors } from './safetensors.js';
export { checkPart, selectPart } from './select.js';
export { GGUF_FILE_TYPES, t5GgufMetadata } from './t5_gguf.js';
export { openAiClipEntries } from './names/clip.js';
export { llamaCppNames } from './names/t5.js';
export type { UnigramPieces } from './t5_gguf.js';
export { requireUnchanged, stampFiles } from './unchanged.js';
export type { FileStamps } from './unchanged.js';
export { requireHalf, vaeOfFamily } from './vae_part.js';
export { writeGguf } from './write_gguf.js';
export type { GgufValue } from './write_gguf.js';
export { streamSafetensors } from './write.js';
export type { StreamedTensor } from './write.js';
