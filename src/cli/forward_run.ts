/** What `kotoba forward` gives each kind of network, and gets from it. */
import type { Part, Slot } from '../formats/index.js';
import type { ArrayToWrite } from '../formats/write.js';
import type { Device, OpPrecision, Precision } from '../index.js';
import type { DeviceFlags } from './device.js';

export const KINDS = ['clip', 't5', 'flux', 'vae'] as const;
/** In the contract, for versions to come. */
export const OTHER_KINDS = ['mmdit', 'unet'] as const;
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
