/** The command line as a whole: help, versions, errors for people and machines. */
import { describe, expect, test, vi } from 'vitest';
import { golden } from '../support/golden.js';
import { run } from './run.js';

describe('help', () => {
  test('lists commands, environment and exit codes', async () => {
    const { code, stdout, stderr } = await run(['--help']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const word of [
      'demo',
      'generate',
      'compare',
      'encode',
      'tokens',
      'inspect',
      'forward',
      'doctor',
      'KOTOBA_MODELS',
      'KOTOBA_THREADS',
    ])
      expect(stdout).toContain(word);
    for (const code of ['0', '1', '2', '70', '130']) expect(stdout).toMatch(new RegExp(`^ {2}${code} `, 'm'));
  });

  test.each(['demo', 'generate', 'compare', 'encode', 'tokens', 'inspect', 'forward', 'doctor'])(
    '%s --help has examples',
    async (command) => {
      const { code, stdout } = await run([command, '--help']);
      expect(code).toBe(0);
      expect(stdout).toMatch(/Examples?:/);
      expect(stdout).toContain('--json');
      expect(stdout).toContain(`$ kotoba ${command}`);
    },
  );

  test('no command shows it, as a usage error', async () => {
    const { code, stdout, stderr } = await run([]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain('Usage: kotoba');
  });
});

describe('errors', () => {
  test('one line with the code, no stack', async () => {
    const { stderr } = await run(['inspect', '/nope', '--frobnicate']);
    expect(stderr).toBe("kotoba: ERR_ARGUMENT: unknown option '--frobnicate'; see kotoba --help\n");
  });

  test('KOTOBA_DEBUG=1 adds the stack', async () => {
    const args = ['forward', '/nope', '--inputs', 'x', '-o', '/tmp/x.safetensors'];
    expect((await run(args)).stderr).not.toMatch(/\n\s+at /);
    const { stderr } = await run(args, { env: { KOTOBA_DEBUG: '1' } });
    expect(stderr).toMatch(/ERR_FILE_NOT_FOUND[^]*\n\s+at /);
  });

  test('--json: an object on stdout', async () => {
    const { code, json, stderr } = await run(['encode', 'x', '--t5', '/nope', '--json']);
    expect({ code, stderr }).toEqual({ code: 1, stderr: '' });
    expect(json()).toEqual({
      error: { code: 'ERR_FILE_NOT_FOUND', message: expect.stringContaining('/nope') as string },
    });
    const usage = await run(['encode', '--frobnicate', '--json']);
    expect(usage.json()).toMatchObject({ error: { code: 'ERR_ARGUMENT' } });
    const prompt = await run(['encode', '--t5', '/nope', '--', '--json']);
    expect(prompt.stdout, 'after -- it is a prompt').toBe('');
  });

  test('a bug is called one: 70', async () => {
    const text = await import('../../src/text/index.js');
    const broken = vi.spyOn(text, 'parsePrompt').mockImplementation(() => {
      throw new TypeError('x is undefined');
    });
    try {
      const { code, stderr } = await run(['tokens', 'x']);
      expect(code).toBe(70);
      expect(stderr).toMatch(/^kotoba: ERR_INTERNAL: x is undefined\. This is a bug/);
    } finally {
      broken.mockRestore();
    }
  });

  test('an escape sequence in a name does not reach the terminal', async () => {
    for (const command of [['inspect'], ['forward', '--inputs', 'x', '-o', 'x.safetensors']]) {
      const { stderr } = await run([...command, '/no\x1b[2Jpe\x07\x9b']);
      expect(stderr).toContain('/no\\u001b[2Jpe');
      expect(stderr).not.toMatch(/[\x07\x1b\x9b]/);
    }
  });
});

describe('doctor', () => {
  test('says what is here', async () => {
    const { code, stdout } = await run(['doctor']);
    expect(code).toBe(0);
    for (const word of [process.version, 'addon', 'plain: yes', 'CUDA', 'commander', 'cores', 'memory'])
      expect(stdout).toContain(word);
  });

  test('--json, with folders of models', async () => {
    const folder = golden('encoders/t5_tiny_gguf');
    const { json } = await run(['doctor', '--json', '--models-dir', folder, '--models-dir', '/nope']);
    const { ok, checks } = json() as {
      ok: boolean;
      checks: { what: string; found: string; state: string }[];
    };
    expect(ok).toBe(true);
    const found = Object.fromEntries(checks.map(({ what, ...check }) => [what, check]));
    expect(found['T5 tokens']).toEqual({ state: 'ok', found: `${folder}/spiece.model` });
    expect(found['models']).toEqual({ state: 'note', found: `${folder}, /nope (not there)` });
  });
});
