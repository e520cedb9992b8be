/**
 * A program that is started once and then asked, a line at a time: commands on its stdin, one JSON object with an
 * `event` for each on a line of its stdout. What peers of all benches have in common.
 */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { KotobaError } from '../src/errors.js';

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/** Characters of stderr kept for the message of a failure. */
const stderrKept = 2000;

export class PeerProcess<Ready extends { event: 'ready' }> {
  readonly ready: Ready;
  readonly #child: Child;
  readonly #answers: Answers;

  private constructor(child: Child, answers: Answers, ready: Ready) {
    this.#child = child;
    this.#answers = answers;
    this.ready = ready;
  }

  /**
   * Starts the program and waits until it says that it is ready.
   * @param command  program and arguments; a string is split at white space; no shell sees it
   * @param args     follow them
   */
  static async start<Ready extends { event: 'ready' }>(
    command: string | readonly string[],
    args: readonly string[],
  ): Promise<PeerProcess<Ready>> {
    const [program, ...own] = typeof command === 'string' ? command.trim().split(/\s+/) : command;
    if (!program) throw failed('expected a command, received an empty one');
    const child = spawn(program, [...own, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    child.stdin.on('error', () => {}); // a peer that died is reported by the answer that does not come
    const answers = new Answers(child);
    try {
      return new PeerProcess(child, answers, await answers.next<Ready>('ready'));
    } catch (error) {
      child.kill();
      throw error;
    }
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Sends a command and waits for its answer. @throws KotobaError ERR_ARGUMENT with what the program said instead */
  ask<T extends { event: string }>(event: T['event'], argument: string | number): Promise<T> {
    const answer = this.#answers.next<T>(event);
    this.#child.stdin.write(`${event} ${argument}\n`);
    return answer;
  }

  async close(): Promise<void> {
    const { exitCode, signalCode, stdin } = this.#child;
    if (exitCode !== null || signalCode !== null) return;
    const ended = once(this.#child, 'close');
    stdin.end('quit\n');
    await ended;
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
