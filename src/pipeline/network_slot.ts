/** A network that is loaded when it is first needed and can be released in between. */
import { requireUnchanged, stampFiles, type FileStamps, type Part } from '../formats/index.js';
import type { Device } from '../runtime/device.js';
import { Weights } from '../runtime/weights.js';

export class NetworkSlot<Network> {
  readonly #device: Device;
  readonly #part: Part;
  readonly #stamps: FileStamps;
  readonly #build: (weights: Weights) => Network;
  #loaded: { readonly weights: Weights; readonly network: Network } | undefined;

  /** @param build makes the network of its weights; may enqueue work */
  constructor(device: Device, part: Part, build: (weights: Weights) => Network) {
    this.#device = device;
    this.#part = part;
    this.#stamps = stampFiles(part.tensors);
    this.#build = build;
  }

  /**
   * Must be called inside a job of the device. What loading enqueues has run when this resolves: a job that is cancelled
   * half way leaves nothing that looks loaded.
   * @throws KotobaError ERR_FILE_*, ERR_MODEL_TENSORS, ERR_CANCELLED
   */
  async get(): Promise<Network> {
    if (this.#loaded) return this.#loaded.network;
    requireUnchanged(this.#part.tensors, this.#stamps);
    const weights = new Weights(this.#device, this.#part.tensors, this.#part.path);
    try {
      const network = this.#build(weights);
      weights.prefetch();
      await this.#device.native.flush();
      this.#loaded = { weights, network };
      return network;
    } catch (error) {
      weights[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * @throws KotobaError ERR_FILE_READ if a file of it was cut short meanwhile: what was computed is then void. The network
   *   is released, for only a new map of the file can be trusted.
   */
  requireIntact(): void {
    try {
      this.#loaded?.weights.requireIntact();
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** Gives the memory of weights back whose names begin with `prefix`; the network stays usable. */
  forget(prefix: string): void {
    this.#loaded?.weights.forget(prefix);
  }

  release(): void {
    this.#loaded?.weights[Symbol.dispose]();
    this.#loaded = undefined;
  }
}
