/** What goes wrong is told with a code, leaves nothing behind, and loses nothing that was there. */
import { readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { ConvertOptions } from '../../src/convert/convert.js';
import { writeSafetensors, type ArrayToWrite } from '../../src/formats/write.js';
import { conversion, shipped } from './conversion.js';
import { writeSparse, writeSparseShards } from './sparse_model.js';

const folder = conversion();
const { out, convert } = folder;

/** The conversion fails so, and an older output stays as it was. */
async function expectFailure(
  input: string,
  name: string,
  options: ConvertOptions,
  expected: { code: string; message?: RegExp },
): Promise<void> {
  writeFileSync(out(name), 'old');
  const before = readdirSync(folder.dir);
  const { message = /./ } = expected;
  await expect(convert(input, out(name), options)).rejects.toMatchObject({
    code: expected.code,
    message: expect.stringMatching(message) as string,
  });
  expect(readdirSync(folder.dir)).toEqual(before);
  expect(readFileSync(out(name), 'utf8')).toBe('old');
}

const matrix = (values: readonly number[]): ArrayToWrite => ({
  data: Float32Array.from({ length: 64 }, (_, i) => values[i] ?? 0.5),
  shape: [2, 32],
});

test('values that the type cannot hold, and the device works on', async () => {
  await writeSafetensors(out('large.safetensors'), new Map([['w', matrix([1, 70000])]]));
  await writeSafetensors(out('nan.safetensors'), new Map([['w', matrix([1, NaN])]]));
  const [large, nan] = [out('large.safetensors'), out('nan.safetensors')];
  const overflow = { code: 'ERR_NON_FINITE', message: /w holds 70000: expected at most 65504 for F16/ };
  await expectFailure(large, 'x.safetensors', { type: 'F16' }, overflow);
  await expectFailure(nan, 'x.gguf', { type: 'Q8_0' }, { code: 'ERR_NON_FINITE' });
  await convert(large, out('bf16.safetensors'), { type: 'BF16' });
  // What was no number before may stay none where the type knows such.
  await convert(nan, out('nan16.safetensors'), { type: 'F16' });
});

test.each([
  ['copied', 'x.safetensors', undefined],
  ['decoded', 'x.gguf', 'Q8_0'],
] as const)('an input that becomes shorter while it is %s', async (_, name, type) => {
  writeSparse(out('in.safetensors'), ['a', 'b', 'c'], [1024, 4096]);
  const onProgress = (): void => truncateSync(out('in.safetensors'), 20 << 20);
  await expectFailure(out('in.safetensors'), name, { type, onProgress }, { code: 'ERR_FILE_READ' });
});

test('a folder that goes away while its file is written', async () => {
  const input = shipped('flux1-schnell-small.safetensors');
  const onProgress = (): void => rmSync(folder.dir, { recursive: true, force: true });
  await expect(convert(input, out('x.safetensors'), { onProgress })).rejects.toMatchObject({
    code: 'ERR_FILE_WRITE',
  });
});

test('a disk too small for it, found before anything is written', async () => {
  writeSparse(out('huge.safetensors'), ['w'], [250_000, 1_000_000]); // a terabyte of holes
  const full = { code: 'ERR_FILE_WRITE', message: /expected 1000000 MB of free disk, got \d+ MB/ };
  await expectFailure(out('huge.safetensors'), 'x.safetensors', {}, full);
});

test('shards that are missing or cut', async () => {
  const index = writeSparseShards(folder.dir, 3, 16 << 20);
  truncateSync(out('model-00003-of-00003.safetensors'), 1 << 20);
  const cut = { code: 'ERR_SAFETENSORS_TRUNCATED', message: /00003-of-00003/ };
  await expectFailure(index, 'x.safetensors', {}, cut);
  rmSync(out('model-00002-of-00003.safetensors'));
  const missing = { code: 'ERR_SHARDS', message: /1 of its 3 files are missing: model-00002-of-00003/ };
  await expectFailure(index, 'x.safetensors', {}, missing);
});

test('networks that nobody knows pass as they are, and types GGUF has not are named', async () => {
  const odd: ArrayToWrite = { data: new Uint8Array([1, 0]), dtype: 'BOOL', shape: [2] };
  await writeSafetensors(
    out('odd.safetensors'),
    new Map([
      ['who.knows', matrix([])],
      ['flags', odd],
    ]),
  );
  await convert(out('odd.safetensors'), out('copy.safetensors'));
  expect(readFileSync(out('copy.safetensors')).includes('who.knows')).toBe(true);
  const refused = { code: 'ERR_ARGUMENT', message: /flags: GGUF has no type BOOL/ };
  await expectFailure(out('odd.safetensors'), 'x.gguf', {}, refused);
});

test.each(['writing', 'checking'] as const)('cancelled while %s', async (phase) => {
  const abort = new AbortController();
  const onProgress: ConvertOptions['onProgress'] = (_bytes, _total, what) => {
    if (what === phase) abort.abort();
  };
  const input = shipped('flux1-schnell-small.safetensors');
  const options = { signal: abort.signal, onProgress };
  await expectFailure(input, 'x.safetensors', options, { code: 'ERR_CANCELLED' });
});

test('scales that are no single value are no guess', async () => {
  const weight: ArrayToWrite = { data: new Uint8Array(64), dtype: 'F8_E4M3', shape: [2, 32] };
  const scale: ArrayToWrite = { data: new Float32Array([1, 2]), shape: [2, 1] };
  const tensors = new Map([
    ['x.weight', weight],
    ['x.weight_scale', scale],
  ]);
  await writeSafetensors(out('rows.safetensors'), tensors);
  const refused = { code: 'ERR_ARGUMENT', message: /weight_scale is \[2, 1\]: expected one scale/ };
  await expectFailure(out('rows.safetensors'), 'x.gguf', { type: 'F16' }, refused);
});
