/** Which container a file is, by its first bytes; for everything else, what it is instead and what to do. */
import { KotobaError } from '../errors.js';
import type { ByteSource } from './byte_source.js';
import type { Container } from './model_file.js';
import { pickleReason } from './pickle.js';

const kHeadBytes = 512;

/** Beginnings of files people pass by mistake. */
const kOthers: readonly { readonly pattern: RegExp; readonly what: string }[] = [
  {
    pattern: /^version https:\/\/git-lfs/,
    what: 'a Git LFS pointer: the real file was not downloaded. Run "git lfs pull", or download the file itself',
  },
  {
    pattern: /^\s*<(!doctype|html|\?xml)/i,
    what: 'a web page, not a model: the download needs a login or an accepted licence, or its address is wrong',
  },
  { pattern: /^\x89HDF/, what: 'an HDF5 file (Keras); take the safetensors or GGUF version' },
  { pattern: /^\x93NUMPY/, what: 'a NumPy array; take the safetensors or GGUF version' },
  { pattern: /^(lmgg|fmgg|tjgg|algg)/, what: 'a GGML file from before GGUF; take the GGUF version' },
  { pattern: /^\x89PNG|^\xff\xd8\xff|^RIFF/, what: 'a picture or sound file, not a model' },
  { pattern: /^%PDF/, what: 'a PDF document, not a model' },
  {
    pattern: /^PK\x03\x04|^\x1f\x8b|^BZh|^\xfd7zXZ|^7z\xbc\xaf|^Rar!/,
    what: 'a compressed archive; unpack it first',
  },
  {
    pattern: /^\x08[\x01-\x0f]\x12.{0,3}pytorch/s,
    what: 'an ONNX model; take the safetensors or GGUF version',
  },
  { pattern: /^\0{64,}/, what: 'filled with zeros: the download did not complete' },
];

/** Throws for everything that is neither safetensors nor GGUF. */
export function sniffContainer(source: ByteSource): Container {
  const { path, size } = source;
  const head = source.read(0, Math.min(size, kHeadBytes)).toString('latin1');
  if (head.startsWith('GGUF')) return 'gguf';
  const named = containerOfName(path);
  if (size === 0) throw empty(path, named);
  const pickled = pickleReason(source, head);
  if (pickled !== undefined) throw new KotobaError('ERR_FORMAT_PICKLE', `${path}: ${pickled}`);
  const other = kOthers.find(({ pattern }) => pattern.test(head));
  if (other !== undefined && head.charCodeAt(8) !== 0x7b)
    throw new KotobaError('ERR_FORMAT_UNKNOWN', `${path}: this is ${other.what}`);
  if (head[8] === '{' || named === 'safetensors') return 'safetensors';
  if (named === 'gguf') return 'gguf';
  throw new KotobaError(
    'ERR_FORMAT_UNKNOWN',
    `${path}: neither safetensors nor GGUF: it begins with ${JSON.stringify(head.slice(0, 16))}`,
  );
}

function containerOfName(path: string): Container | undefined {
  if (/\.(safetensors|sft)$/i.test(path)) return 'safetensors';
  return /\.gguf$/i.test(path) ? 'gguf' : undefined;
}

function empty(path: string, named: Container | undefined): KotobaError {
  const code =
    named === undefined
      ? 'ERR_FORMAT_UNKNOWN'
      : named === 'gguf'
        ? 'ERR_GGUF_TRUNCATED'
        : 'ERR_SAFETENSORS_TRUNCATED';
  return new KotobaError(code, `${path}: the file is empty (0 bytes): download it again`);
}
