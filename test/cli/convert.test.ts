/** `kotoba convert` as a person runs it: names, what it says, what it refuses, and Ctrl-C. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { openModel } from '../../src/formats/index.js';
import { writeSparse } from '../convert/sparse_model.js';
import { golden } from '../support/golden.js';
import { run, temporaryFolder } from './run.js';

const dir = temporaryFolder();
afterEach(() => vi.unstubAllEnvs());
const T5 = golden('encoders/t5_tiny/model.safetensors');
const VOCABULARY = golden('encoders/t5_tiny_gguf/spiece.model');

/** A cache of the Hub that holds some files of a repository. */
function cacheWith(repository: string, files: Readonly<Record<string, string>>): void {
  const cache = dir.join('hub');
  const snapshot = join(cache, `models--${repository.replaceAll('/', '--')}`, 'snapshots', 'c0ffee');
  for (const [file, source] of Object.entries(files)) {
    mkdirSync(dirname(join(snapshot, file)), { recursive: true });
    writeFileSync(join(snapshot, file), readFileSync(source));
  }
  vi.stubEnv('HF_HUB_CACHE', cache);
}

test('names of the catalogue go where files go: the input, the encoders, the vocabulary', async () => {
  cacheWith('google/flan-t5-xxl', { 'spiece.model': VOCABULARY });
  cacheWith('easygoing0114/flan-t5-xxl-fused', { 'flan_t5_xxl_TE-only_FP16.safetensors': T5 });
  const out = dir.join('named.gguf');
  const made = await run([
    'convert',
    'flan-t5-xxl',
    out,
    '--type',
    'Q8_0',
    '--t5-tokenizer',
    't5-vocabulary',
  ]);
  expect(made).toMatchObject({ code: 0, stderr: '' });
  expect(openModel(out).metadata.get('general.architecture')).toBe('t5encoder');
  const encoded = await run([
    'encode',
    'a sparrow',
    '--t5',
    'flan-t5-xxl:fp16',
    '--t5-tokenizer',
    't5-vocabulary',
  ]);
  expect(encoded.code).toBe(0);
  const tokens = await run(['tokens', 'a sparrow', '--t5-tokenizer', 't5-vocabulary']);
  expect(tokens.code).toBe(0);
});

test('a name that is not pulled yet says how', async () => {
  vi.stubEnv('HF_HUB_CACHE', dir.join('empty'));
  for (const args of [
    ['convert', 'flan-t5-xxl:q4_k', dir.join('x.safetensors')],
    ['convert', T5, dir.join('x.safetensors'), '--t5', 'flan-t5-xxl:q4_k'],
    ['tokens', 'a sparrow', '--t5-tokenizer', 't5-vocabulary'],
    ['encode', 'a sparrow', '--t5', 'flan-t5-xxl:q4_k'],
    ['generate', 'a sparrow', '-o', dir.join('x.png'), '--model', 'sd1.5'],
    ['generate', 'a sparrow', '-o', dir.join('x.png'), '--t5', 'flan-t5-xxl:q4_k'],
    ['compare', 'a sparrow', '-o', dir.join('x.png'), '--clip-l', 'clip-gmp', '--clip-l', 'long-clip-gmp'],
    ['inspect', 'sdxl'],
    ['diff', 'clip-l', 'clip-gmp'],
    ['forward', 'sd3.5-medium', '--inputs', T5, '-o', dir.join('x.safetensors')],
  ]) {
    const { code, stderr } = await run(args);
    expect({ code, stderr }, args.join(' ')).toEqual({
      code: 1,
      stderr: expect.stringMatching(/ERR_FILE_NOT_FOUND: .*not downloaded yet: kotoba pull/) as string,
    });
  }
});

test('what it made, for people and for programs', async () => {
  const out = dir.join('said.safetensors');
  const said = await run(['convert', T5, out, '--type', 'F16']);
  expect(said.stdout).toMatch(/said\.safetensors: .*\d+ tensors \(\d+ F16\), read back and compared/);
  const json = await run(['convert', T5, out, '--type', 'BF16', '--force', '--json']);
  expect(json.json()).toMatchObject({ path: out, container: 'safetensors', types: { BF16: 30 } });
});

test.each([
  [['--t5-tokenizer', VOCABULARY], /--t5-tokenizer: is for a T5 that goes into a .gguf/],
  [['--tensor-type', 'x'], /expected a pattern and a type/],
  [['--tensor-type', '[=Q8_0'], /Invalid regular expression/],
  [['--type', 'Q7'], /expected one of F32, F16/],
  [['--type', 'Q8_0'], /safetensors hold no Q8_0: write a .gguf file/],
  [['--extract', 't5', '--t5', T5], /either a network to extract or networks to replace/],
])('%j is refused', async (args, message) => {
  const out = dir.join('refused.safetensors');
  const result = await run(['convert', T5, out, ...args]);
  expect(result).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(message) as string });
  expect(existsSync(out)).toBe(false);
});

test('nothing is overwritten unless told to, an input never', async () => {
  const out = dir.join('there.safetensors');
  writeFileSync(out, 'old');
  expect(await run(['convert', T5, out])).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/ERR_FILE_EXISTS: .*--force overwrites it/) as string,
  });
  expect(readFileSync(out, 'utf8')).toBe('old');
  writeFileSync(out, readFileSync(T5));
  expect(await run(['convert', out, out, '--force', '--type', 'F16'])).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/ERR_FILE_EXISTS: .*is an input too/) as string,
  });
  expect(readFileSync(out).equals(readFileSync(T5))).toBe(true);
});

const TSX = resolve(import.meta.dirname, '../../node_modules/tsx/dist/esm/index.mjs');
const KOTOBA = [process.execPath, '--import', TSX, join(import.meta.dirname, 'kotoba_process.ts')] as const;

test('Ctrl-C in the middle: 130, no half file, and what was there is there', async () => {
  const [input, out] = [dir.join('large.safetensors'), dir.join('slow.gguf')];
  writeSparse(
    input,
    Array.from({ length: 64 }, (_, i) => `w${i}`),
    [4096, 4096],
  );
  writeFileSync(out, 'old');
  const [command, ...rest] = KOTOBA;
  const child = spawn(command, [
    ...rest,
    'convert',
    input,
    out,
    '--type',
    'Q3_K',
    '--force',
    '--threads',
    '1',
  ]);
  let stderr = '';
  child.stderr.on('data', (part: Buffer) => (stderr += part.toString()));
  const ended = new Promise<number | null>((done) => child.on('close', done));
  const temporary = () => readdirSync(dir.path).filter((name) => /^\.slow/.test(name));
  await vi.waitUntil(() => temporary().length > 0 || child.exitCode !== null, { timeout: 20_000 });
  child.kill('SIGINT');
  expect({ code: await ended, stderr }).toEqual({
    code: 130,
    stderr: expect.stringMatching(/^kotoba: ERR_CANCELLED: /) as string,
  });
  expect(temporary()).toEqual([]);
  expect(readFileSync(out, 'utf8')).toBe('old');
});

test('a disk that takes no more: said so, and nothing is left of it', async () => {
  const out = dir.join('full.safetensors');
  const quoted = KOTOBA.map((part) => `'${part}'`).join(' ');
  // 64 KiB is the largest file that this shell and its children may write.
  const script = `ulimit -f 64; ${quoted} convert '${T5}' '${out}'; echo "code $?"`;
  const child = spawn('bash', ['-c', script]);
  let text = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (part: Buffer) => (text += part.toString()));
  await new Promise((done) => child.on('close', done));
  expect(text).toMatch(/ERR_FILE_WRITE: .*larger than this disk or process may write[^]*code 1/);
  expect(readdirSync(dir.path).filter((name) => name.includes('full'))).toEqual([]);
});
