/** --device: what is taken, what is said, and when; with builds in which a GPU library is missing, broken or works. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { addonPath } from '../../src/package_root.js';
import { hasNvidiaDriver } from '../../src/runtime/gpu_refusal.js';
import { golden } from '../support/golden.js';
import { writeRandomClip } from '../support/random_clip.js';
import { run, temporaryFolder } from './run.js';

const here = dirname(fileURLToPath(import.meta.url));
const tsx = resolve(here, '../../node_modules/tsx/dist/esm/index.mjs');
const t5 = golden('encoders/t5_tiny_gguf/model.f32.gguf');
const dir = temporaryFolder();

/** Runs a command on another build: the addon beside another GPU library, or none. */
function kotoba(build: string, args: readonly string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', tsx, join(here, 'kotoba_process.ts'), ...args],
    {
      encoding: 'utf8',
      env: { ...process.env, KOTOBA_ADDON: join(build, 'kotoba.node'), KOTOBA_DEVICE: '', ...env },
    },
  );
  return { code: status, stdout, stderr };
}

function makeBuild(name: string): string {
  const folder = dir.join(name);
  mkdirSync(folder);
  copyFileSync(addonPath(), join(folder, 'kotoba.node'));
  return folder;
}

const encode = (name: string): string[] => ['encode', 'a sparrow', '--t5', t5, '-o', dir.join(`${name}.npy`)];

describe('a build without a GPU library', () => {
  let build: string;
  beforeAll(() => {
    build = makeBuild('plain');
  });

  test.skipIf(hasNvidiaDriver())('takes the CPU without a word where there is no GPU either', () => {
    const { code, stdout, stderr } = kotoba(build, encode('plain'));
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/ran on +cpu \(/);
  });

  test('says how to get one when it is asked for', () => {
    const { code, stderr } = kotoba(build, [...encode('asked'), '--device', 'cuda']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^kotoba: ERR_DEVICE: .*KOTOBA_CUDA=ON.*use the device cpu\n$/);
    expect(existsSync(dir.join('asked.npy'))).toBe(false);
  });

  test('KOTOBA_DEVICE is what is taken where no option is given; an option outranks it', () => {
    expect(kotoba(build, encode('variable'), { KOTOBA_DEVICE: 'cuda' }).code).toBe(1);
    expect(kotoba(build, [...encode('option'), '--device', 'cpu'], { KOTOBA_DEVICE: 'cuda' }).code).toBe(0);
  });
});

describe('a build whose GPU library cannot be loaded', () => {
  let build: string;
  beforeAll(() => {
    build = makeBuild('broken');
    writeFileSync(join(build, 'kotoba_cuda.so'), 'no library');
  });

  test('takes the CPU and says why, on one line of stderr', () => {
    const { code, stdout, stderr } = kotoba(build, [...encode('broken'), '--json']);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^kotoba: note: runs on the CPU: device: cannot load .*kotoba_cuda\.so: .*\n$/);
    expect(JSON.parse(stdout)).toMatchObject({ encoders: [{ device: 'cpu', precision: 'fp32' }] });
  });

  test('says nothing where the CPU was asked for', () => {
    expect(kotoba(build, [...encode('cpu'), '--device', 'cpu'])).toMatchObject({ code: 0, stderr: '' });
  });

  test('fails where the GPU was asked for', () => {
    const { code, stderr } = kotoba(build, [...encode('gpu'), '--device', 'cuda:1']);
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/ERR_DEVICE/) as string,
    });
  });

  test('doctor tells of it', () => {
    const { code, stdout } = kotoba(build, ['doctor', '--json']);
    const { checks } = JSON.parse(stdout) as { checks: { what: string; state: string; found: string }[] };
    const check = (what: string) => checks.find((one) => one.what === what)!;
    expect(code).toBe(0);
    expect(check('cuda build').found).toMatch(/kotoba_cuda\.so, 10 bytes, built/);
    expect(check('gpu')).toMatchObject({
      state: 'note',
      found: expect.stringMatching(/cannot load/) as string,
    });
    expect(check('device')).toMatchObject({
      state: 'note',
      found: expect.stringMatching(/^auto takes cpu \(.*\), which runs fp32, int8: .*cannot load/) as string,
    });
  });
});

const simulator = join(dirname(addonPath()), 'kotoba_cuda_sim.so');
describe.runIf(existsSync(simulator))('a build whose GPU works (a simulated one)', () => {
  let build: string;
  beforeAll(() => {
    build = makeBuild('works');
    symlinkSync(simulator, join(build, 'kotoba_cuda.so'));
  });

  test('takes it, at the precision of what is stored', () => {
    const { code, stdout, stderr } = kotoba(build, [...encode('works'), '--json']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({ encoders: [{ device: 'cuda-sim', precision: 'fp32' }] });
  });

  test('at the precision that is asked for, each encoder its own', async () => {
    const clip = await writeRandomClip(dir.join('clip.safetensors'));
    const args = ['encode', 'a sparrow', '--clip-l', clip, '--t5', t5, '-o', dir.join('each.safetensors')];
    const { stdout } = kotoba(build, [...args, '--precision', 'fp16', '--precision', 't5=bf16', '--json']);
    expect(JSON.parse(stdout)).toMatchObject({ encoders: [{ precision: 'fp16' }, { precision: 'bf16' }] });
  });

  test('refuses int8, with the choices', () => {
    const { code, stderr } = kotoba(build, [...encode('int8'), '--precision', 'int8']);
    expect(code).toBe(2);
    expect(stderr).toMatch(/ERR_ARGUMENT: precision: expected auto, fp32, fp16, bf16 on a GPU, got "int8"/);
  });

  test('--vram is a budget: what does not fit is an error with the sizes', () => {
    const { code, stderr } = kotoba(build, [...encode('vram'), '--device', 'cuda', '--vram', '0.00001']);
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/ERR_OUT_OF_MEMORY/) as string,
    });
  });

  test('doctor lists the GPUs, what each would give, and what is taken', () => {
    const { stdout } = kotoba(build, ['doctor', '--json', '--vram', '1']);
    const { checks } = JSON.parse(stdout) as { checks: { what: string; found: string }[] };
    const found = (what: string) => checks.filter((one) => one.what === what).map((one) => one.found);
    expect(found('gpu').length).toBeGreaterThan(0);
    expect(found('gpu')[0]).toMatch(
      /^cuda-sim: .*, sm_90, \d+ multiprocessors, .* would be taken \(--vram\)/,
    );
    expect(found('device')).toEqual([
      expect.stringMatching(/^auto takes cuda-sim \(.*\), which runs fp32, fp16, bf16/),
    ]);
  });
});

describe('wrong names and numbers', () => {
  test.each([
    [['--device', 'gpu'], 1, /ERR_DEVICE: --device gpu: expected auto, cpu, cuda or cuda:N/],
    [['--device', 'cuda:x'], 1, /expected auto, cpu, cuda or cuda:N/],
    [['--vram', '0'], 2, /expected GiB, for example 7\.5, got "0"/],
    [['--vram', 'all'], 2, /got "all"/],
    [['--precision', 'fp16'], 2, /expected auto, fp32, int8 on the CPU, got "fp16"/],
  ] as const)('%j', async (args, code, message) => {
    const result = await run([...encode('wrong'), ...args]);
    expect(result.code).toBe(code);
    expect(result.stderr).toMatch(message);
  });
});
