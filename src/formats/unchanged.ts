/** Whether the files of a part still hold what was found in them: parts may be loaded long after they were opened. */
import { KotobaError } from '../errors.js';
import { statFile } from './byte_source.js';
import type { TensorInfo } from './model_file.js';
import type { TensorSource } from './part.js';
import { usedTensors } from './part.js';
import { parseFile } from './shards.js';

/** Files and their state when the part was found. */
export type FileStamps = ReadonlyMap<string, string>;

export function stampFiles(tensors: ReadonlyMap<string, TensorSource>): FileStamps {
  const paths = new Set([...usedTensors(tensors)].map(({ path }) => path));
  return new Map([...paths].map((path) => [path, stamp(path)]));
}

/**
 * A file that was written again is read again: its weights may be others, but must lie where the part says they are.
 * @throws KotobaError ERR_FILE_READ if they do not, and what opening a file throws
 */
export function requireUnchanged(tensors: ReadonlyMap<string, TensorSource>, stamps: FileStamps): void {
  for (const [path, before] of stamps) {
    if (stamp(path) === before) continue;
    const places = new Set([...parseFile(path).tensors.values()].map(placeOf));
    const moved = [...usedTensors(tensors)].find(
      (tensor) => tensor.path === path && !places.has(placeOf(tensor)),
    );
    if (moved)
      throw new KotobaError(
        'ERR_FILE_READ',
        `${path}: is another file than when it was opened, ${moved.name} is not where it was; load the model again`,
      );
  }
}

function stamp(path: string): string {
  const { dev, ino, size, mtimeMs } = statFile(path);
  return `${dev} ${ino} ${size} ${mtimeMs}`;
}

/** In a diffusers folder names begin with their sub-folder, which the file itself does not know. */
const placeOf = ({ name, dtype, shape, offset }: TensorInfo): string =>
  `${name.slice(name.lastIndexOf('/') + 1)} ${dtype} [${shape.join()}] ${offset}`;
