/** Memory of a process as Linux counts it, from /proc/PID, and of a GPU as its pool does. */
import { readFileSync, writeFileSync } from 'node:fs';
import { pid as ownPid } from 'node:process';

import type { Device } from '../src/runtime/device.js';

/** All in bytes. */
export interface ProcessMemory {
  /** The largest `resident` so far (VmHWM). */
  readonly peak: number;
  /** VmRSS = `anonymous` + `file` + shared memory. */
  readonly resident: number;
  /** Heap and stacks (RssAnon): what swapping alone could take back. */
  readonly anonymous: number;
  /** Mapped files (RssFile): the kernel drops these pages when it needs them. */
  readonly file: number;
}

export function processMemory(pid: number = ownPid): ProcessMemory {
  const path = `/proc/${pid}/status`;
  const status = readFileSync(path, 'latin1');
  const bytes = (field: string) => {
    const kibibytes = new RegExp(`^${field}:\\s*(\\d+) kB$`, 'm').exec(status)?.[1];
    if (kibibytes === undefined) throw new Error(`${path}: expected a line ${field}, found none`);
    return Number(kibibytes) * 1024;
  };
  return {
    peak: bytes('VmHWM'),
    resident: bytes('VmRSS'),
    anonymous: bytes('RssAnon'),
    file: bytes('RssFile'),
  };
}

/** Sets `peak` back to the present `resident`, so that a later reading is of what came after. */
export function resetPeakMemory(pid: number = ownPid): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
}

/** The most that a device's pool has held, bytes; undefined where it does not count (the CPU's memory is the process's). */
export function deviceMemoryPeak(device: Device): number | undefined {
  return device.native.describe().peak || undefined;
}
