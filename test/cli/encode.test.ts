/** `kotoba encode` end to end on small real files: what it writes equals the library's result, and what it says. */
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { TextEncoder } from '../../src/index.js';
import { golden } from '../support/golden.js';
import { writeRandomClip } from '../support/random_clip.js';
import { maxAbsDifference } from '../support/reference.js';
import { readTensors } from './read_tensors.js';
import { run, temporaryFolder } from './run.js';

const PROMPT = "a sparrow on a girl's hand";
const t5 = golden('encoders/t5_tiny_gguf/model.f32.gguf');
const dir = temporaryFolder();
let clip: string;
let long: string;
beforeAll(async () => {
  clip = await writeRandomClip(dir.join('clip.safetensors'), { projection: 16 });
  long = await writeRandomClip(dir.join('long.safetensors'), { positions: 248, seed: 2 });
});

interface Report {
  encoders: {
    slot: string;
    precision: string;
    tokens: number;
    chunks: number;
    width: number;
    gflops: number;
    bytesRead: number;
    threads: number;
    firstEmbeddingSeconds: number;
    encodeSeconds: number;
    truncatedTokens: number;
  }[];
  output: { path: string; bytes: number; tensors: { name: string; shape: number[] }[] };
  warnings: string[];
}

describe('what is written', () => {
  test('two encoders, each at its own precision, equal to the library', async () => {
    const out = dir.join('two.safetensors');
    const args = ['--precision', 'fp32', '--precision', 't5=int8', '--t5-length', '77', '-o', out, '--json'];
    const { code, json, stderr } = await run(['encode', PROMPT, '--clip-l', clip, '--t5', t5, ...args]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const report = json() as Report;
    expect(report.encoders.map(({ slot, precision }) => [slot, precision])).toEqual([
      ['clip_l', 'fp32'],
      ['t5', 'int8'],
    ]);
    const { tensors, metadata } = readTensors(out);
    expect(
      [...tensors].map(([name, { dtype, shape }]) => `${name} ${dtype} ${shape.join('x')}`).sort(),
    ).toEqual([
      'clip_l.hidden F32 1x77x32',
      'clip_l.pooled F32 1x32',
      'clip_l.projected F32 1x16',
      'clip_l.token_ids I32 1x77',
      't5.hidden F32 1x77x64',
      't5.token_ids I32 1x77',
    ]);
    expect(JSON.parse(metadata.get('prompts') as string)).toEqual([PROMPT]);
    expect(JSON.parse(metadata.get('precisions') as string)).toEqual({ clip_l: 'fp32', t5: 'int8' });
    expect(JSON.parse(metadata.get('files') as string)).toEqual({
      clip_l: 'clip.safetensors',
      t5: 'model.f32.gguf',
    });
    expect(metadata.get('kotoba_version')).toMatch(/^\d+\.\d+\.\d+/);

    await using encoder = await TextEncoder.load(clip, { slot: 'clip_l' });
    const expected = await encoder.encode(PROMPT);
    expect(maxAbsDifference(tensors.get('clip_l.hidden')!.values, expected.hidden)).toBe(0);
    expect(maxAbsDifference(tensors.get('clip_l.pooled')!.values, expected.pooled!)).toBe(0);
    expect(maxAbsDifference(tensors.get('clip_l.projected')!.values, expected.projected!)).toBe(0);
    await using t5Encoder = await TextEncoder.load(t5, { precision: 'int8' });
    const layout = { minLength: 77, maxLength: 77 };
    const t5Expected = await t5Encoder.encode(PROMPT, { layout });
    expect(maxAbsDifference(tensors.get('t5.hidden')!.values, t5Expected.hidden)).toBe(0);
  });

  test('prompts of different lengths have tensors of their own; pooled ones stay a batch', async () => {
    const out = dir.join('lengths.safetensors');
    const { code } = await run(['encode', 'one', 'a longer prompt', '--t5', t5, '--clip', clip, '-o', out]);
    expect(code).toBe(0);
    const shapes = Object.fromEntries(
      [...readTensors(out).tensors].map(([name, { shape }]) => [name, shape]),
    );
    expect(
      Object.keys(shapes)
        .filter((name) => name.startsWith('t5'))
        .sort(),
    ).toEqual(['t5.0.hidden', 't5.0.token_ids', 't5.1.hidden', 't5.1.token_ids']);
    expect(shapes['t5.0.hidden']).toHaveLength(2);
    expect(shapes['clip_l.hidden']).toEqual([2, 77, 32]);
    expect(shapes['clip_l.pooled']).toEqual([2, 32]);
  });

  test('hidden states, clip skip and no final norm are the same layer', async () => {
    const out = dir.join('skip.safetensors');
    const args = ['--clip-skip', 'clip_l=2', '--no-final-norm', '--hidden-states', '-o', out];
    expect((await run(['encode', PROMPT, '--clip-l', clip, '--t5', t5, ...args])).code).toBe(0);
    const { tensors } = readTensors(out);
    expect(tensors.get('clip_l.hidden')!.values).toEqual(tensors.get('clip_l.hidden_states.1')!.values);
    await using encoder = await TextEncoder.load(t5); // --clip-skip is no matter of T5's
    const expected = await encoder.encode(PROMPT);
    expect(maxAbsDifference(tensors.get('t5.hidden')!.values, expected.hidden)).toBe(0);
  });

  test('a .npy file holds the hidden states of one encoder', async () => {
    const out = dir.join('one.npy');
    expect((await run(['encode', PROMPT, 'b', '--clip-l', clip, '-o', out])).code).toBe(0);
    const bytes = readFileSync(out);
    const head = bytes.subarray(0, 128).toString('latin1');
    expect(head).toContain("'shape': (2, 77, 32)");
    expect(bytes.length).toBe(128 + 2 * 77 * 32 * 4);
    await using encoder = await TextEncoder.load(clip, { slot: 'clip_l' });
    const [, second] = await encoder.encode([PROMPT, 'b']);
    const values = new Float32Array(bytes.buffer.slice(bytes.byteOffset + 128 + 77 * 32 * 4));
    expect(maxAbsDifference(values, second!.hidden)).toBe(0);
  });

  test('prompts from stdin and from a file, an empty line being an empty prompt', async () => {
    const file = dir.join('prompts.txt');
    writeFileSync(file, 'third\r\n\nfifth\n');
    const args = ['--prompt-file', file, '--clip-l', clip, '-o', dir.join('p.safetensors'), '--json'];
    const { json } = await run(['encode', 'first', '-', ...args], { stdin: 'second\n' });
    expect((json() as { prompts: string[] }).prompts).toEqual(['first', 'second', 'third', '', 'fifth']);
  });

  test('every encoder of a checkpoint, one of them swapped', async () => {
    const folder = dir.join('pipeline');
    for (const name of ['text_encoder', 'text_encoder_2']) {
      mkdirSync(join(folder, name), { recursive: true });
      copyFileSync(clip, join(folder, name, 'model.safetensors'));
      const config = { num_attention_heads: 4, hidden_act: 'quick_gelu' };
      writeFileSync(join(folder, name, 'config.json'), JSON.stringify(config));
    }
    const out = dir.join('swap.safetensors');
    const { json } = await run(['encode', PROMPT, '--model', folder, '--clip-l', long, '-o', out, '--json']);
    const files = (json() as { encoders: { slot: string; file: string }[] }).encoders;
    expect(files.map(({ slot, file }) => [slot, file])).toEqual([
      ['clip_l', long],
      ['clip_g', folder],
    ]);
    expect(readTensors(out).tensors.get('clip_l.hidden')!.shape).toEqual([1, 248, 32]);
  });

  test('an existing file is replaced, and no temporary one stays', async () => {
    const out = dir.join('again.safetensors');
    writeFileSync(out, 'old');
    expect((await run(['encode', PROMPT, '--clip-l', clip, '-o', out])).code).toBe(0);
    expect(readTensors(out).tensors.has('clip_l.hidden')).toBe(true);
    expect(readdirSync(dir.path).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });
});

describe('what is said', () => {
  test('a table of what ran where and how fast', async () => {
    const out = dir.join('table.safetensors');
    const { stdout, stderr } = await run(['encode', PROMPT, '--clip-l', clip, '--t5', t5, '-o', out]);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/clip_l {2}fp32 +77 +32 +6\.44 MB( +[\d.]+ (s|ms|µs)){3} +[\d.]+\n/);
    expect(stdout).toMatch(/ran on +cpu \(.*\), \w+, \d+ threads?/);
    expect(stdout).toContain(`${out}, `);
    expect(stdout).toMatch(/clip_l\.hidden +\[1, 77, 32\]/);
    expect(stdout).not.toContain('\x1b');
  });

  test('the report counts every token that runs, ComfyUI’s empty prompt included', async () => {
    const args = ['--clip-l', clip, '-o', dir.join('n.safetensors'), '--json', '--dialect', 'comfyui'];
    const { json } = await run(['encode', 'a (sparrow:1.2)', ...args]);
    const [encoder] = (json() as Report).encoders;
    expect(encoder).toMatchObject({ tokens: 154, chunks: 1, width: 32, truncatedTokens: 0 });
    const operations = 2 * 154 * 2 * (4 * 32 * 32 + 2 * 32 * 128);
    expect(encoder!.gflops * encoder!.encodeSeconds * 1e9).toBeCloseTo(operations, 0);
    expect(encoder!.firstEmbeddingSeconds).toBeGreaterThanOrEqual(encoder!.encodeSeconds);
  });

  test('a prompt that is cut is always said', async () => {
    const args = ['--t5', t5, '--t5-length', '3', '-o', dir.join('cut.safetensors')];
    const { code, stderr } = await run(['encode', PROMPT, ...args]);
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /^kotoba: warning: t5: the prompt is cut after 2 of \d+ tokens; not read: ".+"\n$/,
    );
    const { json, stderr: warned } = await run(['encode', PROMPT, ...args, '--json']);
    expect(warned).toBe(stderr);
    expect((json() as Report).warnings).toHaveLength(1);
    const refused = await run(['encode', PROMPT, ...args, '--overflow', 'error']);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('ERR_ARGUMENT') as string });
  });

  test('long CLIP prompts go on in chunks', async () => {
    const args = ['--clip-l', clip, '-o', dir.join('chunks.safetensors'), '--json'];
    const { json } = await run(['encode', 'word '.repeat(100), ...args]);
    expect((json() as Report).encoders[0]).toMatchObject({ chunks: 2, tokens: 154 });
    expect((json() as Report).output.tensors[0]).toMatchObject({
      name: 'clip_l.hidden',
      shape: [1, 154, 32],
    });
  });

  test('a progress line on a terminal, taken away at the end; colours', async () => {
    const args = ['--clip-l', clip, '-o', dir.join('tty.safetensors')];
    const { stderr, stdout } = await run(['encode', PROMPT, ...args], { terminal: 100 });
    expect(stderr).toContain('layer 2 of 2');
    expect(stderr.endsWith('\r\x1b[K')).toBe(true);
    expect(stdout).toContain('\x1b[');
    const plain = await run(['encode', PROMPT, ...args], { terminal: 100, env: { NO_COLOR: '1' } });
    expect(plain.stdout).not.toContain('\x1b');
  });
});

describe('what is refused, before anything runs', () => {
  const out = (): string => dir.join('refused.safetensors');

  test.each<[string, string[], number, RegExp]>([
    ['no encoder', ['encode', 'x'], 2, /ERR_ARGUMENT: no encoder given/],
    ['an encoder that is not there', ['encode', 'x', '--t5', '/nope'], 1, /ERR_FILE_NOT_FOUND: \/nope/],
    ['a device of another version', ['encode', 'x', '--t5', t5, '--device', 'cuda'], 1, /ERR_DEVICE.*CUDA/],
    [
      'a precision of no encoder',
      ['encode', 'x', '--t5', t5, '--precision', 'clip_g=int8'],
      2,
      /clip_g=….*t5/,
    ],
    ['an unknown precision', ['encode', 'x', '--t5', t5, '--precision', 'fp64'], 2, /auto, fp32, int8/],
    ['an unknown slot', ['encode', 'x', '--t5', t5, '--precision', 't6=int8'], 2, /got "t6"/],
    ['a clip skip below 1', ['encode', 'x', '--t5', t5, '--clip-skip', '0'], 2, /whole number from 1/],
    ['an unknown option', ['encode', 'x', '--t5', t5, '--frobnicate'], 2, /unknown option '--frobnicate'/],
    ['an output of another kind', ['encode', 'x', '--t5', t5, '-o', 'x.pt'], 2, /\.safetensors or \.npy/],
    [
      'an output folder that is not there',
      ['encode', 'x', '--t5', t5, '-o', '/nope/x.npy'],
      1,
      /ERR_FILE_WRITE/,
    ],
    ['broken JSON', ['encode', 'x', '--t5', t5, '--config', '{"a"'], 2, /--config: expected JSON/],
  ])('%s', async (_, args, code, message) => {
    const result = await run(args.includes('-o') ? args : [...args, '-o', out()]);
    expect(result).toMatchObject({ code, stdout: '', stderr: expect.stringMatching(message) as string });
    expect(result.stderr).not.toMatch(/\n\s+at /);
    expect(existsSync(out())).toBe(false);
  });

  test('no prompt', async () => {
    expect(await run(['encode', '--clip-l', clip, '-o', out()])).toMatchObject({ code: 2 });
  });

  test('a clip skip beyond the layers', async () => {
    const { code, stderr } = await run(['encode', 'x', '--clip-l', clip, '--clip-skip', '3', '-o', out()]);
    expect({ code, stderr }).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('2 layers') as string,
    });
  });

  test('a T5 in the slot of a CLIP, and two files for one slot', async () => {
    expect(await run(['encode', 'x', '--clip-l', t5, '-o', out()])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/ERR_MODEL_SLOT.*slot clip_l.*slot t5/) as string,
    });
    expect(await run(['encode', 'x', '--clip-l', clip, '--clip', clip, '-o', out()])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('two files for clip_l') as string,
    });
  });

  test('a T5 without a vocabulary names the three ways', async () => {
    const weights = golden('encoders/t5_tiny/model.safetensors');
    const { code, stderr } = await run(['encode', 'x', '--t5', weights, '-o', out()]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/ERR_TOKENIZER_MISSING[^]*1\.[^]*2\.[^]*3\./);
  });

  test('an output that is an input', async () => {
    const copy = dir.join('weights.safetensors');
    copyFileSync(clip, copy);
    const { code, stderr } = await run(['encode', 'x', '--clip-l', copy, '-o', copy]);
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('ERR_FILE_EXISTS') as string,
    });
    expect(readFileSync(copy).equals(readFileSync(clip))).toBe(true);
  });

  test('a .npy for two encoders, or prompts of two lengths', async () => {
    const npy = dir.join('refused.npy');
    for (const args of [
      ['x', '--clip-l', clip, '--t5', t5],
      ['x', 'longer than x', '--t5', t5],
    ])
      expect(await run(['encode', ...args, '-o', npy])).toMatchObject({
        code: 2,
        stderr: expect.stringContaining('holds one array') as string,
      });
    expect(existsSync(npy)).toBe(false);
  });

  test('a flat config for two encoders says how to name one', async () => {
    const config = '{"num_attention_heads": 4}';
    const result = await run(['encode', 'x', '--clip-l', clip, '--t5', t5, '--config', config, '-o', out()]);
    expect(result).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--config clip_l=FILE') as string,
    });
  });

  test('a CLIP whose own vocabulary is nowhere', async () => {
    const tiny = golden('encoders/clip_l_tiny/model.safetensors');
    const { code, stderr } = await run(['encode', 'x', '--clip-l', tiny, '-o', out()]);
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/ERR_TOKENIZER_MISSING.*600 tokens.*tokenizer\.json/s) as string,
    });
  });
});

test('a config for one of two encoders, as slot=value and nested', async () => {
  const out = dir.join('config.safetensors');
  const eight = '{"num_attention_heads": 8}';
  const base = ['encode', PROMPT, '--clip-l', clip, '--t5', t5, '-o', out];
  const results = [];
  for (const config of [[], ['--config', `clip_l=${eight}`], ['--config', `{"clip_l": ${eight}}`]]) {
    const { code, stderr } = await run([...base, ...config]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    results.push(readTensors(out).tensors.get('clip_l.hidden')!.values);
  }
  expect(results[1]).toEqual(results[2]);
  expect(maxAbsDifference(results[0]!, results[1]!)).toBeGreaterThan(0);
});

test('names are searched in --models-dir', async () => {
  const out = dir.join('name.safetensors');
  const { code, stdout } = await run([
    'encode',
    PROMPT,
    '--clip-l',
    'clip',
    '--models-dir',
    dir.path,
    '-o',
    out,
  ]);
  expect(code).toBe(0);
  expect(stdout).toContain(clip);
});

test('Ctrl-C: 130, and nothing written', async () => {
  const out = dir.join('cancelled.safetensors');
  const prompts = Array.from({ length: 60 }, (_, i) => `number ${i}`);
  const result = await run(['encode', ...prompts, '--clip-l', clip, '-o', out], {
    terminal: 100,
    interruptAt: /layer 0 of/,
  });
  expect(result.code).toBe(130);
  expect(result.stderr).toContain('ERR_CANCELLED');
  expect(result.stderr, 'it does not run to its end first').not.toContain('layer 4 of 4');
  expect(existsSync(out)).toBe(false);
});
