/** `generate` in a process of its own, ended or hindered from outside: the right exit code, and no half file anywhere. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, truncateSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { readPicture, shippedModel } from '../../src/index.js';
import { useScratch } from './scratch.js';

vi.setConfig({ testTimeout: 240_000 }); // seconds on a quiet machine

const kHere = dirname(fileURLToPath(import.meta.url));
const kTsx = createRequire(import.meta.url).resolve('tsx');
const kCommand = [process.execPath, '--import', kTsx, resolve(kHere, '../cli/kotoba_process.ts')];
const scratch = useScratch();

/** An empty folder. */
function folder(name: string): string {
  const path = join(scratch.dir, name);
  mkdirSync(path);
  return path;
}

const generate = (out: string, ...more: string[]): string[] => [
  ...kCommand,
  ...['generate', 'a red circle', '--seed', '1', '-o', out, ...more],
];

/** @param script of bash, in which "$@" is the command */
function bash(script: string, command: readonly string[]) {
  const { status, stdout, stderr } = spawnSync('bash', ['-c', script, 'bash', ...command], {
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

describe('a signal', () => {
  const children: ChildProcess[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL'); // only a failed test leaves one running
  });

  /** Sends it as soon as `when` is true, then as the process ends. */
  async function interrupt(command: readonly string[], kill: NodeJS.Signals, when: () => boolean) {
    const child = spawn(command[0]!, command.slice(1));
    children.push(child);
    const text = { stdout: '', stderr: '' };
    child.stdout.on('data', (part: Buffer) => (text.stdout += part.toString()));
    child.stderr.on('data', (part: Buffer) => (text.stderr += part.toString()));
    const ended = new Promise<{ code: number | null; signal: string | null }>((done) =>
      child.on('close', (code, signal) => done({ code, signal })),
    );
    while (child.exitCode === null && !when()) await new Promise((done) => setTimeout(done, 5));
    const asked = performance.now();
    child.kill(kill);
    return { ...(await ended), ...text, milliseconds: performance.now() - asked };
  }

  const after = (milliseconds: number) => {
    const started = performance.now();
    return () => performance.now() - started > milliseconds;
  };

  test.each<['SIGINT' | 'SIGTERM', number]>([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ])('%s at any time, from the start on', async (signal, exitCode) => {
    for (const delay of [300, 900, 1300, 1700, 2200]) {
      const dir = folder(`${signal}-${delay}`);
      const command = generate(join(dir, 'out.png'), '--steps', '3000', '--size', '128x128');
      const ended = await interrupt(command, signal, after(delay));
      // Before the command listens, the signal itself ends the process, which shells report as the same number.
      expect([exitCode, null], `${delay} ms: ${ended.stderr}`).toContain(ended.code);
      if (ended.code === null) expect(ended.signal).toBe(signal);
      else expect(ended.stderr).toMatch(/^kotoba: ERR_CANCELLED: /);
      expect(ended.stdout).toBe('');
      expect(readdirSync(dir), `${delay} ms`).toEqual([]);
      expect(ended.milliseconds).toBeLessThan(5000);
    }
  });

  test.each<[string, string[]]>([
    ['while it samples', ['--steps', '3000', '--size', '128x128']],
    ['while it decodes', ['--steps', '1', '--size', '1536x1536', '--tile', '256']],
  ])('SIGINT %s: only the preview is there, and whole', async (name, more) => {
    const dir = folder(name);
    const preview = join(dir, 'preview.png');
    const command = generate(join(dir, 'out.png'), '--preview', preview, ...more);
    const ended = await interrupt(command, 'SIGINT', () => existsSync(preview));
    expect(ended).toMatchObject({ code: 130, stdout: '' });
    expect(readdirSync(dir).filter((file) => file !== 'preview.png')).toEqual([]);
    expect((await readPicture(preview)).width).toBeGreaterThan(0);
  });

  test('SIGINT while a large file is hashed', async () => {
    const dir = folder('hash');
    const t5 = join(dir, 'large.gguf');
    copyFileSync(join(dirname(shippedModel().denoiser), 'flan_t5-Q8_0.gguf'), t5);
    truncateSync(t5, 1_900_000_000); // a hole: no disk is used
    const preview = join(dir, 'preview.png');
    const command = generate(join(dir, 'out.png'), '--t5', t5, '--preview', preview);
    const ended = await interrupt(command, 'SIGINT', () => existsSync(preview));
    // A fast machine may have hashed it.
    expect([0, 130], ended.stderr).toContain(ended.code);
    if (ended.code === 130) expect(existsSync(join(dir, 'out.png'))).toBe(false);
  });

  test('SIGINT in compare', async () => {
    const dir = folder('compare-interrupted');
    const command = [...kCommand, 'compare', 'a red circle', '--steps', '3000', '-o', join(dir, 'grid.png')];
    const ended = await interrupt(command, 'SIGINT', after(2500));
    expect([130, null], ended.stderr).toContain(ended.code);
    expect(readdirSync(dir)).toEqual([]);
  });

  test('SIGINT in demo, which writes when all is drawn', async () => {
    for (const delay of [300, 700, 1000]) {
      const dir = join(folder(`demo-${delay}`), 'demo');
      const ended = await interrupt([...kCommand, 'demo', '--output', dir], 'SIGINT', after(delay));
      expect([130, null, 0], ended.stderr).toContain(ended.code); // 0: a machine that was faster
      expect(existsSync(join(dir, 'index.html')), `${delay} ms`).toBe(ended.code === 0);
      if (ended.code !== 0) expect(existsSync(dir) ? readdirSync(dir) : []).toEqual([]);
    }
  });
});

describe('a place that takes nothing', () => {
  test('a full disk', (context) => {
    const dir = folder('full');
    const mount = `mount -t tmpfs -o size=4k none '${dir}'`;
    if (spawnSync('unshare', ['-m', 'bash', '-c', mount]).status !== 0)
      return context.skip('no disk can be mounted here');
    const script = `${mount} && { "$@"; echo "code $?"; ls -A '${dir}'; }`;
    const command = generate(join(dir, 'out.png'));
    const ended = spawnSync('unshare', ['-m', 'bash', '-c', script, 'bash', ...command], {
      encoding: 'utf8',
    });
    expect(ended.stdout).toBe('code 1\n');
    expect(ended.stderr).toMatch(/^kotoba: ERR_FILE_WRITE: .*out\.png: cannot write: the disk is full/);
  });

  test('a read-only disk, before any work', (context) => {
    const dir = folder('read-only');
    const mount = `mount -t tmpfs -o ro none '${dir}'`;
    if (spawnSync('unshare', ['-m', 'bash', '-c', mount]).status !== 0)
      return context.skip('no disk can be mounted here');
    const script = `${mount} && { "$@"; echo "code $?"; }`;
    const command = generate(join(dir, 'out.png'), '--steps', '3000');
    const ended = spawnSync('unshare', ['-m', 'bash', '-c', script, 'bash', ...command], {
      encoding: 'utf8',
    });
    expect(ended.stdout).toBe('code 1\n');
    expect(ended.stderr).toMatch(/^kotoba: ERR_FILE_WRITE: .*read-only/);
  });

  test('a folder that is not there, a file as folder, /proc', () => {
    const dir = folder('places');
    const file = scratch.put('file', 'precious');
    for (const out of [join(dir, 'nope', 'x.png'), join(file, 'x.png'), '/proc/x.png']) {
      const { status, stdout, stderr } = bash('"$@"', generate(out, '--steps', '3000'));
      expect({ status, stdout }, `${out}: ${stderr}`).toEqual({ status: 1, stdout: '' });
      expect(stderr).toMatch(/^kotoba: ERR_FILE_WRITE: /);
    }
    expect(readFileSync(file, 'utf8')).toBe('precious');
    expect(readdirSync(dir, { recursive: true })).toEqual([]);
  });
});

describe('stdout', () => {
  test('a reader of --json that goes away is no error, and the picture is there', async () => {
    const out = join(folder('pipe'), 'out.png');
    const { stdout, stderr } = bash('"$@" | true; echo "code ${PIPESTATUS[0]}"', generate(out, '--json'));
    expect({ stdout, stderr }).toEqual({ stdout: 'code 0\n', stderr: '' });
    expect((await readPicture(out)).width).toBe(64);
  });

  test('a full disk behind it: one line and an exit code, and the picture is there', async (context) => {
    if (!existsSync('/dev/full')) return context.skip('no /dev/full here');
    const out = join(folder('stdout'), 'out.png');
    const { status, stderr } = bash('"$@" > /dev/full', generate(out, '--json'));
    expect(status).toBe(1);
    expect(stderr).toMatch(/^kotoba: ERR_FILE_WRITE: the output cannot be written: [^\n]*\n$/);
    expect((await readPicture(out)).width).toBe(64);
  });
});
