/**
 * The one error class. A message says what, what was expected, what was found, where, and what to do;
 * the code is stable and keys the README's troubleshooting table.
 */
export type ErrorCode =
  | 'ERR_ARGUMENT' // a wrong option or argument: the caller's mistake
  | 'ERR_CANCELLED' // an AbortSignal or Ctrl-C
  | 'ERR_DISPOSED' // used after dispose()
  | 'ERR_DEVICE' // a device that is not there, or failed
  | 'ERR_DEVICE_LOST' // a GPU that this process cannot use any more
  | 'ERR_OUT_OF_MEMORY' // with the size asked for
  | 'ERR_ADDON_MISSING' // the native addon is not built
  | 'ERR_NON_FINITE' // NaN or Inf in an encoder, with its name and layer
  | 'ERR_FILE_NOT_FOUND'
  | 'ERR_FILE_READ' // unreadable path, a directory with no model in it, a failing disk
  | 'ERR_FILE_WRITE'
  | 'ERR_FILE_EXISTS'
  | 'ERR_HUB' // the Hugging Face Hub refused, cannot be reached, or sent something else than it said
  | 'ERR_FORMAT_UNKNOWN' // none of the containers
  | 'ERR_FORMAT_PICKLE' // .ckpt / .pt / .bin: never unpickled
  | 'ERR_SAFETENSORS_TRUNCATED'
  | 'ERR_SAFETENSORS_HEADER'
  | 'ERR_SHARDS' // an index that names a missing shard or tensor
  | 'ERR_GGUF_TRUNCATED'
  | 'ERR_GGUF_HEADER'
  | 'ERR_MODEL_UNKNOWN' // tensors that are no network we know
  | 'ERR_MODEL_SLOT' // a network, but not the one asked for
  | 'ERR_MODEL_TENSORS' // missing, unexpected or wrongly shaped tensors, unused scales
  | 'ERR_MODEL_CONFIG' // a --config or metadata that contradicts the tensors
  | 'ERR_TOKENIZER_MISSING' // weights without their vocabulary
  | 'ERR_TOKENIZER_FORMAT'
  | 'ERR_IMAGE_FORMAT' // not a picture, a kind that needs sharp, or a damaged PNG
  | 'ERR_IMAGE_SIZE' // absurdly large or empty
  | 'ERR_TOKEN_ID'; // an id outside the embedding table

export class KotobaError extends Error {
  override readonly name = 'KotobaError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
