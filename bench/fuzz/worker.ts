/**
 * One batch of the fuzz run, in a process of its own: node worker.js FIRST_SEED COUNT SCRATCH_DIR SAMPLES
 * Writes the seed it is at to SCRATCH_DIR/seed, so that a crash or a hang names its case, one JSON line per finding,
 * and one with the figures at the end.
 */
import { mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { KotobaError } from '../../src/errors.js';
import { Device, INSTRUCTION_SETS } from '../../src/runtime/device.js';
import { runChain } from './chain.js';
import { caseOf, readTargets, type Target } from './damage.js';
import type { Sample } from './sample.js';
import type { SampleSet } from './samples.js';

/** CPU time of one case, ms. */
const kSlow = 5000;

const [first, count] = process.argv.slice(2, 4).map(Number) as [number, number];
const scratch = process.argv[4]!;
const samples = process.argv[5] as SampleSet;

export interface BatchFigures {
  readonly cases: number;
  /** `stage outcome` → how often. */
  readonly outcomes: Record<string, number>;
  /** CPU ms of the slowest case. */
  readonly slowest: number;
  /** Peak resident bytes. */
  readonly peak: number;
  readonly instructions: readonly string[];
}

export interface Finding {
  readonly seed: number;
  readonly what: string;
}

/** Every instruction set of this CPU: each has kernels of its own. */
function openDevices(): Device[] {
  return INSTRUCTION_SETS.flatMap((instructions) => {
    try {
      return [Device.open('cpu', { instructions, threads: 2 })];
    } catch (error) {
      if (error instanceof KotobaError) return [];
      throw error;
    }
  });
}

/** A folder for each sample, with its whole files. */
function writeSamples(targets: readonly Target[]): Map<Sample, string> {
  const folders = new Map(
    [...new Set(targets.map(({ sample }) => sample))].map((s, i) => [s, join(scratch, `${i}`)]),
  );
  for (const [{ files }, folder] of folders) {
    mkdirSync(folder);
    for (const [name, bytes] of files) writeFileSync(join(folder, name), bytes);
  }
  return folders;
}

const targets = await readTargets(samples);
const folders = writeSamples(targets);
const devices = openDevices();
const outcomes: Record<string, number> = {};
let slowest = 0;
const seedFile = openSync(join(scratch, 'seed'), 'w');

for (let seed = first; seed < first + count; seed++) {
  writeSync(seedFile, String(seed).padEnd(16), 0);
  const { target, how, bytes, random } = caseOf(targets, seed);
  const folder = folders.get(target.sample)!;
  const path = join(folder, target.name);
  writeFileSync(path, bytes);
  const started = process.cpuUsage();
  try {
    const { stage, outcome } = await runChain(target.sample, folder, devices, random);
    const key = `${how} ${stage} ${outcome}`;
    outcomes[key] = (outcomes[key] ?? 0) + 1;
  } catch (error) {
    report(seed, `${target.sample.name} ${how}: ${(error as Error).stack}`);
  }
  const { user, system } = process.cpuUsage(started);
  const spent = (user + system) / 1000;
  slowest = Math.max(slowest, spent);
  if (spent > kSlow) report(seed, `${target.sample.name} ${how}: took ${spent} ms`);
  writeFileSync(path, target.sample.files.get(target.name)!);
}

function report(seed: number, what: string): void {
  console.log(JSON.stringify({ finding: { seed, what } satisfies Finding }));
}

for (const device of devices) device.close();
const figures: BatchFigures = {
  cases: count,
  outcomes,
  slowest,
  peak: process.resourceUsage().maxRSS * 1024,
  instructions: devices.map(({ info }) => info.instructions),
};
console.log(JSON.stringify({ figures }));
