/**
 * PyTorch as the peer of single ops on a GPU, in a process of its own on the same card (bench/torch_peer/ops.py, or any
 * program that speaks this protocol of ours), asked in turns with our own runs:
 *
 *   COMMAND --serve --kind ops --device cpu|cuda|cuda:N
 *
 * Commands are lines; each is answered with one JSON object on one line of stdout (peer_process.ts):
 *
 *   (started)       {"event":"ready", "versions":{"torch", …}, "device", "cache":bytes of L2, "graphs":boolean, …}
 *   prepare JSON    {"event":"prepare", "sides":[{"name", "unit", "launched"?:why}, {"name", "missing":why}, …]}   of one
 *                   case; what was prepared before is let go. JSON is a TorchRequest; its files hold raw values. A side's
 *                   repetitions come in multiples of `unit`; `launched` says why they could not be recorded as a graph.
 *   sample JSON     {"event":"sample", "values", "non_finite"}   {"side", "rows", "cols"}: runs that side once into a
 *                   poisoned output, and tells the outputs at those places, row by row
 *   run JSON        {"event":"run", "seconds"}   {"side", "reps"}: wall time, the device waited for before and after
 *   ceilings JSON   {"event":"ceilings", …TorchCeilings}
 *   memory          {"event":"memory", "rss_peak", "device_peak"}
 *   quit
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KotobaError } from '../src/errors.js';
import { packageRoot } from '../src/package_root.js';
import type { DType } from '../src/formats/dtype.js';
import type { OpPrecision } from '../src/runtime/ops.js';
import { relativeError, type Places } from './ops_reference.js';
import type { Check, MissingSide } from './ops_bench.js';
import type { LinearEpilogue } from './ops_cases.js';
import type { Side } from './ops_time.js';
import { PeerProcess } from './peer_process.js';
import { makeFastFolder } from './fast_folder.js';

export interface TorchReady {
  readonly event: 'ready';
  /** `torch`, and what it was built with. */
  readonly versions: Readonly<Record<string, string>>;
  /** The card's or processor's name. */
  readonly device: string;
  /** Bytes of its last cache. */
  readonly cache?: number | undefined;
}

/** What a case is, for a program that knows nothing of ours. Sizes as in ops_cases.ts; files come with it. */
export type TorchRequest = { readonly copies: number; readonly precision: OpPrecision } & (
  | {
      readonly op: 'linear';
      readonly m: number;
      readonly n: number;
      readonly k: number;
      readonly type: DType;
      readonly epilogue?: LinearEpilogue | undefined;
    }
  | {
      readonly op: 'attention';
      readonly heads: number;
      readonly headDim: number;
      readonly tokens: number;
      readonly scale: number;
      readonly causal: boolean;
    }
  | {
      readonly op: 'conv2d';
      readonly height: number;
      readonly width: number;
      readonly inputs: number;
      readonly outputs: number;
      readonly kernel: number;
      readonly upscale: number;
    }
  | { readonly op: 'copy'; readonly bytes: number }
);

/** Best of a few sizes each, on normal data. */
export interface TorchCeilings {
  /** Device to device, bytes read and written, GB/s. */
  readonly copyGbytes: number;
  /** TFLOP/s of a large product by precision; `fp32` with TF32 off. */
  readonly matmulTflops: Readonly<Record<string, number>>;
}

/** A side of another program and the comparison of what it computes. */
export interface PeerSide {
  readonly side: Side;
  check(): Promise<Check> | Check;
}

export interface PeerSides {
  readonly sides: readonly PeerSide[];
  readonly missing: readonly MissingSide[];
}

export interface Expected {
  readonly places: Places;
  readonly values: ArrayLike<number>;
  readonly bound: number;
}

interface PreparedSide {
  readonly name: string;
  readonly unit?: number;
  readonly missing?: string;
  /** Why its repetitions are launched one by one, where they could not be recorded. */
  readonly launched?: string | null;
}

/** PyTorch's program of this folder. */
export const torchCommand = (script: string): string[] => [
  'python3',
  join(packageRoot(), 'bench', 'torch_peer', script),
];

export class TorchOps implements AsyncDisposable {
  readonly #process: PeerProcess<TorchReady>;
  readonly #folder: string;

  private constructor(process: PeerProcess<TorchReady>, folder: string) {
    this.#process = process;
    this.#folder = folder;
  }

  /** @param device  ours, by its name: PyTorch gets the same card, or the CPU for a simulated one */
  static async start(command: string | readonly string[], device: string): Promise<TorchOps> {
    const where = device.startsWith('cuda') && !device.startsWith('cuda-sim') ? device : 'cpu';
    const args = ['--serve', '--kind', 'ops', '--device', where];
    const process = await PeerProcess.start<TorchReady>(command, args);
    return new TorchOps(process, makeFastFolder());
  }

  get ready(): TorchReady {
    return this.#process.ready;
  }

  /**
   * The sides that PyTorch has for a case.
   * @param files     raw values by role; `w` as stored, `decoded` in F32
   * @param expected  absent: nothing is computed that could be checked
   */
  async prepare(
    request: TorchRequest,
    files: Readonly<Record<string, NodeJS.ArrayBufferView | undefined>> = {},
    expected?: Expected,
  ): Promise<PeerSides> {
    const paths: Record<string, string> = {};
    for (const [role, data] of Object.entries(files)) {
      if (data === undefined) continue;
      paths[role] = join(this.#folder, role);
      writeFileSync(paths[role], data);
    }
    const answer = await this.#process.ask<{ event: 'prepare'; sides: PreparedSide[] }>(
      'prepare',
      JSON.stringify({ ...request, files: paths }),
    );
    const there = answer.sides.filter(({ missing }) => missing === undefined);
    return {
      sides: there.map(({ name, unit }) => this.#side(name, unit ?? 1, expected)),
      missing: answer.sides.flatMap(({ name, missing, launched }) => {
        const why = missing ?? launched;
        return why ? [{ side: name, why }] : [];
      }),
    };
  }

  async ceilings(seconds: number): Promise<TorchCeilings> {
    return await this.#process.ask<TorchCeilings & { event: 'ceilings' }>(
      'ceilings',
      JSON.stringify({ seconds }),
    );
  }

  async memory(): Promise<{ rss_peak: number; device_peak: number }> {
    return await this.#process.ask<{ event: 'memory'; rss_peak: number; device_peak: number }>('memory', '');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #side(name: string, unit: number, expected?: Expected): PeerSide {
    const run = async (_first: number, reps: number): Promise<number> => {
      const { seconds } = await this.#process.ask<{ event: 'run'; seconds: number }>(
        'run',
        JSON.stringify({ side: name, reps }),
      );
      if (!(seconds > 0))
        throw new KotobaError('ERR_ARGUMENT', `peer: ${name}: expected seconds, received ${seconds}`);
      return seconds;
    };
    const check = async (): Promise<Check> => {
      if (!expected) return { side: name, error: 0, bound: 0 };
      const { places, values, bound } = expected;
      const answer = await this.#process.ask<{ event: 'sample'; values: number[]; non_finite: number }>(
        'sample',
        JSON.stringify({ side: name, ...places }),
      );
      return { side: name, error: answer.non_finite > 0 ? NaN : relativeError(answer.values, values), bound };
    };
    return { side: { name, unit, run }, check };
  }
}
