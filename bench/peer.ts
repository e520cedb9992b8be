/**
 * Another encoder in a process of its own, loaded once and run on command, so that a bench can interleave its
 * runs with ours. Any program that speaks this protocol of ours is a peer (`--peer COMMAND`):
 *
 *   COMMAND --serve --kind clip_l|clip_g|t5 --file FILE --tokens N --threads T [--ids FILE] [--batch B]
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
 * Token ids are the first N int32 of --ids; of B prompts at once (default 1) the first B · N, and the states are
 * [B · N, hidden]. T is 0 where the work is a GPU's.
 */
import type { EncoderKind } from './files.js';
import { PeerProcess } from './peer_process.js';

export interface PeerOptions {
  /** Program and arguments; a string is split at white space. No shell sees it. */
  readonly command: string | readonly string[];
  readonly kind: EncoderKind;
  readonly file: string;
  readonly tokens: number;
  /** Prompts at once; default 1. */
  readonly batch?: number;
  readonly threads: number;
  /** A file of raw int32 token ids; without it the peer's own. */
  readonly ids?: string;
}

export interface PeerReady {
  readonly event: 'ready';
  readonly load_seconds: number;
  readonly rss_peak: number;
  /** What it is, for people. */
  readonly description?: string;
  readonly versions?: Readonly<Record<string, string>>;
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
  /** Of the device's memory, where that is not the host's. */
  readonly device_peak?: number;
}

export class Peer {
  readonly #process: PeerProcess<PeerReady>;

  private constructor(process: PeerProcess<PeerReady>) {
    this.#process = process;
  }

  /** Starts the peer and waits until it has loaded its encoder. */
  static async start(options: PeerOptions): Promise<Peer> {
    const { command, kind, file, tokens, batch = 1, threads, ids } = options;
    const args = ['--serve', '--kind', kind, '--file', file, '--tokens', `${tokens}`];
    args.push('--threads', `${threads}`);
    if (ids !== undefined) args.push('--ids', ids);
    if (batch !== 1) args.push('--batch', `${batch}`);
    return new Peer(await PeerProcess.start<PeerReady>(command, args));
  }

  get ready(): PeerReady {
    return this.#process.ready;
  }

  get pid(): number {
    return this.#process.pid;
  }

  run(tokens: number): Promise<PeerRun> {
    return this.#process.ask('run', tokens);
  }

  /** Writes the last run's final hidden states to `path`, raw float32. */
  async dump(path: string): Promise<void> {
    await this.#process.ask('dump', path);
  }

  async setThreads(threads: number): Promise<void> {
    await this.#process.ask('threads', threads);
  }

  close(): Promise<void> {
    return this.#process.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
