/** Downloads against a local hub: whole, resumed, refused, broken, damaged, offline; what the cache then holds. */
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { hubAccess, pullFile, type HubAccess } from '../../src/hub/index.js';
import { COMMIT, HubServer } from './hub_server.js';

const REPO = 'some/encoders';
const FILE = 'deep/model.safetensors';
const BIG = randomBytes(3_000_000);

let server: HubServer;
let home: string;
let access: HubAccess;
beforeEach(async () => {
  server = await HubServer.open();
  home = mkdtempSync(join(tmpdir(), 'kotoba-hub-'));
  access = { ...hubAccess({ HF_ENDPOINT: `${server.endpoint}/`, HF_HOME: home }), retryMilliseconds: 1 };
  server.put(REPO, FILE, BIG);
  server.put(REPO, 'config.json', Buffer.from('{"d_model": 4096}'), false);
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

const repository = () => join(home, 'hub', 'models--some--encoders');
const blobs = (): string[] => readdirSync(join(repository(), 'blobs'));
const pull = (options = {}) => pullFile(access, REPO, FILE, options);
const sha256 = createHash('sha256').update(BIG).digest('hex');

describe('the cache', () => {
  test('is laid out as other programs expect it, with the bytes once', async () => {
    const seen: number[] = [];
    const { path, ...rest } = await pull({ onProgress: (done: number) => seen.push(done) });
    expect(rest).toEqual({ bytes: BIG.length, from: 'hub', commit: COMMIT });
    expect(path).toBe(join(repository(), 'snapshots', COMMIT, FILE));
    expect(readFileSync(path).equals(BIG)).toBe(true);
    expect(lstatSync(path).isSymbolicLink()).toBe(true);
    expect(blobs()).toEqual([sha256]);
    expect(readFileSync(join(repository(), 'refs', 'main'), 'utf8')).toBe(COMMIT);
    expect(seen.at(-1)).toBe(BIG.length);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  test('what is there is not fetched again', async () => {
    await pull();
    expect((await pull()).from).toBe('cache');
    expect(server.gets.filter((one) => one.server === 'cdn')).toHaveLength(1);
    const snapshot = join(repository(), 'snapshots', COMMIT, FILE);
    rmSync(snapshot);
    expect(await pull(), 'the bytes are, their link is not').toMatchObject({ path: snapshot, from: 'cache' });
    expect(server.gets.filter((one) => one.server === 'cdn')).toHaveLength(1);
  });

  test('a small file, which Git keeps, by its SHA-1', async () => {
    const { path } = await pullFile(access, REPO, 'config.json');
    expect(readFileSync(path, 'utf8')).toBe('{"d_model": 4096}');
    server.faults.push({ damaged: true });
    rmSync(join(repository()), { recursive: true });
    await expect(pullFile(access, REPO, 'config.json')).rejects.toMatchObject({ code: 'ERR_HUB' });
  });

  test('an empty file', async () => {
    server.put(REPO, 'empty.json', Buffer.alloc(0), false);
    const { path } = await pullFile(access, REPO, 'empty.json');
    expect(statSync(path).size).toBe(0);
  });
});

describe('interrupted', () => {
  const incomplete = () => join(repository(), 'blobs', `${sha256}.incomplete`);

  test('a broken connection goes on where it broke, by itself', async () => {
    server.faults.push({ breakAfter: 1_000_000 }, { breakAfter: 500_000 });
    expect(readFileSync((await pull()).path).equals(BIG)).toBe(true);
    const ranges = server.gets.filter((one) => one.server === 'cdn').map(({ range }) => range);
    expect(ranges[0]).toBeUndefined();
    expect(ranges.slice(1).every((range) => /^bytes=[1-9]\d*-2999999$/.test(range!))).toBe(true);
    expect(blobs()).toEqual([sha256]);
  });

  test('Ctrl-C leaves a part under another name, and the next pull goes on from it', async () => {
    server.faults.push({ stallAfter: 1_200_000 });
    const abort = new AbortController();
    const onProgress = (done: number) => done >= 1_000_000 && abort.abort();
    await expect(pull({ signal: abort.signal, onProgress })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    expect(blobs()).toEqual([`${sha256}.incomplete`]);
    expect(existsSync(join(repository(), 'snapshots'))).toBe(false);
    const kept = statSync(incomplete()).size;
    expect(kept).toBeGreaterThan(900_000);
    expect(readFileSync((await pull()).path).equals(BIG)).toBe(true);
    expect(server.gets.at(-1)!.range).toBe(`bytes=${kept}-2999999`);
  });

  test('a server that ignores ranges sends all of it again', async () => {
    server.faults.push({ breakAfter: 1_000_000 }, { ignoresRange: true });
    expect(readFileSync((await pull()).path).equals(BIG)).toBe(true);
  });

  test('what an earlier program left is checked with the rest: damaged bytes do not pass, nor stay', async () => {
    server.faults.push({ breakAfter: 1_000_000 }, ...Array.from({ length: 6 }, () => ({ status: 503 })));
    await expect(pull()).rejects.toMatchObject({ code: 'ERR_HUB' });
    const part = readFileSync(incomplete());
    part[10]! ^= 1;
    writeFileSync(incomplete(), part);
    server.faults.length = 0;
    await expect(pull()).rejects.toMatchObject({
      code: 'ERR_HUB',
      message: expect.stringContaining('checksum') as string,
    });
    expect(blobs()).toEqual([]);
    expect(readFileSync((await pull()).path).equals(BIG)).toBe(true);
  });

  test('a lock that a dead process left does not hold anybody up', async () => {
    await mkdir(join(repository(), 'blobs'), { recursive: true });
    const dead = spawnSync('true').pid;
    writeFileSync(`${incomplete()}.lock`, `${dead} ${hostname()}`);
    expect((await pull()).from).toBe('hub');
    expect(blobs()).toEqual([sha256]);
  });

  test('a cache that cannot be written', async () => {
    writeFileSync(join(home, 'hub'), 'a file');
    await expect(pull()).rejects.toMatchObject({ code: 'ERR_FILE_WRITE' });
  });

  test('two pulls at once', async () => {
    const both = await Promise.all([pull(), pull()]);
    for (const { path } of both) expect(readFileSync(path).equals(BIG)).toBe(true);
    expect(blobs()).toEqual([sha256]);
  });
});

describe('refused', () => {
  const failing = async (status: number, code?: string) => {
    server.refusals.set(REPO, { status, ...(code !== undefined && { headers: { 'x-error-code': code } }) });
    return await pull().then(
      () => expect.unreachable(),
      (error: { code: string; message: string }) => error,
    );
  };

  test.each([
    [401, 'GatedRepo', /licence must be accepted.*HF_TOKEN/],
    [403, undefined, /licence must be accepted/],
    [401, 'RepoNotFound', /no such repository, or it is private/],
    [404, 'EntryNotFound', /no such file/],
    [404, 'RevisionNotFound', /no such revision/],
    [429, undefined, /too many requests/],
    [500, undefined, /try again later/],
    [418, undefined, /HF_ENDPOINT/],
  ])('%i %s says what to do', async (status, code, text) => {
    const error = await failing(status, code);
    expect(error.code).toBe('ERR_HUB');
    expect(error.message).toMatch(text);
    expect(error.message).toContain(`${REPO}:${FILE}`);
    expect(existsSync(repository()), 'nothing is left').toBe(false);
  });

  test('a token is sent to the Hub, and to nobody else', async () => {
    server.refusals.set(REPO, { status: 401, headers: { 'x-error-code': 'GatedRepo' } });
    access = { ...access, token: 'hf_secret' };
    await pull();
    const sent = server.asked.map(({ server: who, authorization }) => [who, authorization]);
    expect(sent.filter(([who]) => who === 'hub').every(([, token]) => token === 'Bearer hf_secret')).toBe(
      true,
    );
    expect(sent.filter(([who]) => who === 'cdn')).toEqual([['cdn', undefined]]);
  });

  test('the token comes from the environment, else from its file', () => {
    expect(hubAccess({ HF_HOME: home }).token).toBeUndefined();
    writeFileSync(join(home, 'token'), 'hf_file\n');
    expect(hubAccess({ HF_HOME: home }).token).toBe('hf_file');
    expect(hubAccess({ HF_HOME: home, HF_TOKEN: 'hf_env' }).token).toBe('hf_env');
  });

  test('a server that has trouble for a moment is asked again, as late as it says', async () => {
    server.faults.push({ status: 429, headers: { 'retry-after': '0' } }, { status: 502 });
    expect((await pull()).from).toBe('hub');
    expect(server.gets.filter((one) => one.server === 'cdn')).toHaveLength(3);
  });

  test('damaged bytes never get the name', async () => {
    server.faults.push({ damaged: true });
    await expect(pull()).rejects.toMatchObject({ code: 'ERR_HUB' });
    expect(blobs()).toEqual([]);
  });

  test('answers that tell no commit, and ones that lead out of the cache', async () => {
    server.refusals.set(REPO, { status: 200, headers: { etag: '"../../x"', 'x-repo-commit': '../..' } });
    await expect(pull()).rejects.toThrow(/expected commit, checksum and size/);
    for (const [repo, file] of [
      ['../etc', 'x'],
      ['a/..', 'x'],
      ['a/b', '../x'],
      ['a/b', '/etc/x'],
      ['a/b', 'x//y'],
    ] as const)
      await expect(pullFile(access, repo, file)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });
});

describe('without a network', () => {
  test('what is cached is used, what is not is an error', async () => {
    await pull();
    const away = { ...access, endpoint: 'http://127.0.0.1:9' };
    expect(await pullFile(away, REPO, FILE)).toMatchObject({ from: 'offline', bytes: BIG.length });
    await expect(pullFile(away, REPO, 'other.gguf')).rejects.toThrow(/cannot be reached.*HF_ENDPOINT/);
    const silent = { ...access, isOffline: true };
    const before = server.asked.length;
    expect((await pullFile(silent, REPO, FILE)).from).toBe('offline');
    await expect(pullFile(silent, REPO, 'other.gguf')).rejects.toThrow(/HF_HUB_OFFLINE/);
    expect(server.asked.length).toBe(before);
  });
});

describe('--dir', () => {
  test('takes the file under its own name, resumes, and never overwrites another', async () => {
    const dir = join(home, 'models');
    server.faults.push({ breakAfter: 100_000 });
    const { path } = await pull({ dir });
    expect(path).toBe(join(dir, 'model.safetensors'));
    expect(readdirSync(dir)).toEqual(['model.safetensors']);
    expect(existsSync(repository())).toBe(false);
    expect((await pull({ dir })).from).toBe('cache');
    writeFileSync(path, 'mine');
    await expect(pull({ dir })).rejects.toMatchObject({ code: 'ERR_FILE_EXISTS' });
    expect(readFileSync(path, 'utf8')).toBe('mine');
  });
});
