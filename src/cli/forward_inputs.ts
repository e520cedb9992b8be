/** The input tensors of `kotoba forward`, checked against the contract. */
import { KotobaError } from '../errors.js';
import { openModel, type TensorInfo } from '../formats/index.js';
import { readNumbers } from '../formats/read.js';
import { shapeText } from './text.js';

export interface TokenInputs {
  /** [batch · tokens] */
  readonly ids: Int32Array;
  readonly batch: number;
  /** [batch · tokens] of 0 and 1 */
  readonly mask?: Int32Array | undefined;
}

const NAMES = { clip: ['token_ids'], t5: ['token_ids', 'attention_mask'] } as const;

/** @throws KotobaError ERR_ARGUMENT for a missing or unknown input, a wrong type, shape or value; ERR_FILE_* */
export function readTokenInputs(path: string, kind: keyof typeof NAMES): TokenInputs {
  const tensors = openInputs(path, kind, NAMES[kind]);
  const tokenIds = tensors.get('token_ids');
  if (!tokenIds)
    throw wrong(path, `expected token_ids, got ${[...tensors.keys()].join(', ') || 'no tensor'}`);
  const [batch, tokens] = sizes(path, tokenIds);
  const maskTensor = tensors.get('attention_mask');
  const mask = maskTensor && readMask(path, maskTensor, [batch, tokens]);
  return { ids: readIds(path, tokenIds), batch, mask };
}

/** Names of a wrong file that a message lists. */
const SHOWN = 5;

/** @throws KotobaError ERR_ARGUMENT for an unknown input */
function openInputs(path: string, kind: string, known: readonly string[]): ReadonlyMap<string, TensorInfo> {
  const { tensors } = openModel(path);
  const unknown = [...tensors.keys()].filter((name) => !known.includes(name));
  const others = unknown.length > SHOWN ? `, … and ${unknown.length - SHOWN} more` : '';
  if (unknown.length > 0)
    throw wrong(
      path,
      `expected ${known.join(' and ')} for ${kind}, got also ${unknown.slice(0, SHOWN).join(', ')}${others}`,
    );
  return tensors;
}

/** Values in any float type, as F32. */
export interface FloatInput {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

export interface FloatInputs {
  /** for messages */
  readonly where: string;
  has(name: string): boolean;
  /**
   * @param shape expected dimensions; undefined: any from 1
   * @param rules sidesOf: the last two must be multiples of it
   * @throws KotobaError ERR_ARGUMENT
   */
  take(
    name: string,
    shape: readonly (number | undefined)[],
    rules?: { readonly sidesOf: number },
  ): FloatInput;
}

/** @throws KotobaError ERR_ARGUMENT for an unknown input; ERR_FILE_* */
export function readFloatInputs(path: string, kind: string, known: readonly string[]): FloatInputs {
  const tensors = openInputs(path, kind, known);
  return {
    where: `--inputs ${path}`,
    has: (name) => tensors.has(name),
    take: (name, shape, { sidesOf } = { sidesOf: 1 }) => {
      const tensor = tensors.get(name);
      if (!tensor)
        throw wrong(path, `expected ${name}, got ${[...tensors.keys()].join(', ') || 'no tensor'}`);
      const fits =
        tensor.shape.length === shape.length &&
        tensor.shape.every((size, i) => size > 0 && (shape[i] === undefined || shape[i] === size)) &&
        (sidesOf === 1 || tensor.shape.slice(-2).every((size) => size % sidesOf === 0));
      if (!fits) {
        const expected = shape.map((size) => size ?? 'any').join(', ');
        const sides = sidesOf === 1 ? '' : ` with sides that are multiples of ${sidesOf}`;
        throw wrong(path, `expected ${name} [${expected}]${sides}, got ${shapeText(tensor.shape)}`);
      }
      return { data: Float32Array.from(readNumbers(tensor)), shape: tensor.shape };
    },
  };
}

function readIds(path: string, tensor: TensorInfo): Int32Array {
  if (tensor.dtype !== 'I32' && tensor.dtype !== 'I64')
    throw wrong(path, `expected token_ids as I32 or I64, got ${tensor.dtype}`);
  const numbers = readNumbers(tensor);
  const bad = numbers.findIndex((id) => id < 0 || id > 0x7fffffff);
  if (bad >= 0)
    throw new KotobaError(
      'ERR_TOKEN_ID',
      `--inputs ${path}: expected token ids from 0, got ${numbers[bad]} at position ${bad}`,
    );
  return Int32Array.from(numbers);
}

function readMask(path: string, tensor: TensorInfo, expected: readonly [number, number]): Int32Array {
  if (sizes(path, tensor).join() !== expected.join())
    throw wrong(
      path,
      `expected attention_mask of token_ids' shape ${shapeText(expected)}, got ${shapeText(tensor.shape)}`,
    );
  const numbers = readNumbers(tensor);
  const bad = numbers.findIndex((value) => value !== 0 && value !== 1);
  if (bad >= 0)
    throw wrong(path, `expected 0 and 1 in attention_mask, got ${numbers[bad]} at position ${bad}`);
  return Int32Array.from(numbers);
}

/** [batch, tokens]; a single dimension is one sequence. */
function sizes(path: string, { name, shape }: TensorInfo): [batch: number, tokens: number] {
  const [first, second, ...more] = shape;
  if (first === undefined || more.length > 0)
    throw wrong(path, `expected ${name} [batch, tokens], got ${shapeText(shape)}`);
  const [batch, tokens] = second === undefined ? [1, first] : [first, second];
  if (batch === 0 || tokens === 0) throw wrong(path, `expected a token in ${name}, got ${shapeText(shape)}`);
  return [batch, tokens];
}

function wrong(path: string, what: string): KotobaError {
  return new KotobaError('ERR_ARGUMENT', `--inputs ${path}: ${what}`);
}
