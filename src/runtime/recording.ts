/**
 * Ops recorded once and replayed with what their inputs hold at that moment: a CUDA graph on a GPU, which starts all
 * kernels with one call; on the CPU the same commands again. The results are those of the ops themselves, bit for bit.
 */
import type { NativeRecording } from '../../bindings/native.js';
import { KotobaError } from '../errors.js';
import type { Device } from './device.js';

/** @returns undefined if `make` finds no memory: what is recorded holds more of it than what runs op by op */
export function unlessOutOfMemory<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch (error) {
    if (error instanceof KotobaError && error.code === 'ERR_OUT_OF_MEMORY') return undefined;
    throw error;
  }
}

export class Recording<Outputs extends Disposable> implements Disposable {
  /** What was made while recording: every replay writes it anew. The recording's. */
  readonly outputs: Outputs;
  readonly #device: Device;
  readonly #native: NativeRecording;

  private constructor(device: Device, recorded: NativeRecording, outputs: Outputs) {
    this.#device = device;
    this.#native = recorded;
    this.outputs = outputs;
  }

  /**
   * Nothing runs yet. All memory that the ops take stays the recording's until it is disposed.
   * @param enqueue calls ops and returns what of their results is to be kept; must not wait for anything. Its inputs are
   *   tensors made before: they are written anew between replays, and must outlive the recording.
   */
  static of<Outputs extends Disposable>(device: Device, enqueue: () => Outputs): Recording<Outputs> {
    device.native.beginCapture();
    let outputs: Outputs;
    try {
      outputs = enqueue();
    } catch (error) {
      device.native.discard(device.native.endCapture());
      throw error;
    }
    return new Recording(device, device.native.endCapture(), outputs);
  }

  replay(): void {
    this.#device.native.replay(this.#native);
  }

  [Symbol.dispose](): void {
    this.outputs[Symbol.dispose]();
    this.#device.native.discard(this.#native);
  }
}
