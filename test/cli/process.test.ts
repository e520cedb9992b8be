/** What only a real process shows: exit codes, Ctrl-C, a reader that goes away, ending by itself. */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { golden } from '../support/golden.js';
import { writeRandomClip } from '../support/random_clip.js';
import { temporaryFolder } from './run.js';

const here = dirname(fileURLToPath(import.meta.url));
const tsx = resolve(here, '../../node_modules/tsx/dist/esm/index.mjs');
const NODE_ARGS = ['--import', tsx, join(here, 'kotoba_process.ts')];
const dir = temporaryFolder();

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(command: string, args: readonly string[], env: Record<string, string> = {}) {
  const child = spawn(command, args, { env: { ...process.env, ...env } });
  const text = { stdout: '', stderr: '' };
  child.stdout.on('data', (part: Buffer) => (text.stdout += part.toString()));
  child.stderr.on('data', (part: Buffer) => (text.stderr += part.toString()));
  const ended = new Promise<Ended>((done, failed) => {
    child.on('error', failed);
    child.on('close', (code, signal) => done({ code, signal, ...text }));
  });
  return { child, ended };
}

const kotoba = (args: readonly string[], env?: Record<string, string>) =>
  start(process.execPath, [...NODE_ARGS, ...args], env);

test('exit codes and streams', async () => {
  const t5 = golden('encoders/t5_tiny_gguf/model.f32.gguf');
  const out = dir.join('process.safetensors');
  const [version, failed, usage, encoded] = await Promise.all([
    kotoba(['--version']).ended,
    kotoba(['inspect', '/nope']).ended,
    kotoba(['frobnicate']).ended,
    kotoba(['encode', 'a sparrow', '--t5', t5, '-o', out]).ended,
  ]);
  expect(version).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string });
  expect(failed).toMatchObject({
    code: 1,
    stdout: '',
    stderr: 'kotoba: ERR_FILE_NOT_FOUND: /nope: no such file or folder\n',
  });
  expect(usage).toMatchObject({ code: 2, stdout: '' });
  expect(encoded).toMatchObject({ code: 0, stderr: '' });
  expect(existsSync(out)).toBe(true);
});

test('a reader that goes away is no error', async () => {
  const file = golden('encoders/t5_tiny/model.safetensors');
  const quoted = [process.execPath, ...NODE_ARGS].map((arg) => `'${arg}'`).join(' ');
  // The reader is gone before anything is written.
  const script = `${quoted} inspect '${file}' --tensors | true; echo "code \${PIPESTATUS[0]}"`;
  const { stdout, stderr } = await start('bash', ['-c', script]).ended;
  expect({ stdout, stderr }).toEqual({ stdout: 'code 0\n', stderr: '' });
});

test('Ctrl-C in the middle of an encode: 130 soon, no half file', async () => {
  const clip = await writeRandomClip(dir.join('clip.safetensors'), { width: 128, layers: 24 });
  const out = dir.join('cancelled.safetensors');
  const args = ['encode', '-', '--clip-l', clip, '-o', out];
  const config = '{"num_attention_heads": 4, "hidden_act": "quick_gelu"}';
  const { child, ended } = kotoba([...args, '--config', config], {
    KOTOBA_ISA: 'plain',
    KOTOBA_THREADS: '1',
  });
  // More than a pipe holds: once all is written, the command has begun to read it, and so listens for Ctrl-C.
  const prompts = Array.from({ length: 2000 }, (_, i) => `number ${i}: ${'a sparrow on a hand, '.repeat(4)}`);
  await new Promise<void>((done) => child.stdin.end(prompts.join('\n'), done));
  await new Promise((done) => setTimeout(done, 2500));
  expect(child.exitCode, 'still at work').toBe(null);
  const asked = performance.now();
  child.kill('SIGINT');
  const { code, signal, stderr, stdout } = await ended;
  expect({ code, signal, stdout, stderr }).toMatchObject({
    code: 130,
    signal: null,
    stdout: '',
    stderr: expect.stringMatching(/^kotoba: ERR_CANCELLED: /) as string,
  });
  // One layer of 4096 tokens at this width takes 0.2 s on one slow thread.
  expect(performance.now() - asked, 'milliseconds to stop').toBeLessThan(5000);
  expect(readdirSync(dir.path).filter((name) => name.includes('cancelled'))).toEqual([]);
});
