/** Paths that cannot be read, or never end: a coded error at once, for weights, folders, shards and tokenizers. */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { TextEncoder, openModel } from '../../src/index.js';
import { golden } from '../support/golden.js';
import { outcomeOf, useScratch } from './scratch.js';

const kT5 = golden('encoders/t5_tiny_containers/model.fp16.safetensors');
const scratch = useScratch();
let folder: string;
beforeEach(() => {
  folder = join(scratch.dir, 'folder');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
});

const load = (path: string) =>
  outcomeOf(async () => {
    await using _ = await TextEncoder.load(path, { threads: 1 });
  });
const tokenizerAt = (path: string) =>
  outcomeOf(async () => {
    await using encoder = await TextEncoder.load(kT5, { threads: 1, t5Tokenizer: path });
    await encoder.tokenizer();
  });

/** Reading one waits for a writer, for ever. */
const fifo = (name: string): string => {
  const path = join(folder, name);
  execFileSync('mkfifo', [path]);
  return path;
};

/** Root may read everything, so it becomes somebody else for the moment. */
function withoutPrivileges<T>(action: () => T): T {
  if (process.geteuid!() !== 0) return action();
  process.seteuid!(65534);
  try {
    return action();
  } finally {
    process.seteuid!(0);
  }
}

describe('no regular file', () => {
  test.each(['/dev/zero', '/dev/null', '/dev/stdin', '/proc/self/mem', '/proc/self/fd'])(
    '%s',
    async (path) => {
      const { code, message } = await load(path);
      expect(code, message).toMatch(/^ERR_(FILE_READ|FORMAT_UNKNOWN)$/);
      expect(message).toContain(path);
    },
  );

  test('a FIFO under every name that would be opened', async () => {
    for (const name of [
      'model.safetensors',
      'model.gguf',
      'model.safetensors.index.json',
      'model_index.json',
    ]) {
      const path = fifo(name);
      expect(await load(path), name).toMatchObject({ code: 'ERR_FILE_READ' });
      expect((await load(folder)).code, `a folder with ${name}`).toMatch(/^ERR_(FILE_READ|SHARDS)$/);
      rmSync(path);
    }
  });

  test('a FIFO among the shards', async () => {
    const shards = golden('encoders/t5_tiny_containers/sharded');
    for (const name of ['model-00001-of-00003.safetensors', 'model-00003-of-00003.safetensors'])
      copyFileSync(join(shards, name), join(folder, name));
    fifo('model-00002-of-00003.safetensors');
    expect((await load(join(folder, 'model-00001-of-00003.safetensors'))).code).toBe('ERR_FILE_READ');
    copyFileSync(join(shards, 'model.safetensors.index.json'), join(folder, 'model.safetensors.index.json'));
    expect((await load(folder)).code).toBe('ERR_FILE_READ');
  });

  test('a FIFO or an endless device as config.json or tokenizer beside the weights is passed over', async () => {
    copyFileSync(kT5, join(folder, 'model.safetensors'));
    fifo('config.json');
    symlinkSync('/dev/zero', join(folder, 'spiece.model'));
    fifo('tokenizer.json');
    expect(await load(folder)).toMatchObject({ code: 'ok' });
    const outcome = await outcomeOf(async () => {
      await using encoder = await TextEncoder.load(folder, { threads: 1 });
      await encoder.tokenizer();
    });
    expect(outcome.code).toBe('ERR_TOKENIZER_MISSING');
  });

  test('a socket', async () => {
    const path = join(folder, 'model.gguf');
    const server = createServer().listen(path);
    await new Promise((resolve) => server.once('listening', resolve));
    expect(await load(path)).toMatchObject({ code: 'ERR_FILE_READ' });
    expect((await load(folder)).code).toBe('ERR_FILE_READ');
    server.close();
  });
});

describe('links, folders and nothing', () => {
  test('a link to nothing, a loop, a link that leads to a model', async () => {
    symlinkSync(join(folder, 'gone'), join(folder, 'model.safetensors'));
    expect(await load(join(folder, 'model.safetensors'))).toMatchObject({ code: 'ERR_FILE_NOT_FOUND' });
    expect((await load(folder)).code).toMatch(/^ERR_FILE_(NOT_FOUND|READ)$/);
    symlinkSync(join(folder, 'loop'), join(folder, 'loop'));
    expect(await load(join(folder, 'loop'))).toMatchObject({ code: 'ERR_FILE_READ' });
    symlinkSync(kT5, join(folder, 'good'));
    expect(await load(join(folder, 'good'))).toMatchObject({ code: 'ok' });
  });

  test.each([
    ['an empty path', '', 'ERR_FILE_NOT_FOUND'],
    ['a NUL', 'a\0b.gguf', 'ERR_FILE_NOT_FOUND'],
    ['a lone surrogate', '\ud83d.gguf', 'ERR_FILE_NOT_FOUND'],
    ['a name that is too long', 'x'.repeat(5000), 'ERR_FILE_READ'],
    ['an address', 'https://example.org/model.gguf', 'ERR_FILE_NOT_FOUND'],
    ['a file as a folder', `${kT5}/model.gguf`, 'ERR_FILE_NOT_FOUND'],
  ])('%s', async (_, path, code) => expect(await load(path)).toMatchObject({ code }));

  test('an empty folder, a folder of folders', async () => {
    expect(await load(folder)).toMatchObject({ code: 'ERR_FILE_READ' });
    mkdirSync(join(folder, 'model.safetensors'));
    expect((await load(folder)).code).toBe('ERR_FILE_READ');
    expect((await load(join(folder, 'model.safetensors'))).code).toBe('ERR_FILE_READ');
  });

  test('a path that is no string', async () => {
    for (const path of [undefined, null, 5, {}, Buffer.from('x')])
      expect((await load(path as unknown as string)).code, String(path)).toMatch(
        /^ERR_(ARGUMENT|FILE_NOT_FOUND)$/,
      );
  });
});

describe('no permission', () => {
  const denied = { code: 'ERR_FILE_READ', message: expect.stringContaining('no permission') as string };

  test('a file', async () => {
    const path = join(folder, 'model.safetensors');
    copyFileSync(kT5, path);
    chmodSync(path, 0);
    chmodSync(folder, 0o755);
    chmodSync(scratch.dir, 0o755);
    expect(await outcomeOf(() => withoutPrivileges(() => openModel(path)))).toMatchObject(denied);
    expect(await outcomeOf(() => withoutPrivileges(() => openModel(folder)))).toMatchObject(denied);
  });

  test('a folder', async () => {
    copyFileSync(kT5, join(folder, 'model.safetensors'));
    chmodSync(folder, 0o300); // may be entered, not listed
    chmodSync(scratch.dir, 0o755);
    expect(await outcomeOf(() => withoutPrivileges(() => openModel(folder)))).toMatchObject(denied);
    chmodSync(folder, 0o600);
    const inside = join(folder, 'model.safetensors');
    expect(await outcomeOf(() => withoutPrivileges(() => openModel(inside)))).toMatchObject(denied);
    chmodSync(folder, 0o700);
  });
});

describe('the tokenizer given by option', () => {
  test.each<[string, () => string, RegExp]>([
    ['nothing', () => join(folder, 'none'), /^ERR_FILE_NOT_FOUND$/],
    ['an empty path', () => '', /^ERR_FILE_NOT_FOUND$/],
    ['an empty folder', () => folder, /^ERR_FILE_NOT_FOUND$/],
    ['an empty file', () => scratch.put('empty', ''), /^ERR_TOKENIZER_FORMAT$/],
    ['an endless device', () => '/dev/zero', /^ERR_FILE_(NOT_FOUND|READ)$/],
    ['a FIFO', () => fifo('spiece.model'), /^ERR_FILE_(NOT_FOUND|READ)$/],
    ['the weights themselves', () => kT5, /^ERR_TOKENIZER_FORMAT$/],
    [
      'an image',
      () => scratch.put('x.png', Buffer.from('89504e470d0a1a0a', 'hex')),
      /^ERR_TOKENIZER_FORMAT$/,
    ],
  ])('%s', async (_, path, code) => {
    const outcome = await tokenizerAt(path());
    expect(outcome.code, outcome.message).toMatch(code);
  });
});
