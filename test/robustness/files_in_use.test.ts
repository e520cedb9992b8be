/** What happens to a model's file while it is loaded: deleted, replaced, cut short, loaded many times. */
import { copyFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { Device, TextEncoder } from '../../src/index.js';
import { golden } from '../support/golden.js';
import { outcomeOf, useScratch } from './scratch.js';

const kT5 = golden('encoders/t5_tiny_containers/model.fp16.safetensors');
const kOther = golden('encoders/t5_tiny_containers/model.bf16.safetensors');
const tokens = { ids: Int32Array.of(5, 6, 7, 8, 1), batch: 1 };

const scratch = useScratch();
let path: string;
beforeEach(() => {
  path = join(scratch.dir, 'model.safetensors');
  rmSync(path, { force: true });
  copyFileSync(kT5, path);
});

/** Promise.withResolvers needs Node 22. */
function later(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((done) => (resolve = done));
  return { promise, resolve };
}

async function encodeOnce(file: string): Promise<Float32Array> {
  await using encoder = await TextEncoder.load(file, { threads: 1 });
  return (await encoder.encodeTokens(tokens)).lastHiddenState;
}

test('deleted after loading: the map keeps it', async () => {
  await using encoder = await TextEncoder.load(path, { threads: 1 });
  rmSync(path);
  expect((await encoder.encodeTokens(tokens)).lastHiddenState).toEqual(await encodeOnce(kT5));
});

test('replaced by another file of the same name: the old one stays loaded', async () => {
  await using encoder = await TextEncoder.load(path, { threads: 1 });
  copyFileSync(kOther, `${path}.new`);
  renameSync(`${path}.new`, path);
  expect((await encoder.encodeTokens(tokens)).lastHiddenState).toEqual(await encodeOnce(kT5));
  expect(await encodeOnce(path)).toEqual(await encodeOnce(kOther));
});

test('cut short between its header and its weights', async () => {
  await using device = Device.open('cpu', { threads: 1 });
  const { promise, resolve } = later();
  const busy = device.run(() => promise); // the load's turn comes after it
  const loading = outcomeOf(() => TextEncoder.load(path, { device }));
  truncateSync(path, statSync(path).size / 2);
  resolve();
  await busy;
  expect(await loading).toMatchObject({
    code: 'ERR_FILE_READ',
    message: expect.stringContaining(path) as string,
  });
});

// Without the map's guard, every one of these ends the whole process with SIGBUS.
test.each([0, 8, 5000, 100_000, -5000, -1])('cut short after loading, to byte %i', async (at) => {
  const { size } = statSync(path);
  await using encoder = await TextEncoder.load(path, { threads: 2 });
  const whole = await encoder.encodeTokens(tokens);
  expect(whole.lastHiddenState).toEqual(await encodeOnce(kT5));
  truncateSync(path, at < 0 ? size + at : at);
  const cut = await outcomeOf(() => encoder.encodeTokens(tokens));
  expect(cut).toMatchObject({ code: 'ERR_FILE_READ', message: expect.stringContaining('shorter') as string });
  // Written whole again under it: those bytes were lost, so only a new load trusts the file.
  copyFileSync(kT5, path);
  expect((await outcomeOf(() => encoder.encodeTokens(tokens))).code).toMatch(/^(ok|ERR_FILE_READ)$/);
  expect(await encodeOnce(path)).toEqual(whole.lastHiddenState);
});

test('cut short while it encodes', async () => {
  await using encoder = await TextEncoder.load(path, { threads: 2 });
  const jobs = Array.from({ length: 200 }, () => outcomeOf(() => encoder.encodeTokens(tokens)));
  await jobs[3];
  writeFileSync(path, 'short');
  const codes = new Set((await Promise.all(jobs)).map(({ code }) => code));
  expect([...codes]).toEqual(['ok', 'ERR_FILE_READ']);
});

test('twenty loads at once, of one file', async () => {
  const expected = await encodeOnce(kT5);
  const all = await Promise.all(Array.from({ length: 20 }, () => encodeOnce(path)));
  for (const hidden of all) expect(hidden).toEqual(expected);
});

test('loads at once on one device, one of them wrong', async () => {
  await using device = Device.open('cpu', { threads: 1 });
  const broken = scratch.put('broken.gguf', 'GGUF');
  const outcomes = await Promise.all(
    [path, broken, path, 'nowhere', path].map((file) =>
      outcomeOf(async () => {
        await using encoder = await TextEncoder.load(file, { device });
        await encoder.encodeTokens(tokens);
      }),
    ),
  );
  const codes = outcomes.map(({ code }) => code);
  expect(codes).toEqual(['ok', 'ERR_GGUF_TRUNCATED', 'ok', 'ERR_FILE_NOT_FOUND', 'ok']);
});
