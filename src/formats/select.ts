/** One network out of a file for one slot, complete and checked, or an error that says all that is wrong with it. */
import { KotobaError } from '../errors.js';
import { identify } from './identify.js';
import type { IdentifyOptions } from './identify.js';
import type { ModelFile } from './model_file.js';
import type { Part, Slot } from './part.js';

const kShown = 20;

/** Without a slot, the file's only text encoder, else its only network. */
export function selectPart(model: ModelFile, options: IdentifyOptions = {}): Part {
  const parts = identify(model, options);
  if (parts.length === 0) throw unknownModel(model);
  const part = options.slot === undefined ? onlyPart(model, parts) : partForSlot(model, parts, options.slot);
  if (options.allowUndecided) checkTensors(part);
  else checkPart(part);
  return part;
}

function partForSlot(model: ModelFile, parts: readonly Part[], slot: Slot): Part {
  const fitting = parts.filter(({ fits }) => fits.includes(slot));
  const exact = fitting.filter((part) => part.slot === slot);
  const [part, another] = exact.length > 0 ? exact : fitting;
  if (part !== undefined && another === undefined) return part;
  const problem =
    part === undefined ? `does not fit the slot ${slot}` : `holds several networks for the slot ${slot}`;
  throw new KotobaError('ERR_MODEL_SLOT', `${model.path}: ${problem}. It holds: ${listParts(parts)}`);
}

function onlyPart(model: ModelFile, parts: readonly Part[]): Part {
  const encoders = parts.filter(({ family }) => family === 'clip' || family === 't5');
  const [part, another] = encoders.length > 0 ? encoders : parts;
  if (another === undefined) return part!;
  throw new KotobaError(
    'ERR_MODEL_SLOT',
    `${model.path}: holds several networks, so a slot must be named. It holds: ${listParts(parts)}`,
  );
}

const listParts = (parts: readonly Part[]): string =>
  parts.map(({ slot, description }) => `${description} (slot ${slot})`).join('; ');

function unknownModel(model: ModelFile): KotobaError {
  const names = [...model.tensors.keys()];
  const hint = names.some((name) => /lora_(up|down|A|B)\b|\.alpha$/.test(name))
    ? 'It looks like a LoRA, which changes a model but is none.'
    : names.some((name) => name.startsWith('control_model.') || name.startsWith('controlnet_'))
      ? 'It looks like a ControlNet.'
      : names.some((name) => /^(vision_model|visual)\./.test(name))
        ? 'It looks like a vision tower without its text encoder.'
        : 'Its names follow none of the known schemes.';
  const sample = names.slice(0, 5).join(', ');
  return new KotobaError(
    'ERR_MODEL_UNKNOWN',
    `${model.path}: no network known here in its ${names.length} tensors (${sample}${names.length > 5 ? ', …' : ''}). ${hint}`,
  );
}

/** Throws one error that lists everything wrong with the part. */
export function checkPart(part: Part): void {
  checkTensors(part);
  const { path, description, undecided } = part;
  if (undecided.length > 0)
    throw new KotobaError(
      'ERR_MODEL_CONFIG',
      `${path}: ${description}: ${undecided.join(' and ')} cannot be told from the tensors of a network of this size; ` +
        `give a config, for example --config '{${undecided.map((key) => `"${key}": …`).join(', ')}}', or put its config.json beside it`,
    );
}

function checkTensors({ path, description, missing, unexpected, wrong }: Part): void {
  const problems = [
    ...(missing.length > 0 ? [`${missing.length} missing: ${shorten(missing)}`] : []),
    ...(unexpected.length > 0 ? [`${unexpected.length} that nothing uses: ${shorten(unexpected)}`] : []),
    ...(wrong.length > 0 ? [`${wrong.length} wrong: ${shorten(wrong)}`] : []),
  ];
  const hint = unexpected.some((name) => name.includes('bitsandbytes'))
    ? '. It is quantised by bitsandbytes (NF4), which is not supported: take an FP8 or GGUF version'
    : '';
  if (problems.length > 0)
    throw new KotobaError(
      'ERR_MODEL_TENSORS',
      `${path}: seems to be ${description}, but its tensors do not match: ${problems.join('; ')}${hint}`,
    );
}

function shorten(list: readonly string[]): string {
  return (
    list.slice(0, kShown).join(', ') + (list.length > kShown ? `, … (${list.length - kShown} more)` : '')
  );
}
