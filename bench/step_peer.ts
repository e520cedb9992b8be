/**
 * Flux's transformer alone in another program, with random weights of its own: only its time can be compared, step by
 * step. bench/torch_peer/flux.py, eager and compiled, or any program that speaks this protocol of ours:
 *
 *   COMMAND --serve --kind flux --text-tokens T --image-tokens I
 *
 *   (ready)   {"event":"ready", "description", "versions", …}
 *   run N     {"event":"run", "seconds"}   wall time of N evaluations of the model, the device waited for
 *   quit
 */
import { peerCommand } from './own_process.js';
import { PeerProcess } from './peer_process.js';
import { summarize, type Summary } from './stats.js';

export interface StepPeerResult {
  readonly name: string;
  /** What it says it is; or why it has no times. */
  readonly description: string;
  readonly secondsPerStep?: Summary | undefined;
  /** Its median seconds / ours, by our contender. */
  readonly timesPeer?: Readonly<Record<string, number>> | undefined;
}

interface Ready {
  readonly event: 'ready';
  readonly description: string;
  readonly versions?: Readonly<Record<string, string>>;
}

export interface StepPeerSizes {
  readonly textTokens: number;
  readonly imageTokens: number;
  readonly steps: number;
}

/** PyTorch's ways of the same model. */
const TORCH_WAYS = [
  ['torch eager', []],
  ['torch.compile', ['--compile', 'default']],
] as const;

export class StepPeer {
  readonly name: string;
  readonly #steps: number;
  readonly #process: PeerProcess<Ready> | undefined;
  #description: string;
  readonly #perStep: number[] = [];

  private constructor(name: string, steps: number, process: PeerProcess<Ready> | string) {
    this.name = name;
    this.#steps = steps;
    this.#process = typeof process === 'string' ? undefined : process;
    this.#description = typeof process === 'string' ? process : process.ready.description;
  }

  /** PyTorch's, each after one untimed run, in which a compiled model is compiled. One that fails says why. */
  static async startAll(
    device: string,
    sizes: StepPeerSizes,
    extra: readonly string[] = [],
  ): Promise<StepPeer[]> {
    const { textTokens, imageTokens, steps } = sizes;
    const args = [
      '--serve',
      '--kind',
      'flux',
      '--text-tokens',
      `${textTokens}`,
      '--image-tokens',
      `${imageTokens}`,
    ];
    const peers: StepPeer[] = [];
    for (const [name, options] of TORCH_WAYS) {
      const process = await PeerProcess.start<Ready>(peerCommand('torch', 'flux.py', device), [
        ...args,
        ...options,
        ...extra,
      ]).catch((error: unknown) => (error as Error).message);
      const peer = new StepPeer(name, steps, process);
      await peer.run();
      peer.#perStep.length = 0;
      peers.push(peer);
    }
    return peers;
  }

  get versions(): Readonly<Record<string, string>> {
    return this.#process?.ready.versions ?? {};
  }

  /** As many evaluations as our runs take steps. */
  async run(): Promise<void> {
    if (!this.#process) return;
    try {
      const { seconds } = await this.#process.ask<{ event: 'run'; seconds: number }>('run', this.#steps);
      this.#perStep.push(seconds / this.#steps);
    } catch (error) {
      this.#description = (error as Error).message;
    }
  }

  /** @param ours  median seconds a step, by contender */
  result(ours: ReadonlyMap<string, number>): StepPeerResult {
    const { name } = this;
    const description = this.#description;
    if (this.#perStep.length === 0) return { name, description };
    const secondsPerStep = summarize(this.#perStep);
    const ratios = [...ours].map(([contender, seconds]) => [contender, secondsPerStep.median / seconds]);
    return {
      name,
      description,
      secondsPerStep,
      timesPeer: Object.fromEntries(ratios) as Record<string, number>,
    };
  }

  async close(): Promise<void> {
    await this.#process?.close();
  }
}
