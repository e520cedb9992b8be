/** Which text encoders a command line names, and from which files they come. */
import { KotobaError } from '../errors.js';
import { identify, openModel, type Slot } from '../formats/index.js';
import { findModel } from '../pipeline/find_model.js';

export interface EncoderFiles {
  clipL?: string;
  clipG?: string;
  t5?: string;
  clip?: readonly string[];
  model?: readonly string[];
}

export interface EncoderSource {
  readonly slot: Slot;
  readonly path: string;
  /** the option that named it, for messages */
  readonly option: string;
}

/**
 * In the order CLIP-L, CLIP-G, T5, other CLIPs, then what --model holds. An encoder named by its own option takes the
 * place of the one in a --model: that is how an encoder is swapped in a checkpoint.
 * @throws KotobaError ERR_ARGUMENT without any encoder, or two for one slot; ERR_FILE_*, ERR_FORMAT_*, ERR_MODEL_*
 */
export function encoderSources(files: EncoderFiles, dirs: readonly string[]): EncoderSource[] {
  const named: EncoderSource[] = [];
  const add = (slot: Slot, name: string | undefined, option: string): void => {
    if (name !== undefined) named.push({ slot, path: findModel(name, dirs), option });
  };
  add('clip_l', files.clipL, '--clip-l');
  add('clip_g', files.clipG, '--clip-g');
  add('t5', files.t5, '--t5');
  for (const name of files.clip ?? []) named.push(otherClip(findModel(name, dirs)));
  const inModels = (files.model ?? []).flatMap((name) => encodersOf(findModel(name, dirs)));
  const kept = inModels.filter(({ slot }) => !named.some((other) => replaces(other.slot, slot)));
  const all = [...named, ...kept];
  if (all.length === 0)
    throw new KotobaError(
      'ERR_ARGUMENT',
      'no encoder given: expected --clip-l, --clip-g, --t5, --clip or --model with a file',
    );
  for (const [i, { slot, path, option }] of all.entries()) {
    const other = all.slice(0, i).find((source) => source.slot === slot);
    if (other)
      throw new KotobaError(
        'ERR_ARGUMENT',
        `two files for ${slot}: ${other.option} ${other.path} and ${option} ${path}`,
      );
  }
  return all;
}

/** A Long-CLIP-L goes where a CLIP-L was. */
const replaces = (given: Slot, inModel: Slot): boolean =>
  given === inModel || (given === 'longclip_l' && inModel === 'clip_l');

function otherClip(path: string): EncoderSource {
  const clips = identify(openModel(path)).filter(({ family }) => family === 'clip');
  const [part, another] = clips;
  if (part === undefined || another !== undefined)
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `--clip ${path}: expected one CLIP text encoder, got ${clips.length === 0 ? 'none' : clips.map((clip) => clip.slot).join(' and ')}` +
        (another ? '; give the file as --model, or with --clip-l or --clip-g' : '; see kotoba inspect'),
    );
  return { slot: part.slot, path, option: '--clip' };
}

function encodersOf(path: string): EncoderSource[] {
  const parts = identify(openModel(path)).filter(({ family }) => family === 'clip' || family === 't5');
  if (parts.length === 0)
    throw new KotobaError(
      'ERR_MODEL_SLOT',
      `--model ${path}: expected a file with text encoders, got none; see kotoba inspect`,
    );
  return parts.map(({ slot }) => ({ slot, path, option: '--model' }));
}
