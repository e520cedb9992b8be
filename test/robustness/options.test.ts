/** Options as JavaScript callers may get them wrong: named in the error, never ignored, never a TypeError. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TextEncoder, type EncodeOptions, type LoadOptions } from '../../src/index.js';
import { golden } from '../support/golden.js';
import { outcomeOf } from './scratch.js';

const kT5 = golden('encoders/t5_tiny_gguf/model.f16.gguf');
let encoder: TextEncoder;
beforeAll(async () => {
  encoder = await TextEncoder.load(kT5, { threads: 1 });
});
afterAll(() => encoder[Symbol.asyncDispose]());

describe('load', () => {
  test.each<[string, object, RegExp]>([
    ['precision', { precision: 'fp64' }, /ERR_ARGUMENT .*fp64/],
    ['slot', { slot: 'clip_x' }, /ERR_MODEL_SLOT .*clip_x/],
    ['threads of none', { threads: 0 }, /ERR_ARGUMENT .*threads/],
    ['threads of text', { threads: 'two' }, /ERR_ARGUMENT .*threads/],
    ['threads beyond reason', { threads: 1e9 }, /ERR_ARGUMENT .*threads/],
    ['config of nothing known', { config: { heads: 3 } }, /ERR_MODEL_CONFIG/],
  ])('%s', async (_, options, message) => {
    const { code, message: text } = await outcomeOf(async () => {
      await using _wrong = await TextEncoder.load(kT5, options as LoadOptions);
    });
    expect(`${code} ${text}`).toMatch(message);
  });
});

describe('encode', () => {
  test.each<[string, object, RegExp]>([
    ['a dialect', { dialect: 'comfy' }, /ERR_ARGUMENT .*dialect.*comfy/],
    ['a norm', { norm: 'last' }, /ERR_ARGUMENT .*norm.*last/],
    ['a T5 length', { layout: { t5Length: 'flux' } }, /ERR_ARGUMENT .*t5Length.*flux/],
    ['an overflow', { layout: { overflow: 'cut', maxLength: 4 } }, /ERR_ARGUMENT .*overflow.*cut/],
    ['a length of none', { layout: { minLength: 0, maxLength: 0 } }, /ERR_ARGUMENT .*[lL]ength/],
    ['a length that is no number', { layout: { maxLength: NaN } }, /ERR_ARGUMENT .*[lL]ength/],
    ['min above max', { layout: { minLength: 9, maxLength: 4 } }, /ERR_ARGUMENT .*[lL]ength/],
    ['a minimum of 2^40', { layout: { minLength: 2 ** 40 } }, /ERR_(ARGUMENT|OUT_OF_MEMORY) .*[lL]ength/],
    [
      'a padding id outside the table',
      { layout: { minLength: 8, padId: 9999 } },
      /ERR_(TOKEN_ID|ARGUMENT) .*9999/,
    ],
    ['clip skip 0', { clipSkip: 0 }, /ERR_ARGUMENT .*clipSkip/],
    ['clip skip beyond the layers', { clipSkip: 99 }, /ERR_ARGUMENT .*clipSkip/],
    ['clip skip of a half', { clipSkip: 1.5 }, /ERR_ARGUMENT .*clipSkip/],
    ['a hidden state that is not there', { hiddenStates: [99] }, /ERR_ARGUMENT .*hiddenStates.*99/],
  ])('%s', async (_, options, message) => {
    const { code, message: text } = await outcomeOf(() =>
      encoder.encode('a (cat:1.2)', options as EncodeOptions),
    );
    expect(`${code} ${text}`).toMatch(message);
  });
});
