/** The typed surface of the native addon, and its loader. Only src/runtime imports this file. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';

import { KotobaError } from '../src/errors.js';
import { addonPath } from '../src/package_root.js';

/** An opaque handle; shape and dtype live in runtime/tensor.ts. */
export interface NativeTensor {
  rows(start: number, end: number): NativeTensor;
  columns(start: number, end: number): NativeTensor;
  reshape(shape: readonly number[]): NativeTensor;
  dispose(): void;
}

export interface NativeFile {
  size(): number;
  /** False once the file has fewer bytes than were mapped; what was read of the lost ones is zeros. */
  intact(): boolean;
  /** Reads [offset, bytes, offset, bytes, …] into the page cache in the background. */
  prefetch(ranges: readonly number[]): void;
  /** Gives the pages of [offset, bytes, …] back to the system; they are read again when they are touched. */
  forget(ranges: readonly number[]): void;
  dispose(): void;
}

export interface NativeDeviceInfo {
  name: string;
  description: string;
  /** Instruction set or compute capability in use. */
  instructions: string;
  threads: number;
  /** Bytes of memory the device has. */
  memory: number;
  /** Bytes of freed activations kept for reuse. */
  cached: number;
  // ---- of a GPU; 0 on the CPU
  /** Bytes of its memory: what it may take, has now, had at most. */
  budget: number;
  used: number;
  peak: number;
  /** Bytes of weights: there now, and copied so far because an op needed them. */
  resident: number;
  fetched: number;
  /** Recordings made into graphs, replays that launched one, replays that ran their commands. */
  graphs: number;
  launched: number;
  commanded: number;
  /** Why the last recording that was tried is no graph; or empty. */
  refusal: string;
}

export interface NativeRecording {
  readonly __recording: never;
}

export interface NativeDevice {
  describe(): NativeDeviceInfo;
  allocate(dtype: string, shape: readonly number[]): NativeTensor;
  weight(file: NativeFile, offset: number, dtype: string, shape: readonly number[]): NativeTensor;
  upload(tensor: NativeTensor, data: NodeJS.TypedArray): void;
  read(tensor: NativeTensor): Promise<ArrayBuffer>;
  reached(): Promise<void>;
  flush(): Promise<void>;
  cancel(): void;
  trim(bytes: number): void;
  beginCapture(): void;
  endCapture(): NativeRecording;
  replay(recording: NativeRecording): void;
  /** Gives its memory back once what is queued of it has run. */
  discard(recording: NativeRecording): void;
  close(): void;
}

export type NativeActivation = 'none' | 'gelu_tanh' | 'gelu_erf' | 'quick_gelu' | 'silu';
export type NativePrecision = 'fp32' | 'int8' | 'fp16' | 'bf16';

export interface NativeEpilogue {
  scale?: NativeTensor | undefined;
  bias?: NativeTensor | undefined;
  activation?: NativeActivation | undefined;
  multiply?: NativeTensor | undefined;
  add?: NativeTensor | undefined;
}

export interface NativeAttention {
  batch: number;
  heads: number;
  scale: number;
  causal: boolean;
  keyMask?: NativeTensor | undefined;
  bias?: { table: NativeTensor; bidirectional: boolean; maxDistance: number } | undefined;
}

export interface NativeHeadNormRope {
  batch: number;
  heads: number;
  /** Tokens of `out` before the first one of `x`. */
  offset: number;
  eps: number;
}

export interface NativeCopyTokens {
  batch: number;
  tokens: number;
  outOffset: number;
  xOffset: number;
}

export interface NativeConv2d {
  batch: number;
  /** Of x as stored, pixels. */
  height: number;
  width: number;
  /** 2: x is read as if nearest-upsampled to twice its size. */
  upscale: 1 | 2;
  kernel: number;
  stride: number;
  /** Zeros above and left of the image. */
  padBefore: number;
  /** Zeros below and right of it. */
  padAfter: number;
}

export interface NativeGroupNorm {
  batch: number;
  groups: number;
  eps: number;
  activation?: NativeActivation | undefined;
}

export interface NativePatches {
  batch: number;
  channels: number;
  height: number;
  width: number;
  patch: number;
  /** Features of a token in the order c, ph, pw; else ph, pw, c. */
  channelsFirst: boolean;
}

type Op<Args extends unknown[]> = (device: NativeDevice, ...args: Args) => void;
type T = NativeTensor;

export interface Native {
  setErrorClass(errorClass: typeof KotobaError): void;
  Device: new (options: {
    kind: string;
    threads?: number | undefined;
    instructions?: string | undefined;
    vram?: number | undefined;
  }) => NativeDevice;
  File: new (path: string) => NativeFile;
  linear: Op<[out: T, x: T, w: T, epilogue: NativeEpilogue | undefined, precision: NativePrecision]>;
  attention: Op<[out: T, q: T, k: T, v: T, how: NativeAttention]>;
  rmsNorm: Op<[out: T, x: T, weight: T, eps: number]>;
  layerNorm: Op<[out: T, x: T, weight: T, bias: T, eps: number]>;
  layerNormModulated: Op<[out: T, x: T, shift: T, scale: T, eps: number]>;
  headNormRope: Op<[out: T, x: T, weight: T | undefined, rotation: T | undefined, how: NativeHeadNormRope]>;
  copyTokens: Op<[out: T, x: T, how: NativeCopyTokens]>;
  activate: Op<[out: T, x: T, activation: NativeActivation]>;
  combine: Op<[out: T, terms: readonly (number | T)[]]>;
  conv2d: Op<[out: T, x: T, w: T, epilogue: NativeEpilogue, how: NativeConv2d, precision: NativePrecision]>;
  convWeight: Op<[out: T, w: T, taps: number]>;
  groupNorm: Op<[out: T, x: T, weight: T, bias: T, how: NativeGroupNorm]>;
  patchify: Op<[out: T, x: T, how: NativePatches]>;
  unpatchify: Op<[out: T, x: T, how: NativePatches]>;
  embedding: Op<[out: T, table: T, ids: T, accumulate: boolean]>;
  decode: Op<[out: T, x: T]>;
  quantize: Op<[out: T, x: T]>;
  transpose: Op<[out: T, x: T]>;
  requireFinite: Op<[x: T, where: string]>;
}

function load(): Native {
  const path = addonPath();
  try {
    const native = createRequire(import.meta.url)(path) as Native;
    native.setErrorClass(KotobaError);
    return native;
  } catch (cause) {
    const why = existsSync(path) ? (cause as Error).message : 'the file does not exist';
    throw new KotobaError(
      'ERR_ADDON_MISSING',
      `The native addon could not be loaded from ${path}: ${why}. ` +
        `Build it with "npm run build:native" (needs cmake and a C++20 compiler); ` +
        `npm 12 and later skip install scripts unless they are allowed.`,
      { cause },
    );
  }
}

export const native: Native = load();
