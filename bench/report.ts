/** What all bench reports share: what was measured, where, with what, and the file they are written to. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname } from 'node:path';
import { argv, version } from 'node:process';
import { fileURLToPath } from 'node:url';
import type { NativeDeviceInfo } from '../bindings/native.js';

/** Enough to know what a report's figures are of, and to take them again. */
export interface RunFacts {
  readonly date: string;
  readonly commit: string;
  readonly cpu: string;
  readonly cores: number;
  /** By the names of --device. */
  readonly device: string;
  /** Of a GPU. */
  readonly gpu?: GpuFacts | undefined;
  /** As it was given, after `node`. */
  readonly command: string;
  /** By name: node, torch, cuda, … */
  readonly versions: Readonly<Record<string, string>>;
}

export interface GpuFacts {
  /** As the device describes itself. */
  readonly description: string;
  /** Compute capability. */
  readonly capability: string;
  /** bytes */
  readonly memory: number;
  readonly driver?: string | undefined;
  /** Figures of a simulated device are no speeds, and none are taken. */
  readonly simulated: boolean;
}

export const isSimulated = (device: string): boolean => device.startsWith('cuda-sim');
export const isGpu = (device: string): boolean => device.startsWith('cuda');

/** @param info  of the device that was measured */
export function runFacts(device: string, info: NativeDeviceInfo): RunFacts {
  const gpu = {
    description: info.description,
    capability: info.instructions,
    memory: info.memory,
    driver: driverVersion(),
    simulated: isSimulated(device),
  };
  return {
    date: new Date().toISOString(),
    commit: measuredCommit(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    device,
    ...(isGpu(device) && { gpu }),
    command: argv.slice(2).join(' '),
    versions: { node: version },
  };
}

/** NVIDIA's kernel driver; undefined where there is none. */
function driverVersion(): string | undefined {
  try {
    return /\b(\d+\.\d+(?:\.\d+)?)\b/.exec(readFileSync('/proc/driver/nvidia/version', 'latin1'))?.[1];
  } catch {
    return undefined;
  }
}

/**
 * The commit measured, with `-dirty` where the tree differs from it; `unknown` outside a checkout. KOTOBA_BENCH_COMMIT
 * tells it where the tree has travelled without its history.
 */
export function measuredCommit(): string {
  if (process.env['KOTOBA_BENCH_COMMIT']) return process.env['KOTOBA_BENCH_COMMIT'];
  try {
    return execFileSync('git', ['describe', '--always', '--dirty', '--abbrev=12'], {
      cwd: fileURLToPath(new URL('.', import.meta.url)),
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return 'unknown';
  }
}

export function writeReport(path: string, report: object): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(report, null, 1)}\n`);
}
