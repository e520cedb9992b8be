/** Where gigabytes pass from one program to another: shared memory where the system has it. */
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A folder of one's own, to be removed by whoever made it. */
export const makeFastFolder = (): string =>
  mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'kotoba-bench-'));
