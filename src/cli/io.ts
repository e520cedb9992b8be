/** Everything a command may touch of the process: tests hand in their own. */
import { constants } from 'node:os';
import { EXIT } from './exit_codes.js';

export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

export interface Io {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly stdin: AsyncIterable<Uint8Array | string>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /**
   * Calls back once when the user wants the job stopped, with the exit code that tells so. Returns how to stop
   * listening. After the first call the next Ctrl-C ends the process at once.
   */
  onInterrupt(listener: (exitCode: number) => void): () => void;
}

/** What commands get. `exitCode` is what main returns if nothing throws. */
export interface CliContext {
  readonly io: Io;
  /** Aborts on Ctrl-C. */
  readonly signal: AbortSignal;
  exitCode: number;
}

export function processIo(): Io {
  quietWhenNobodyReads(process.stdout);
  quietWhenNobodyReads(process.stderr);
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    stdin: process.stdin,
    env: process.env,
    onInterrupt: onSignals,
  };
}

/** `kotoba … | head` closes the pipe early: what is then written has no reader, and the job goes on. */
function quietWhenNobodyReads(stream: NodeJS.WriteStream): void {
  if (!stream.listeners('error').includes(onOutputError)) stream.on('error', onOutputError);
}

/** A disk that takes no more of what stdout was led to: said once, and the exit code tells it. */
function onOutputError(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE' || outputFailed) return;
  outputFailed = true;
  process.stderr.write(`kotoba: ERR_FILE_WRITE: the output cannot be written: ${error.message}\n`);
  process.once('exit', () => (process.exitCode = EXIT.failed));
}
let outputFailed = false;

const SIGNALS = { SIGINT: EXIT.interrupted, SIGTERM: 128 + constants.signals.SIGTERM } as const;

function onSignals(listener: (exitCode: number) => void): () => void {
  const handlers = Object.entries(SIGNALS).map(([name, code]) => {
    const handler = () => {
      stop(); // Node's default, sudden death, is back for the second one
      listener(code);
    };
    return [name as NodeJS.Signals, handler] as const;
  });
  const stop = () => {
    for (const [name, handler] of handlers) process.removeListener(name, handler);
  };
  for (const [name, handler] of handlers) process.on(name, handler);
  return stop;
}
