/** The protocol between the ops bench and PyTorch: with a program that only speaks it, then with PyTorch where it is. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { isWrong, type Workbench } from '../../bench/ops_bench.js';
import type { LinearCase, OpsCase } from '../../bench/ops_cases.js';
import { expectedLinear } from '../../bench/ops_linear_reference.js';
import { linearPeers } from '../../bench/ops_linear_peers.js';
import { runOnGpu } from '../../bench/ops_run.js';
import { RandomWeights } from '../../bench/ops_weights.js';
import { openBlasPeers } from '../../bench/blas_peer/peers.js';
import { StepPeer } from '../../bench/step_peer.js';
import { torchCommand, TorchOps, type TorchRequest } from '../../bench/torch_ops.js';
import type { DType } from '../../src/formats/dtype.js';
import { Device } from '../../src/runtime/device.js';
import { TARGETS } from '../support/devices.js';

/** Answers with the numbers of the file `x`, so that what travels is seen; wrong in the way that is asked for. */
const speaker = `
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
const say = (answer) => console.log(JSON.stringify(answer));
const fault = process.argv[2];
const device = process.argv[process.argv.indexOf('--device') + 1];
say({ event: 'ready', versions: { torch: '9.9' }, device, cache: 1 });
let x = new Float32Array();
for await (const line of createInterface({ input: process.stdin })) {
  const [event] = line.split(' ', 1);
  if (event === 'quit') break;
  const request = JSON.parse(line.slice(event.length).trim() || 'null');
  if (event === 'prepare') {
    if (request.files.x) x = new Float32Array(new Uint8Array(readFileSync(request.files.x)).buffer);
    say({ event, sides: [{ name: 'theirs', unit: 4 }, { name: 'other', missing: 'too old' }] });
  } else if (event === 'sample') {
    const values = request.rows.flatMap((row) => request.cols.map((col) => x[row * 3 + col]));
    say({ event, values, non_finite: fault === 'nan' ? 1 : 0 });
  } else if (event === 'run') say({ event, seconds: fault === 'idle' ? 0 : request.reps * 0.001 });
  else if (event === 'ceilings') say({ event, copyGbytes: 1, matmulTflops: { fp32: 2 } });
  else if (event === 'memory') say({ event, rss_peak: 3, device_peak: 4 });
}`;

let directory: string;
let command: readonly string[];
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'kotoba-torch-test-'));
  const script = join(directory, 'speaker.mjs');
  writeFileSync(script, speaker);
  command = [execPath, script];
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const request: TorchRequest = { op: 'linear', m: 2, n: 3, k: 1, type: 'F32', copies: 4, precision: 'fp32' };
const x = new Float32Array([1, 2, 3, 4, 5, 6]);
const expected = { places: { rows: [1], cols: [0, 2] }, values: [4, 6], bound: 1e-6 };

describe('the protocol', () => {
  test('files travel, sides are checked, timed by themselves, or missing with a reason', async () => {
    await using torch = await TorchOps.start([...command, 'fine'], 'cuda:1');
    expect(torch.ready).toMatchObject({ device: 'cuda:1', cache: 1, versions: { torch: '9.9' } });
    const { sides, missing } = await torch.prepare(request, { x, w: undefined }, expected);
    expect(missing).toEqual([{ side: 'other', why: 'too old' }]);
    expect(sides).toHaveLength(1);
    expect(sides[0]!.side).toMatchObject({ name: 'theirs', unit: 4 });
    expect(await sides[0]!.check()).toEqual({ side: 'theirs', error: 0, bound: 1e-6 });
    expect(await sides[0]!.side.run(0, 8)).toBeCloseTo(0.008);
    expect(await torch.ceilings(0.1)).toMatchObject({ copyGbytes: 1, matmulTflops: { fp32: 2 } });
    expect(await torch.memory()).toMatchObject({ rss_peak: 3, device_peak: 4 });
  });

  test('a wrong result, a NaN anywhere, and no time are seen', async () => {
    await using wrong = await TorchOps.start([...command, 'fine'], 'cpu');
    const off = await wrong.prepare(request, { x }, { ...expected, values: [4, 7] });
    expect(isWrong(await off.sides[0]!.check())).toBe(true);
    await using nan = await TorchOps.start([...command, 'nan'], 'cpu');
    const lost = await nan.prepare(request, { x }, expected);
    expect(isWrong(await lost.sides[0]!.check())).toBe(true);
    await using idle = await TorchOps.start([...command, 'idle'], 'cpu');
    const { sides } = await idle.prepare(request, { x }, expected);
    await expect(async () => await sides[0]!.side.run(0, 1)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });

  test('a simulated device has its peer on the CPU', async () => {
    await using torch = await TorchOps.start([...command, 'fine'], 'cuda-sim');
    expect(torch.ready.device).toBe('cpu');
  });
});

/** The simulator under a real card's name: the way that a GPU is timed, without a figure that anybody keeps. */
test.skipIf(!TARGETS.includes('cuda-sim'))(
  'cuda-sim: recorded, replayed and timed beside a peer',
  async () => {
    await using device = Device.open('cuda-sim');
    await using torch = await TorchOps.start([...command, 'fine'], 'cuda');
    const peers = openBlasPeers({ instructions: device.info.instructions, forced: false, busy: false });
    const cases: OpsCase[] = [
      { op: 'rms_norm', rows: 4, cols: 64, precision: 'fp16' },
      { op: 'decode', type: 'Q4_K', rows: 2, cols: 256 },
      // What the speaker says of a linear is not its product.
      { op: 'linear', m: 2, n: 3, k: 256, type: 'F16', precision: 'fp16' },
    ];
    const timing = { seconds: 0.01, end: Infinity, notRun: [] };
    const results = await runOnGpu({ device, name: 'cuda', cases, peers, torch }, timing);
    const [norm, decode, linear] = results;
    for (const timed of [norm, decode]) {
      expect(timed!.times.map((side) => side.name)).toEqual(['kotoba', 'theirs']);
      expect(timed!.times[1]!.wall.median).toBeCloseTo(1000);
      expect(timed!.times[1]!.reps % 4).toBe(0);
      expect(timed!.gbytes).toBeGreaterThan(0);
      expect(timed!.missing).toEqual([{ side: 'other', why: 'too old' }]);
    }
    expect(linear!.times).toEqual([]);
    expect(linear!.checks.map(isWrong)).toEqual([false, true]);
  },
);

const hasTorch = (() => {
  try {
    execFileSync('python3', ['-c', 'import torch, numpy'], { stdio: 'ignore' });
    return true;
  } catch {
    console.log('torch_ops.test: python3 has no PyTorch here, only the protocol was tested');
    return false;
  }
})();

describe.skipIf(!hasTorch)('PyTorch', () => {
  const types: DType[] = ['Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', 'Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K'];
  types.push('IQ4_NL', 'IQ4_XS', 'F16', 'BF16');

  test('every type that it expands by itself gives the product of ours', async () => {
    await using plain = Device.open('cpu', { instructions: 'plain' });
    await using torch = await TorchOps.start(torchCommand('ops.py'), 'cpu');
    const random = new RandomWeights();
    const bench = { torch, plain, random, cache: 1 } as unknown as Workbench;
    for (const type of types) {
      const c: LinearCase = { op: 'linear', m: 3, n: 8, k: 512, type, precision: 'fp32' };
      const stored = random.stored(type, c.n * c.k);
      const values = random.normal(c.m * c.k);
      const places = { rows: [0, 1, 2], cols: [0, 3, 7] };
      using weights = plain.empty(type, [c.n, c.k]);
      plain.native.upload(weights.native, stored);
      const all = await decoded(plain, weights);
      const w = Float32Array.from(
        places.cols.flatMap((col) => [...all.subarray(col * c.k, (col + 1) * c.k)]),
      );
      const exact = expectedLinear(c, { x: values, w }, places);
      const expected = { places, values: exact.values, bound: exact.peerBound };
      const { sides, missing } = await linearPeers(bench, c, { x: values, stored, expected });
      expect(missing, type).toEqual([]);
      expect(sides.length, type).toBe(type === 'F16' || type === 'BF16' ? 1 : 2);
      for (const side of sides)
        expect(await side.check(), type).toSatisfy((check) => !isWrong(check as never));
    }
  }, 120_000);

  test('the plain Flux runs, and what this PyTorch cannot compile says so', async () => {
    const small = ['--depth', '1', '--single', '1', '--hidden', '256', '--heads', '2'];
    const peers = await StepPeer.startAll('cpu', { textTokens: 3, imageTokens: 4, steps: 2 }, small);
    for (const peer of peers) {
      await peer.run();
      const result = peer.result(new Map([['bf16', 1]]));
      if (result.secondsPerStep) expect(result.timesPeer!['bf16']).toBe(result.secondsPerStep.median);
      else expect(result.description).not.toBe('');
      await peer.close();
    }
    expect(peers[0]!.result(new Map()).secondsPerStep).toMatchObject({ count: 1 });
  }, 120_000);
});

async function decoded(device: Device, weights: ReturnType<Device['empty']>): Promise<Float32Array> {
  const { native } = await import('../../bindings/native.js');
  using out = device.empty('F32', weights.shape);
  native.decode(device.native, out.native, weights.native);
  return await out.read();
}
