/** One pull of a file at a time: two writers of one part could each check what the other damages. */
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { cancelled } from './hub_error.js';

const LOOK_AGAIN_MILLISECONDS = 200;
/** After which a lock without a name in it was left by a process that died while it wrote it. */
const NAMELESS_MILLISECONDS = 10_000;

/** Waits while another process that lives, or another call here, holds the lock; one left by the dead is taken. */
export async function withLock<T>(
  path: string,
  signal: AbortSignal | undefined,
  job: () => Promise<T>,
): Promise<T> {
  while (!(await take(path))) {
    if (await isLeft(path)) await rm(path, { force: true });
    else
      await sleep(LOOK_AGAIN_MILLISECONDS, undefined, { ...(signal && { signal }) }).catch(() => {
        throw cancelled();
      });
  }
  try {
    return await job();
  } finally {
    await rm(path, { force: true });
  }
}

async function take(path: string): Promise<boolean> {
  try {
    await writeFile(path, `${process.pid} ${hostname()}`, { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Of another machine nothing is known: on a shared disk its lock is waited for. */
async function isLeft(path: string): Promise<boolean> {
  const [, pid, host] = /^(\d+) (.*)$/s.exec(await readFile(path, 'utf8').catch(() => '')) ?? [];
  if (pid === undefined) {
    const since = await stat(path).catch(() => undefined);
    return since !== undefined && Date.now() - since.mtimeMs > NAMELESS_MILLISECONDS;
  }
  if (host !== hostname()) return false;
  try {
    process.kill(Number(pid), 0); // only asks
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}
