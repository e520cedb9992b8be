/** What `kotoba forward` gives each kind of network, and gets from it. */
import type { Part, Slot } from '../formats/index.js';
import type { ArrayToWrite } from '../formats/write.js';
import type { Device, OpPrecision, Precision } from '../index.js';
import type { DeviceFlags } from './device.js';

export const KINDS = ['clip', 't5', 'flux', 'mmdit', 'unet', 'vae'] as const;
export type Kind = (typeof KINDS)[number];

export interface ForwardOptions extends DeviceFlags {
  inputs: string;
  output: string;
  kind?: Kind;
  slot?: Slot;
  part: 'decode' | 'encode';
  config?: Readonly<Record<string, unknown>>;
  precision: Precision;
  modelsDir: readonly string[];
  json?: boolean;
}

/** One network to run, found and checked. */
export interface ForwardRun {
  readonly path: string;
  readonly part: Part;
  readonly device: Device;
  readonly precision: OpPrecision;
  readonly options: ForwardOptions;
  readonly signal: AbortSignal;
  readonly onProgress: (done: number, total: number) => void;
}

export type ForwardOutputs = Map<string, ArrayToWrite>;

/**
 * Runs a network's blocks, one at a time, so that progress is seen and an abort is heard.
 * @param total of them
 * @returns what the network returns
 */
export async function runBlocks<Result>(
  { device, onProgress }: ForwardRun,
  blocks: Iterator<unknown, Result>,
  total: number,
): Promise<Result> {
  for (let block = 1; ; block++) {
    const { done, value } = blocks.next();
    if (done) return value;
    await device.native.reached();
    onProgress(Math.min(block, total), total);
  }
}
