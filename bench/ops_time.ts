/**
 * Interleaved timing: the sides of a case take turns A B … B A in one process, each sample a run of repetitions
 * long enough that the queue's round trip vanishes, both in wall time and in CPU time of the whole process.
 */
import { cpuUsage } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { summarize, type Summary } from './stats.js';

export interface Side {
  readonly name: string;
  /** Repetitions come in multiples of this, recorded and replayed as one; default 1. */
  readonly unit?: number | undefined;
  /**
   * Does the work `reps` times; number i takes input copy `first + i`. Resolves when all of it is done.
   * @returns the seconds it took, if the side knows better than its caller: another process does
   */
  run(first: number, reps: number): Promise<number | void> | number | void;
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
  /** Default 0.002: the round trip of a queue vanishes in it. */
  readonly shortestSample?: number | undefined;
  /** Whether to wait before each sample until this process is idle: libraries' threads spin. Default true. */
  readonly settle?: boolean | undefined;
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

export async function timeSides(sides: readonly Side[], options: TimingOptions): Promise<SideTimes[]> {
  const { seconds, signal, shortestSample = 0.002, settle = true } = options;
  const sample = Math.max(shortestSample, seconds / (wantedRounds * 2 * sides.length));
  const running: Running[] = [];
  for (const side of sides) running.push(await calibrate(side, sample, signal));
  const end = performance.now() + seconds * 1000;
  for (let round = 0; round < minRounds || performance.now() < end; round++)
    for (const each of [...running, ...running.toReversed()]) {
      signal?.throwIfAborted();
      each.readings.push(await take(each, settle));
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
  const unit = side.unit ?? 1;
  await side.run(0, unit);
  for (let units = 1; ; units *= 4) {
    signal?.throwIfAborted();
    const seconds = (await timed(side, 0, units * unit)) / 1e6;
    if (seconds < sampleSeconds / 4) continue;
    const wanted = Math.max(1, Math.round((units * sampleSeconds) / seconds));
    return { side, reps: wanted * unit, readings: [], next: 0 };
  }
}

async function take(running: Running, settle: boolean): Promise<Reading> {
  const { side, reps } = running;
  const unit = side.unit ?? 1;
  if (settle) await quiet();
  if (reps > unit) await side.run(running.next, unit); // wakes the side's threads
  const cpuStart = cpuMicroseconds();
  const wall = await timed(side, running.next, reps);
  const cpu = cpuMicroseconds() - cpuStart;
  running.next += reps;
  return { wall: wall / reps, cpu: cpu / reps };
}

/** µs */
async function timed(side: Side, first: number, reps: number): Promise<number> {
  const start = performance.now();
  const own = await side.run(first, reps);
  return own === undefined ? (performance.now() - start) * 1000 : own * 1e6;
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
