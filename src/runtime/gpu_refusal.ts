/** Why no GPU is used where `auto` was asked for, and whether a user should hear of it. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { KotobaError, type ErrorCode } from '../errors.js';
import { addonPath } from '../package_root.js';

export interface GpuRefusal {
  /** One sentence: what is missing or broken, and what to do. */
  readonly reason: string;
  /** This machine seems to have an NVIDIA GPU, or this build was made for one: running on the CPU is a surprise. */
  readonly isSurprising: boolean;
}

/** What NVIDIA's driver leaves where it is loaded: on Linux, and in WSL. */
const DRIVER_TRACES = ['/proc/driver/nvidia/version', '/dev/nvidiactl', '/usr/lib/wsl/lib/libcuda.so.1'];

export const hasNvidiaDriver = (): boolean => DRIVER_TRACES.some((path) => existsSync(path));

export const cudaLibraryPath = (): string => join(dirname(addonPath()), 'kotoba_cuda.so');

export const hasCudaBuild = (): boolean => existsSync(cudaLibraryPath());

const REFUSALS: readonly ErrorCode[] = ['ERR_DEVICE', 'ERR_DEVICE_LOST', 'ERR_OUT_OF_MEMORY'];

/** @throws `error` itself unless it says that the GPU is missing, broken or full */
export function gpuRefusal(error: unknown): GpuRefusal {
  if (!(error instanceof KotobaError) || !REFUSALS.includes(error.code)) throw error;
  return { reason: error.message, isSurprising: hasCudaBuild() || hasNvidiaDriver() };
}
