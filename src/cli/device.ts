/** The device that a command runs on: its options, what is said about it. */
import { InvalidArgumentError, Option } from 'commander';
import { KotobaError } from '../errors.js';
import type { Device, DeviceName } from '../index.js';
import type { CliContext } from './io.js';
import { wholeNumber } from './options.js';
import { counted, styleFor } from './text.js';

export interface DeviceFlags {
  device?: DeviceName;
  /** bytes */
  vram?: number;
  threads?: number;
}

export const deviceOption = (): Option =>
  new Option(
    '--device <name>',
    'auto: a GPU if one works, else the CPU; cpu, cuda, cuda:N (default: KOTOBA_DEVICE, else auto)',
  ).argParser(parseDevice);
export const threadsOption = (): Option =>
  new Option('--threads <n>', 'CPU threads (default: KOTOBA_THREADS, else all cores)').argParser(
    wholeNumber(1),
  );
export const vramOption = (): Option =>
  new Option('--vram <gib>', "most of a GPU's memory to take (default: nine tenths of it)").argParser(
    parseVram,
  );

/** @throws KotobaError ERR_DEVICE: the command line is right, there is no such device */
function parseDevice(name: string): DeviceName {
  if (/^(auto|cpu|cuda(-sim)?(:\d+)?)$/.test(name)) return name as DeviceName;
  throw new KotobaError(
    'ERR_DEVICE',
    `--device ${name}: expected auto, cpu, cuda or cuda:N (N counts GPUs from 0): there is no such device`,
  );
}

function parseVram(text: string): number {
  const value = /^(\d+\.?\d*|\.\d+)$/.test(text.trim()) ? Number(text) : NaN;
  if (!(value > 0 && value < 2 ** 20))
    throw new InvalidArgumentError(`expected GiB, for example 7.5, got "${text}".`);
  return Math.max(1, Math.floor(value * 2 ** 30));
}

/**
 * Loads the addon. Where `auto` comes to the CPU on a machine or in a build that is made for a GPU, one line on stderr says
 * why.
 * @throws KotobaError ERR_DEVICE with what to do, ERR_ADDON_MISSING
 */
export async function openDevice(
  { io }: CliContext,
  { device, vram, threads }: DeviceFlags,
): Promise<Device> {
  const { Device } = await import('../index.js');
  const opened = Device.open(device, { threads, vram });
  if (opened.fallback?.isSurprising) {
    const style = styleFor(io.stderr, io.env);
    io.stderr.write(`${style.yellow('kotoba: note:')} runs on the CPU: ${opened.fallback.reason}\n`);
  }
  return opened;
}

/** For people: "cpu (AMD EPYC 9B45), avx512vnni, 2 threads", "cuda (NVIDIA H200), sm_90, 132 multiprocessors". */
export function deviceText(info: {
  readonly device: string;
  readonly processor: string;
  readonly instructions: string;
  readonly threads: number;
}): string {
  const units = counted(info.threads, info.device === 'cpu' ? 'thread' : 'multiprocessor');
  return `${info.device} (${info.processor}), ${info.instructions}, ${units}`;
}
