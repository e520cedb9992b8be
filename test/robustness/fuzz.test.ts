/** The fuzz run in small (npm run fuzz is the whole, under a sanitizer), and that its damage reaches what it should. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { runChain } from '../../bench/fuzz/chain.js';
import { caseOf, readTargets } from '../../bench/fuzz/damage.js';
import { Device } from '../../src/index.js';
import { useScratch } from './scratch.js';

vi.setConfig({ testTimeout: 240_000 }); // seconds on a quiet machine

const kCases = 1500;
const scratch = useScratch();

test('the same seed gives the same file, another seed another one', async () => {
  const targets = await readTargets('all');
  const files = Array.from({ length: 50 }, (_, seed) => caseOf(targets, seed).bytes);
  for (const [seed, bytes] of files.entries())
    expect(caseOf(targets, seed).bytes.equals(bytes), `seed ${seed}`).toBe(true);
  expect(new Set(files.map((bytes) => bytes.toString('base64'))).size).toBe(50);
});

test(`${kCases} damaged files through the whole chain: results or coded errors`, async () => {
  await using device = Device.open('cpu', { threads: 2 });
  const targets = await readTargets('all');
  const folders = new Map([...new Set(targets.map(({ sample }) => sample))].map((s, i) => [s, `${i}`]));
  for (const [{ files }, folder] of folders) {
    mkdirSync(join(scratch.dir, folder));
    for (const [name, bytes] of files) scratch.put(join(folder, name), bytes);
  }
  const stages = new Map<string, number>();
  const codes = new Set<string>();
  for (let seed = 1_000_000; seed < 1_000_000 + kCases; seed++) {
    const { target, how, bytes, random } = caseOf(targets, seed);
    const folder = join(scratch.dir, folders.get(target.sample)!);
    writeFileSync(join(folder, target.name), bytes);
    const verdict = await runChain(target.sample, folder, [device], random).catch((error: unknown) => {
      throw new Error(`seed ${seed}, ${target.sample.name}, ${how}`, { cause: error });
    });
    codes.add(verdict.outcome);
    stages.set(`${how} ${verdict.stage}`, (stages.get(`${how} ${verdict.stage}`) ?? 0) + 1);
    writeFileSync(join(folder, target.name), target.sample.files.get(target.name)!);
  }
  // Damage that never gets past a reader's first check would prove little.
  for (const stage of [
    'header encoded',
    'data encoded',
    'rewrite encoded',
    'rewrite refused',
    'data selected',
  ])
    expect(stages.get(stage), `${stage} of ${JSON.stringify([...stages])}`).toBeGreaterThan(kCases / 100);
  expect(codes.size, [...codes].join()).toBeGreaterThan(10);
});
