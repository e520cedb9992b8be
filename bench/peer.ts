/**
 * Another encoder in a process of its own, loaded once and run on command, so that a bench can interleave its
 * runs with ours. Any program that speaks this protocol of ours is a peer (`--peer COMMAND`):
 *
 *   COMMAND --serve --kind clip_l|clip_g|t5 --file FILE --tokens N --threads T [--ids FILE]
 *
 * It loads the encoder, then reads commands, one a line, and answers each with one JSON object on one line of
 * stdout. Seconds are wall time and measured by the peer; memory is in bytes; stderr is for people.
 *
 *   (loaded)    {"event":"ready", "load_seconds", "rss_peak", ...}
 *   run N       {"event":"run", "tokens":N, "seconds", "cpu_seconds", "rms", "non_finite", "rss_peak", ...}
 *   dump PATH   {"event":"dump", "path", "values"}    last run's final hidden states [N, hidden], raw float32
 *   threads T   {"event":"threads", "threads":T}      for the runs to come
 *   quit        (ends; so does the end of stdin)
 *   a failure   {"event":"error", "message"}
 *
 * Token ids are the first N int32 of --ids.
 */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { KotobaError } from '../src/errors.js';
import type { EncoderKind } from './files.js';

export interface PeerOptions {
  /** Program and arguments; a string is split at white space. No shell sees it. */
  readonly command: string | readonly string[];
  readonly kind: EncoderKind;
  readonly file: string;
  readonly tokens: number;
  readonly threads: number;
  /** A file of raw int32 token ids; without it the peer's own. */
  readonly ids?: string;
}

export interface PeerReady {
  readonly event: 'ready';
  readonly load_seconds: number;
  readonly rss_peak: number;
}

export interface PeerRun {
  readonly event: 'run';
  readonly tokens: number;
  readonly seconds: number;
  readonly cpu_seconds: number;
  /** Root mean square of the final hidden states: a checksum of sorts. */
  readonly rms: number;
  readonly non_finite: number;
  readonly rss_peak: number;
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/** Characters of stderr kept for the message of a failure. */
const stderrKept = 2000;

export class Peer {
  readonly ready: PeerReady;
  readonly #child: Child;
  readonly #answers: Answers;

  private constructor(child: Child, answers: Answers, ready: PeerReady) {
    this.#child = child;
    this.#answers = answers;
    this.ready = ready;
  }

  /** Starts the peer and waits until it has loaded its encoder. */
  static async start(options: PeerOptions): Promise<Peer> {
    const { command } = options;
    const [program, ...own] = typeof command === 'string' ? command.trim().split(/\s+/) : command;
    if (!program) throw failed('expected a command, received an empty one');
    const { kind, file, tokens, threads, ids } = options;
    const args = ['--kind', kind, '--file', file, '--tokens', `${tokens}`, '--threads', `${threads}`];
    if (ids !== undefined) args.push('--ids', ids);
    const child = spawn(program, [...own, '--serve', ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    child.stdin.on('error', () => {}); // a peer that died is reported by the answer that does not come
    const answers = new Answers(child);
    return new Peer(child, answers, await answers.next<PeerReady>('ready'));
  }

  get pid(): number {
    return this.#child.pid!;
  }

  run(tokens: number): Promise<PeerRun> {
    return this.#ask('run', tokens);
  }

  /** Writes the last run's final hidden states to `path`, raw float32. */
  async dump(path: string): Promise<void> {
    await this.#ask('dump', path);
  }

  async setThreads(threads: number): Promise<void> {
    await this.#ask('threads', threads);
  }

  async close(): Promise<void> {
    const { exitCode, signalCode, stdin } = this.#child;
    if (exitCode !== null || signalCode !== null) return;
    const ended = once(this.#child, 'close');
    stdin.end('quit\n');
    await ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #ask<T extends { event: string }>(event: T['event'], argument: string | number): Promise<T> {
    const answer = this.#answers.next<T>(event);
    this.#child.stdin.write(`${event} ${argument}\n`);
    return answer;
  }
}

/** The command was the caller's choice, so what it does wrong is a wrong argument. */
function failed(what: string): KotobaError {
  return new KotobaError('ERR_ARGUMENT', `peer: ${what}`);
}

interface Waiting {
  resolve(line: string): void;
  reject(error: Error): void;
}

/** The peer's lines in order, each handed to whoever asked first; once it has ended, every wait fails. */
class Answers {
  readonly #lines: string[] = [];
  readonly #waiting: Waiting[] = [];
  #stderr = '';
  #ended: Error | undefined;

  constructor(child: Child) {
    child.stderr
      .setEncoding('utf8')
      .on('data', (text: string) => (this.#stderr = (this.#stderr + text).slice(-stderrKept)));
    createInterface({ input: child.stdout }).on('line', (line) => this.#take(line));
    child.on('error', (error) => this.#end(failed(`cannot start: ${error.message}`)));
    child.on('close', (code, signal) => {
      const how = signal ?? `exit status ${code}`;
      this.#end(failed(`ended with ${how} before it answered. ${this.#stderr.trim()}`.trim()));
    });
  }

  /** The next answer, which must be of this event. */
  async next<T extends { event: string }>(event: T['event']): Promise<T> {
    const line = await this.#nextLine();
    const answer = parseAnswer(line);
    if (answer.event === event) return answer as T;
    const found = answer.event === 'error' ? answer.message : line;
    throw failed(`expected an answer '${event}', received: ${found}`);
  }

  #nextLine(): Promise<string> {
    const line = this.#lines.shift();
    if (line !== undefined) return Promise.resolve(line);
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  #take(line: string): void {
    const first = this.#waiting.shift();
    if (first) first.resolve(line);
    else this.#lines.push(line);
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
  }
}

function parseAnswer(line: string): { event?: string; message?: string } {
  try {
    const answer: unknown = JSON.parse(line);
    if (typeof answer === 'object' && answer !== null) return answer;
  } catch {
    // Said below, with the line.
  }
  throw failed(`expected a JSON object on a line of stdout, received: ${line}`);
}
