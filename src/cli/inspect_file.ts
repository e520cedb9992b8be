/** Everything `kotoba inspect` says about one file, as data. */
import {
  isDenoiser,
  identify,
  leftovers,
  openModel,
  selectPart,
  type Container,
  type DType,
  type Leftover,
  type ModelFile,
  type Part,
  type Slot,
  type TensorInfo,
} from '../formats/index.js';
import { usedTensors } from '../formats/part.js';
import { encoderSlots } from '../pipeline/conditioning/encoder_widths.js';
import { findT5Tokenizer, hasGgufT5Vocabulary } from '../text/index.js';

export interface DTypeShare {
  readonly dtype: DType;
  readonly tensors: number;
  readonly bytes: number;
}

/** Where a T5's vocabulary would come from, without an option. */
export type TokenizerSource =
  | { readonly from: 'built in' }
  | { readonly from: 'gguf metadata' }
  | { readonly from: 'file'; readonly path: string }
  | { readonly from: 'missing'; readonly folders: readonly string[] };

export interface PartInspection extends Pick<
  Part,
  | 'slot'
  | 'fits'
  | 'family'
  | 'description'
  | 'naming'
  | 'prefix'
  | 'config'
  | 'missing'
  | 'unexpected'
  | 'wrong'
  | 'undecided'
  | 'notes'
  | 'bytesRead'
> {
  readonly tensors: number;
  readonly dtypes: readonly DTypeShare[];
  /** complete, nothing wrong, nothing left to decide */
  readonly usable: boolean;
  /** of text encoders */
  readonly tokenizer?: TokenizerSource;
}

export interface TensorLine extends Pick<TensorInfo, 'name' | 'dtype' | 'shape' | 'bytes' | 'offset'> {
  readonly file: string;
  /** which parts read it */
  readonly readBy: readonly Slot[];
}

export interface Inspection {
  readonly path: string;
  readonly container: Container;
  readonly files: ModelFile['files'];
  readonly bytes: number;
  readonly tensorCount: number;
  /** its own words about itself: `general.name`, `modelspec.title` and so on */
  readonly titles: Readonly<Record<string, string>>;
  readonly parts: readonly PartInspection[];
  readonly leftovers: readonly Leftover[];
  /** how to encode with it; null where it has no text encoder */
  readonly command: string | null;
  /** how to make pictures with it, and which files that takes besides; null where it has no denoiser */
  readonly generate: string | null;
  readonly tensors?: readonly TensorLine[];
}

export interface InspectFileOptions {
  readonly tensors?: boolean;
  readonly config?: Readonly<Record<string, unknown>>;
}

/** @throws KotobaError ERR_FILE_*, ERR_FORMAT_*, and ERR_MODEL_UNKNOWN for tensors that are no network known here */
export async function inspectFile(path: string, options: InspectFileOptions = {}): Promise<Inspection> {
  const model = openModel(path);
  const config = options.config && { config: options.config };
  const parts = identify(model, config);
  if (parts.length === 0) selectPart(model, config); // throws, with what it looks like instead
  const inspected: PartInspection[] = [];
  for (const part of parts) inspected.push(await inspectPart(model, part));
  return {
    path,
    container: model.container,
    files: model.files,
    bytes: model.files.reduce((sum, { size }) => sum + size, 0),
    tensorCount: model.tensors.size,
    titles: titlesOf(model),
    parts: inspected,
    leftovers: leftovers(model, parts),
    command: commandFor(path, inspected),
    generate: generateCommandFor(path, parts),
    ...(options.tensors && { tensors: tensorLines(model, parts) }),
  };
}

async function inspectPart(model: ModelFile, part: Part): Promise<PartInspection> {
  const { missing, unexpected, wrong, undecided } = part;
  const tokenizer =
    part.family === 't5'
      ? await tokenizerOf(model)
      : part.family === 'clip'
        ? ({ from: 'built in' } as const)
        : undefined;
  return {
    slot: part.slot,
    fits: part.fits,
    family: part.family,
    description: part.description,
    naming: part.naming,
    prefix: part.prefix,
    config: part.config,
    dtypes: dtypesOf(part),
    tensors: part.tensorCount,
    bytesRead: part.bytesRead,
    usable: missing.length + unexpected.length + wrong.length + undecided.length === 0,
    missing,
    unexpected,
    wrong,
    undecided,
    notes: part.notes,
    ...(tokenizer && { tokenizer }),
  };
}

async function tokenizerOf(model: ModelFile): Promise<TokenizerSource> {
  if (model.container === 'gguf' && hasGgufT5Vocabulary(model.metadata)) return { from: 'gguf metadata' };
  const { file, lookedAt } = await findT5Tokenizer([model.weightsDir]);
  if (file !== null) return { from: 'file', path: file };
  const folders = new Set(lookedAt.map((path) => path.slice(0, path.lastIndexOf('/')) || '/'));
  return { from: 'missing', folders: [...folders] };
}

/** Most bytes first. */
function dtypesOf({ tensors }: Part): DTypeShare[] {
  const shares = new Map<DType, DTypeShare>();
  for (const { dtype, bytes } of usedTensors(tensors)) {
    const share = shares.get(dtype);
    shares.set(dtype, { dtype, tensors: (share?.tensors ?? 0) + 1, bytes: (share?.bytes ?? 0) + bytes });
  }
  return [...shares.values()].sort((a, b) => b.bytes - a.bytes);
}

const TITLES = [
  'general.name',
  'general.architecture',
  'modelspec.title',
  'modelspec.architecture',
  'format',
] as const;

function titlesOf({ metadata }: ModelFile): Record<string, string> {
  return Object.fromEntries(
    TITLES.flatMap((key) => {
      const value = metadata.get(key);
      return typeof value === 'string' && value !== '' ? [[key, value]] : [];
    }),
  );
}

function tensorLines(model: ModelFile, parts: readonly Part[]): TensorLine[] {
  const used = parts.map((part) => ({ slot: part.slot, tensors: usedTensors(part.tensors) }));
  return [...model.tensors].map(([name, tensor]) => ({
    name,
    dtype: tensor.dtype,
    shape: tensor.shape,
    bytes: tensor.bytes,
    offset: tensor.offset,
    file: tensor.path,
    readBy: used.filter(({ tensors }) => tensors.has(tensor)).map(({ slot }) => slot),
  }));
}

const OPTIONS: Partial<Record<Slot, string>> = {
  clip_l: '--clip-l',
  longclip_l: '--clip-l',
  clip_g: '--clip-g',
  clip_h: '--clip-h',
  t5: '--t5',
  vae: '--vae',
};

function commandFor(path: string, parts: readonly PartInspection[]): string | null {
  const encoders = parts.filter(({ family }) => family === 'clip' || family === 't5');
  const [encoder, another] = encoders;
  if (encoder === undefined) return null;
  const option = another ? '--model' : (OPTIONS[encoder.slot] ?? '--clip');
  const needs = encoders.filter(({ undecided }) => undecided.length > 0);
  const configs = needs.map(
    ({ slot, undecided }) => ` --config ${slot}='{${undecided.map((key) => `"${key}": …`).join(', ')}}'`,
  );
  const missing = encoders.some(({ tokenizer }) => tokenizer?.from === 'missing');
  return (
    `kotoba encode "a sparrow on a girl's hand" ${option} ${quoted(path)}` +
    configs.join('') +
    (missing ? ' --t5-tokenizer spiece.model' : '')
  );
}

function generateCommandFor(path: string, parts: readonly Part[]): string | null {
  const denoiser = parts.find(isDenoiser);
  if (denoiser === undefined || denoiser.undecided.length > 0) return null;
  const needed = encoderSlots(denoiser).flatMap(({ slot, isOptional }) => (isOptional ? [] : [slot]));
  const missing = [...needed, 'vae' as const].filter((slot) =>
    parts.every(({ fits }) => !fits.includes(slot)),
  );
  const files = missing.map((slot) => ` ${OPTIONS[slot]} ${slot}.safetensors`);
  return `kotoba generate "a sparrow on a girl's hand" --model ${quoted(path)}${files.join('')}`;
}

/** For a POSIX shell. */
const quoted = (path: string): string =>
  /^[\w@%+=:,./-]+$/.test(path) && !path.startsWith('-') ? path : `'${path.replaceAll("'", `'\\''`)}'`;
