/**
 * A device: memory, an ordered command queue, and jobs that take turns on it.
 * Ops (ops.ts) enqueue and return at once; only reading a result waits, so the JavaScript thread never blocks.
 */
import { native, type NativeDevice, type NativeDeviceInfo, type NativeFile } from '../../bindings/native.js';
import { KotobaError } from '../errors.js';
import { gpuRefusal, type GpuRefusal } from './gpu_refusal.js';
import { Tensor } from './tensor.js';

/**
 * `auto`: the first GPU, or the CPU where none can be used. `cuda:1` is the second GPU; `cuda-sim` runs the CUDA kernels on
 * the CPU, for tests.
 */
export type DeviceName = 'auto' | 'cpu' | 'cuda' | 'cuda-sim' | `cuda:${number}` | `cuda-sim:${number}`;

/** CPU instruction sets, plainest first; the best one this CPU has is chosen unless one is asked for. */
export const INSTRUCTION_SETS = ['plain', 'avx2', 'avxvnni', 'avx512', 'avx512vnni', 'amx'] as const;
export type InstructionSet = (typeof INSTRUCTION_SETS)[number];

/** What is opened where no name is given: KOTOBA_DEVICE, else `auto`. */
export const defaultDevice = (): DeviceName => (process.env['KOTOBA_DEVICE'] || 'auto') as DeviceName;

export interface DeviceOptions {
  /** CPU threads; default KOTOBA_THREADS, else every core this process may use. */
  threads?: number | undefined;
  /** Default KOTOBA_ISA, else the best. */
  instructions?: InstructionSet | undefined;
  /** Bytes of a GPU's memory that may be taken; default KOTOBA_VRAM (MiB), else nine tenths of what it has. */
  vram?: number | undefined;
}

/** Freed activations kept for the next job, bytes: a CLIP encode fits; T5's hundreds of MiB go back. */
const KEEP_BETWEEN_JOBS = 64 << 20;

export class Device implements AsyncDisposable {
  readonly native: NativeDevice;
  readonly info: NativeDeviceInfo;
  /** Why `auto` came to the CPU. */
  readonly fallback: GpuRefusal | undefined;
  #lastJob: Promise<unknown> = Promise.resolve();
  #closed = false;

  private constructor(handle: NativeDevice, fallback?: GpuRefusal) {
    this.native = handle;
    this.info = handle.describe();
    this.fallback = fallback;
  }

  /**
   * @param name default KOTOBA_DEVICE, else `auto`
   * @throws KotobaError ERR_DEVICE if this build or machine has no such device, and says what to do
   */
  static open(name: DeviceName = defaultDevice(), options: DeviceOptions = {}): Device {
    const open = (kind: string): NativeDevice => new native.Device({ kind, ...options });
    if (name !== 'auto') return new Device(open(name));
    try {
      return new Device(open('cuda'));
    } catch (error) {
      return new Device(open('cpu'), gpuRefusal(error));
    }
  }

  /** Whether matmuls run on a GPU, real or simulated. */
  get isGpu(): boolean {
    return this.info.name !== 'cpu';
  }

  /** Bytes that it may take: a GPU's budget, the machine's memory for the CPU. */
  get memory(): number {
    return this.isGpu ? this.info.budget : this.info.memory;
  }

  /** Uninitialised memory. */
  empty(dtype: string, shape: readonly number[]): Tensor {
    return new Tensor(this, this.native.allocate(dtype, shape), dtype, shape);
  }

  /** Copies host values to the device. */
  from(data: Float32Array | Int32Array, shape: readonly number[]): Tensor {
    const tensor = this.empty(data instanceof Float32Array ? 'F32' : 'I32', shape);
    tensor.write(data);
    return tensor;
  }

  /**
   * A range of a mapped file as a tensor in its stored dtype; nothing is copied on the CPU.
   * @param offset bytes from the start of the file, any alignment
   */
  weight(file: NativeFile, offset: number, dtype: string, shape: readonly number[]): Tensor {
    return new Tensor(this, this.native.weight(file, offset, dtype, shape), dtype, shape);
  }

  /**
   * Runs one job at a time, so that a failure or an abort concerns its own job only.
   * @throws KotobaError ERR_CANCELLED when `signal` aborts; effective within one op
   */
  async run<T>(job: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const previous = this.#lastJob;
    const mine = previous.then(() => this.#runNow(job, signal));
    this.#lastJob = mine.catch(() => undefined);
    return signal ? await unlessAborted(mine, signal) : await mine;
  }

  async #runNow<T>(job: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (signal?.aborted) throw cancelled();
    const onAbort = () => this.native.cancel();
    signal?.addEventListener('abort', onAbort);
    try {
      const result = await job().catch(async (error: unknown) => {
        await this.native.flush().catch(() => undefined); // clears the same failure for the next job
        throw error;
      });
      await this.native.flush();
      this.native.trim(KEEP_BETWEEN_JOBS);
      return result;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Cancels what is queued and gives everything back. Tensors of this device must not be used afterwards. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.native.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/** What every job rejects with whose signal aborts. */
export function cancelled(): KotobaError {
  return new KotobaError('ERR_CANCELLED', 'cancelled by the caller');
}

/** Rejects at once when the signal aborts, even while the job still waits for its turn. */
async function unlessAborted<T>(job: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort!: () => void;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(cancelled());
  });
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort);
  try {
    return await Promise.race([job, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
