/**
 * What a picture was made from, inside the picture: "parameters" is A1111's text, which other programs show and
 * paste; "kotoba" is JSON and complete, so that `parseMetadata` gives back what `metadataTexts` was given.
 */
import { scheduleLabel, scheduleOfLabel, solverLabel, solverOfLabel } from './a1111_names.js';
import { formatInfotext, parseInfotext } from './infotext.js';

/** One file that took part. Folders are left out: a picture is shared, the machine it was made on is not. */
export interface PartInfo {
  /** file name without its folder */
  readonly file: string;
  /** of the whole file, hexadecimal */
  readonly sha256?: string;
  /** what it was computed in: fp32, fp16, int8, … */
  readonly precision?: string;
  /** how its weights are stored: F16, Q8_0, … */
  readonly dtype?: string;
}

export interface GenerationInfo {
  readonly prompt: string;
  readonly negativePrompt?: string;
  /** a bigint where a number would round it: beyond 2^53 */
  readonly seed: number | bigint;
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  /** our names: euler, dpmpp_2m, … */
  readonly solver: string;
  readonly schedule: string;
  /** the noise levels as used, steps + 1 of them */
  readonly sigmas?: readonly number[];
  /** classifier-free guidance; 1 is off */
  readonly cfg: number;
  /** the guidance a distilled model takes as an input */
  readonly guidance?: number;
  /** image-to-image: 0 keeps the picture, 1 ignores it */
  readonly strength?: number;
  /** whether only a part of that picture was painted anew */
  readonly masked?: boolean;
  /** skip-layer guidance; blocks where they were not the usual ones */
  readonly skipLayers?: { readonly scale: number; readonly layers?: readonly number[] };
  /** which generator drew the noise: cpu (PyTorch, ComfyUI) or philox (CUDA, A1111) */
  readonly noise: string;
  readonly device?: string;
  /** whose rules the prompt was read by: bfl, comfy, a1111, diffusers */
  readonly profile?: string;
  /** of a distilled model: turbo, lightning, … */
  readonly preset?: string;
  /** which of CLIP's states, where it was not the model's own: 1 is the last */
  readonly clipSkip?: number;
  /** of a flow model's noise levels, where it was not the model's own */
  readonly shift?: number;
  /** how prompt weights were read, if not as the profile does: plain, a1111, comfyui */
  readonly dialect?: string;
  /** T5's tokens, where they were not the model's own: 77, sd3 */
  readonly t5Length?: string;
  /** slot → file: transformer, vae, clip_l, t5, … */
  readonly parts: Readonly<Record<string, PartInfo>>;
  /** version of Kotoba */
  readonly version: string;
}

/** Which of a picture's two texts the settings come from; A1111's names only some of them. */
export interface ReadMetadata {
  readonly source: 'kotoba' | 'parameters';
  readonly info: Partial<GenerationInfo>;
}

/** keyword → text, for `writePng`. */
export function metadataTexts(info: GenerationInfo): Map<string, string> {
  return new Map([
    ['parameters', infotext(info)],
    ['kotoba', JSON.stringify({ format: 1, ...info, seed: seedInJson(info.seed) })],
  ]);
}

const isExact = (seed: number | bigint): boolean => Number.isSafeInteger(Number(seed));

/** JSON readers round numbers beyond 2^53: those are written as text. */
const seedInJson = (seed: number | bigint): number | string => (isExact(seed) ? Number(seed) : String(seed));

/** From decimal digits. */
function seedFrom(digits: string | undefined): number | bigint | undefined {
  if (digits === undefined || !/^\d{1,20}$/.test(digits)) return undefined;
  const seed = BigInt(digits);
  return isExact(seed) ? Number(seed) : seed;
}

/** @returns undefined if the picture holds neither text. Values of a wrong type are left out. */
export function parseMetadata(texts: ReadonlyMap<string, string>): ReadMetadata | undefined {
  const own = parseJson(texts.get('kotoba'));
  if (own) return { source: 'kotoba', info: own };
  const parameters = texts.get('parameters');
  return parameters === undefined ? undefined : { source: 'parameters', info: fromInfotext(parameters) };
}

const modelName = (file: string): string => file.replace(/\.(safetensors|gguf|ckpt|pt|bin|json)$/i, '');
const MODEL_SLOTS = ['transformer', 'unet'];

function infotext(info: GenerationInfo): string {
  const parts = Object.entries(info.parts);
  const model = MODEL_SLOTS.map((slot) => info.parts[slot]).find((part) => part !== undefined);
  // What lies in the checkpoint itself is no module of its own.
  const modules = parts.flatMap(([slot, part]) =>
    MODEL_SLOTS.includes(slot) || (part.file === model?.file && part.sha256 === model.sha256) ? [] : [part],
  );
  const settings: [string, string | number | undefined][] = [
    ['Steps', info.steps],
    ['Sampler', solverLabel(info.solver)],
    ['Schedule type', scheduleLabel(info.schedule)],
    ['CFG scale', info.cfg],
    ['Distilled CFG Scale', info.guidance],
    ['Seed', String(info.seed)],
    ['Size', `${info.width}x${info.height}`],
    ['Model hash', model?.sha256?.slice(0, 10)],
    ['Model', model && modelName(model.file)],
    ['Clip skip', info.clipSkip],
    ['Denoising strength', info.strength],
    ['RNG', info.noise === 'cpu' ? 'CPU' : undefined], // A1111 names it where it is not the GPU's, Philox
    ...modules.map((part, i): [string, string] => [`Module ${i + 1}`, modelName(part.file)]),
    ['Version', `kotoba ${info.version}`],
  ];
  const known = settings.filter(([, value]) => value !== undefined).map(([k, v]) => [k, String(v)] as const);
  return formatInfotext({
    prompt: info.prompt,
    negativePrompt: info.negativePrompt ?? '',
    settings: new Map(known),
  });
}

/** As much as another program's text tells. Its "Model" is a name without ending, so it comes back as a file name. */
function fromInfotext(text: string): Partial<GenerationInfo> {
  const { prompt, negativePrompt, settings } = parseInfotext(text);
  const number = (name: string): number | undefined => {
    const value = settings.get(name);
    return value !== undefined && value !== '' && Number.isFinite(Number(value)) ? Number(value) : undefined;
  };
  const size = /^(\d+)x(\d+)$/.exec(settings.get('Size') ?? '');
  const solver = settings.get('Sampler');
  const schedule = settings.get('Schedule type');
  return known({
    prompt,
    negativePrompt: negativePrompt || undefined,
    steps: number('Steps'),
    solver: solver && solverOfLabel(solver),
    schedule: schedule && scheduleOfLabel(schedule),
    cfg: number('CFG scale'),
    guidance: number('Distilled CFG Scale'),
    seed: seedFrom(settings.get('Seed')),
    width: size ? Number(size[1]) : undefined,
    height: size ? Number(size[2]) : undefined,
    clipSkip: number('Clip skip'),
    strength: number('Denoising strength'),
    noise: { CPU: 'cpu', GPU: 'philox', NV: 'philox' }[settings.get('RNG') ?? 'GPU'],
    parts: partsOf(settings),
  });
}

function partsOf(settings: ReadonlyMap<string, string>): Record<string, PartInfo> {
  const model = settings.get('Model');
  const modules = [...settings].filter(([name]) => /^Module \d+$/.test(name));
  return {
    ...(model ? { transformer: { file: model } } : {}),
    ...Object.fromEntries(modules.map(([name, file]) => [name.toLowerCase().replace(' ', '_'), { file }])),
  };
}

/** The entries that have a value. */
function known(info: {
  [K in keyof GenerationInfo]?: GenerationInfo[K] | undefined;
}): Partial<GenerationInfo> {
  return Object.fromEntries(Object.entries(info).filter(([, value]) => value !== undefined));
}

type Check = (value: unknown) => boolean;
const isText: Check = (value) => typeof value === 'string';
const isNumber: Check = (value) => typeof value === 'number' && Number.isFinite(value);
const isCount: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const PART: Readonly<Record<keyof PartInfo, Check>> = {
  file: isText,
  sha256: (value) => isText(value) && /^[0-9a-f]{64}$/.test(value as string),
  precision: isText,
  dtype: isText,
};
const INFO: Readonly<Record<keyof GenerationInfo, Check>> = {
  prompt: isText,
  negativePrompt: isText,
  seed: (value) => seedFrom(String(value)) !== undefined,
  width: isCount,
  height: isCount,
  steps: isCount,
  solver: isText,
  schedule: isText,
  sigmas: (value) => Array.isArray(value) && value.every(isNumber),
  cfg: isNumber,
  guidance: isNumber,
  strength: isNumber,
  masked: (value) => typeof value === 'boolean',
  skipLayers: (value) =>
    isObject(value) &&
    isNumber(value['scale']) &&
    (value['layers'] === undefined || (Array.isArray(value['layers']) && value['layers'].every(isCount))),
  noise: isText,
  device: isText,
  profile: isText,
  preset: isText,
  clipSkip: isCount,
  shift: isNumber,
  dialect: isText,
  t5Length: isText,
  parts: (value) => isObject(value) && Object.values(value).every(isPart),
  version: isText,
};
const isPart: Check = (value) =>
  isObject(value) &&
  isText(value['file']) &&
  Object.entries(value).every(
    ([key, entry]) => !Object.hasOwn(PART, key) || PART[key as keyof PartInfo](entry),
  );

function parseJson(text: string | undefined): Partial<GenerationInfo> | undefined {
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(value)) return undefined;
  const entries = Object.entries(value).filter(
    ([key, entry]) => Object.hasOwn(INFO, key) && INFO[key as keyof GenerationInfo](entry),
  );
  const info: Partial<GenerationInfo> = Object.fromEntries(entries);
  return info.seed === undefined ? info : { ...info, seed: seedFrom(String(info.seed))! };
}
