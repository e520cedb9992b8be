/** Runs a command line inside this process, with its own streams. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { main } from '../../src/cli/main.js';
import type { Io } from '../../src/cli/io.js';

export interface RunOptions {
  readonly stdin?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  /** Both outputs are terminals of this many columns. */
  readonly terminal?: number;
  /** Ctrl-C as soon as stderr has this text. */
  readonly interruptAt?: RegExp;
}

export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** stdout parsed, for --json */
  readonly json: () => unknown;
}

export async function run(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { stdin = '', env = {}, terminal, interruptAt } = options;
  const text = { stdout: '', stderr: '' };
  let interrupt: ((exitCode: number) => void) | undefined;
  const output = (name: 'stdout' | 'stderr') => ({
    write: (part: string) => {
      text[name] += part;
      if (interruptAt?.test(text.stderr)) interrupt?.(130);
    },
    ...(terminal && { isTTY: true, columns: terminal }),
  });
  const io: Io = {
    stdout: output('stdout'),
    stderr: output('stderr'),
    stdin: (async function* () {
      yield Buffer.from(stdin);
    })(),
    env,
    onInterrupt: (listener) => {
      interrupt = listener;
      return () => (interrupt = undefined);
    },
  };
  const code = await main(['node', 'kotoba', ...args], io);
  return { code, ...text, json: () => JSON.parse(text.stdout) as unknown };
}

/** A folder for this test file, gone afterwards. */
export function temporaryFolder(): { readonly path: string; join(...names: string[]): string } {
  let path = '';
  beforeAll(() => {
    path = mkdtempSync(join(tmpdir(), 'kotoba-cli-'));
  });
  afterAll(() => rmSync(path, { recursive: true, force: true }));
  return {
    get path() {
      return path;
    },
    join: (...names) => join(path, ...names),
  };
}
