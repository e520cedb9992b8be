/** A file that was just written, read again before it gets its name. */
import { createHash } from 'node:crypto';
import { open, type FileHandle } from 'node:fs/promises';
import { resolve } from 'node:path';
import { KotobaError } from '../errors.js';
import {
  openModel,
  selectPart,
  type ModelFile,
  type Slot,
  type StreamedTensor,
  type TensorInfo,
} from '../formats/index.js';
import { cancelled } from '../runtime/device.js';

const CHUNK_BYTES = 8 << 20;

export interface Written {
  readonly tensors: readonly StreamedTensor[];
  /** name → SHA-256 of the bytes that were written */
  readonly digests: ReadonlyMap<string, string>;
  /** the network that the file must now be */
  readonly slot: Slot | undefined;
  readonly signal: AbortSignal | undefined;
  /** @param bytes read since the last call */
  readonly onRead: (bytes: number) => void;
}

/**
 * Opens what was written as any other file is opened, and compares every byte.
 * @throws KotobaError ERR_FILE_WRITE where something differs; ERR_CANCELLED
 */
export async function checkWritten(path: string, written: Written): Promise<void> {
  const { tensors, digests, slot } = written;
  const fail = (what: string): never => {
    throw new KotobaError('ERR_FILE_WRITE', `${path}: what was written reads back differently: ${what}`);
  };
  const model = opened(path, fail);
  if (model.tensors.size !== tensors.length) fail(`${model.tensors.size} of ${tensors.length} tensors`);
  const file = await open(resolve(path));
  try {
    for (const { name, dtype, shape } of tensors) {
      const info = model.tensors.get(name) ?? fail(`${name} is missing`);
      if (info.dtype !== dtype || info.shape.join() !== shape.join())
        fail(`${name} is ${info.dtype} [${info.shape.join(', ')}]`);
      if ((await digest(file, info, written)) !== digests.get(name)) fail(`${name} holds other bytes`);
    }
  } finally {
    await file.close();
  }
  if (slot) selectPart(model, { slot, allowUndecided: true });
}

function opened(path: string, fail: (what: string) => never): ModelFile {
  try {
    return openModel(path);
  } catch (error) {
    if (error instanceof KotobaError) return fail(error.message);
    throw error;
  }
}

/** @returns undefined where the file ends before the tensor does */
async function digest(
  file: FileHandle,
  { bytes, offset }: TensorInfo,
  { signal, onRead }: Written,
): Promise<string | undefined> {
  const hash = createHash('sha256');
  const chunk = Buffer.allocUnsafe(Math.min(bytes, CHUNK_BYTES));
  for (let at = 0; at < bytes;) {
    if (signal?.aborted) throw cancelled();
    const wanted = Math.min(chunk.length, bytes - at);
    const { bytesRead } = await file.read(chunk, 0, wanted, offset + at);
    if (bytesRead === 0) return undefined;
    hash.update(chunk.subarray(0, bytesRead));
    onRead(bytesRead);
    at += bytesRead;
  }
  return hash.digest('hex');
}
