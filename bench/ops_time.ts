/**
 * Interleaved timing: the sides of a case take turns A B … B A in one process, each sample a run of repetitions
 * long enough that the queue's round trip vanishes, both in wall time and in CPU time of the whole process.
 */
import { cpuUsage } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { summarize, type Summary } from './stats.js';

export interface Side {
  readonly name: string;
  /** Does the work `reps` times; number i takes input copy `first + i`. Resolves when all of it is done. */
  run(first: number, reps: number): Promise<void> | void;
}

export interface SideTimes {
  readonly name: string;
  /** Of one repetition, µs. */
  readonly wall: Summary;
  readonly cpu: Summary;
  /** Repetitions in a sample. */
  readonly reps: number;
  /** This side's time / the first side's, from round to round: above 1 the first side is faster. */
  readonly wallRatio: Summary;
  readonly cpuRatio: Summary;
}

export interface TimingOptions {
  /** For all sides together. */
  readonly seconds: number;
  readonly signal?: AbortSignal | undefined;
}

interface Reading {
  readonly wall: number;
  readonly cpu: number;
}

interface Running {
  readonly side: Side;
  readonly reps: number;
  /** Two a round. */
  readonly readings: Reading[];
  next: number;
}

const minRounds = 2;
/** Rounds aimed at in the time given. */
const wantedRounds = 6;
const shortestSample = 0.002;

export async function timeSides(sides: readonly Side[], options: TimingOptions): Promise<SideTimes[]> {
  const { seconds, signal } = options;
  const sample = Math.max(shortestSample, seconds / (wantedRounds * 2 * sides.length));
  const running: Running[] = [];
  for (const side of sides) running.push(await calibrate(side, sample, signal));
  const end = performance.now() + seconds * 1000;
  for (let round = 0; round < minRounds || performance.now() < end; round++)
    for (const each of [...running, ...running.toReversed()]) {
      signal?.throwIfAborted();
      each.readings.push(await take(each));
    }
  const first = running[0]!;
  return running.map((each) => ({
    name: each.side.name,
    wall: summarize(each.readings.map((reading) => reading.wall)),
    cpu: summarize(each.readings.map((reading) => reading.cpu)),
    reps: each.reps,
    wallRatio: summarize(roundRatios(each, first, 'wall')),
    cpuRatio: summarize(roundRatios(each, first, 'cpu')),
  }));
}

function roundRatios(side: Running, base: Running, clock: keyof Reading): number[] {
  const rounds = Array.from({ length: side.readings.length / 2 }, (_, i) => 2 * i);
  const total = ({ readings }: Running, i: number) => readings[i]![clock] + readings[i + 1]![clock];
  return rounds.map((i) => total(side, i) / total(base, i));
}

/** Finds the repetitions that fill a sample; its last run is the side's warm-up. */
async function calibrate(side: Side, sampleSeconds: number, signal?: AbortSignal): Promise<Running> {
  await side.run(0, 1);
  for (let reps = 1; ; reps *= 4) {
    signal?.throwIfAborted();
    const start = performance.now();
    await side.run(0, reps);
    const seconds = (performance.now() - start) / 1000;
    if (seconds < sampleSeconds / 4) continue;
    return { side, reps: Math.max(1, Math.round((reps * sampleSeconds) / seconds)), readings: [], next: 0 };
  }
}

async function take(running: Running): Promise<Reading> {
  const { side, reps } = running;
  await quiet();
  if (reps > 1) await side.run(running.next, 1); // wakes the side's threads
  const cpuStart = cpuMicroseconds();
  const start = performance.now();
  await side.run(running.next, reps);
  const wall = (performance.now() - start) * 1000;
  const cpu = cpuMicroseconds() - cpuStart;
  running.next += reps;
  return { wall: wall / reps, cpu: cpu / reps };
}

/** Of all threads of this process. */
export function cpuMicroseconds(): number {
  const { user, system } = cpuUsage();
  return user + system;
}

/** Waits until the previous side's threads, which spin for some ms (OpenBLAS: up to 30), sleep. */
async function quiet(): Promise<void> {
  for (let waited = 0; waited < 50; waited++) {
    const before = cpuMicroseconds();
    await sleep(2);
    if (cpuMicroseconds() - before < 400) return;
  }
}
