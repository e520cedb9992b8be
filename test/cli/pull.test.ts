/** `kotoba pull` end to end against a local hub; then the name works wherever a file does. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { golden } from '../support/golden.js';
import { HubServer } from '../hub/hub_server.js';
import { run, temporaryFolder } from './run.js';

const dir = temporaryFolder();
const t5 = readFileSync(golden('encoders/t5_tiny_gguf/model.f32.gguf'));
const FUSED = 'easygoing0114/flan-t5-xxl-fused';
const Q4 = 'flan_t5_xxl_TE-only_Q4_K_M.gguf';
let server: HubServer;
let env: Record<string, string>;
beforeAll(async () => {
  server = await HubServer.open();
  server.put(FUSED, Q4, t5);
  env = { HF_ENDPOINT: server.endpoint, HF_HOME: dir.join('home') };
});
afterAll(() => server[Symbol.asyncDispose]());
afterEach(() => vi.unstubAllEnvs());

interface Entry {
  name: string;
  path: string | null;
  licence: string;
}

describe('kotoba pull', () => {
  test('a name of the catalogue, and then that name as a file', async () => {
    vi.stubEnv('HF_HOME', env['HF_HOME']!);
    vi.stubEnv('HF_HUB_CACHE', '');
    const before = await run(['inspect', 'flan-t5-xxl:q4_k']);
    expect(before).toMatchObject({ code: 1 });
    expect(before.stderr).toMatch(/ERR_FILE_NOT_FOUND.*kotoba pull flan-t5-xxl:q4_k/);

    const { code, stdout, stderr } = await run(['pull', 'flan-t5-xxl:q4_k'], { env });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain(Q4);
    expect(stdout).toContain('licence: Apache-2.0');

    const out = dir.join('out.safetensors');
    const encoded = await run(['encode', 'a sparrow', '--t5', 'flan-t5-xxl:q4_k', '-o', out, '--json']);
    expect(encoded).toMatchObject({ code: 0 });
    expect(existsSync(out)).toBe(true);
    expect((await run(['inspect', `${FUSED}:${Q4}`])).code).toBe(0);
  });

  test('shards and their index: a pattern takes them all, and the index opens them beside it', async () => {
    vi.stubEnv('HF_HOME', env['HF_HOME']!);
    const folder = golden('encoders/t5_tiny_containers/sharded');
    for (const file of readdirSync(folder)) {
      const isLfs = !file.endsWith('.json');
      server.put('some/shards', file, readFileSync(join(folder, file)), isLfs);
    }
    server.put('some/shards', 'spiece.model', readFileSync(golden('encoders/t5_tiny_gguf/spiece.model')));
    expect(await run(['pull', 'some/shards:*'], { env })).toMatchObject({ code: 0 });
    const out = dir.join('shards.safetensors');
    const name = 'some/shards:model.safetensors.index.json';
    expect(await run(['encode', 'a sparrow', '--t5', name, '-o', out])).toMatchObject({ code: 0 });
    expect(existsSync(out), 'with the vocabulary beside them').toBe(true);
  });

  test('--json: where each file is, how it came', async () => {
    const { code, json } = await run(['pull', 'flan-t5-xxl:q4_k', '--json'], { env });
    expect(code).toBe(0);
    const [first] = json() as { path: string; files: { from: string; bytes: number }[] }[];
    expect(first!.files).toMatchObject([{ from: 'cache', bytes: t5.length, file: Q4 }]);
    expect(readFileSync(first!.path).equals(t5)).toBe(true);
  });

  test('--dir, a progress bar on a terminal, Ctrl-C and going on', async () => {
    const folder = dir.join('models');
    const args = ['pull', `${FUSED}:${Q4}`, '--dir', folder];
    server.faults.push({ stallAfter: 200_000 });
    const stopped = await run(args, { env, terminal: 120, interruptAt: /━/ });
    expect(stopped.code).toBe(130);
    expect(stopped.stderr).toMatch(/ERR_CANCELLED.*goes on from there/);
    const [part] = readdirSync(folder);
    expect(part).toMatch(/^\..*\.incomplete$/);
    expect(await run(args, { env })).toMatchObject({ code: 0 });
    expect(readdirSync(folder)).toEqual([Q4]);
    expect(server.gets.at(-1)!.range).toMatch(/^bytes=[1-9]/);
    expect(readFileSync(join(folder, Q4)).equals(t5)).toBe(true);
  });

  test('--list: everything, with what is there marked', async () => {
    const { code, stdout } = await run(['pull', '--list'], { env });
    expect(code).toBe(0);
    expect(stdout).toMatch(/flan-t5-xxl:q4_k +≈ 3\.66 GB +here/);
    expect(stdout).toMatch(
      /flux-dev:bf16 +23\.8 GB +FLUX\.1 \[dev\] Non-Commercial License +licence to accept/,
    );
    const list = (await run(['pull', '--list', '--json'], { env })).json() as Entry[];
    expect(list.filter(({ path }) => path !== null).map(({ name }) => name)).toEqual(['flan-t5-xxl:q4_k']);
  });

  test('a gated file says what to do; a wrong name among several is told before anything is fetched', async () => {
    server.refusals.set('black-forest-labs/FLUX.1-dev', {
      status: 401,
      headers: { 'x-error-code': 'GatedRepo' },
    });
    const gated = await run(['pull', 'flux-dev'], { env });
    expect(gated.code).toBe(1);
    expect(gated.stderr).toMatch(/ERR_HUB.*accept.*HF_TOKEN/);
    const asked = server.asked.length;
    expect((await run(['pull', 'flan-t5-xxl:q4_k', 'no-such-name'], { env })).code).toBe(2);
    expect((await run(['pull'], { env })).code).toBe(2);
    expect(server.asked.length).toBe(asked);
  });
});
