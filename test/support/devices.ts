/** What tests of ops run on, so that they try everything this machine has and say what they could not. */
import { describe, test } from 'vitest';
import {
  Device,
  INSTRUCTION_SETS,
  type DeviceName,
  type DeviceOptions,
  type InstructionSet,
} from '../../src/runtime/device.js';

const GPUS = ['cuda-sim', 'cuda'] as const;
/** An instruction set of this CPU, or another device. */
export type Target = InstructionSet | (typeof GPUS)[number];

export const isCpu = (target: Target): target is InstructionSet =>
  (INSTRUCTION_SETS as readonly string[]).includes(target);

/** `threads` are the CPU's. */
export function openTarget(target: Target, options: DeviceOptions = {}): Device {
  return isCpu(target) ? Device.open('cpu', { ...options, instructions: target }) : Device.open(target);
}

function runs(target: Target): boolean {
  try {
    openTarget(target).close();
    return true;
  } catch {
    return false;
  }
}

export const SUPPORTED = INSTRUCTION_SETS.filter(runs);
/** Every instruction set of this CPU, then the GPU and the simulated one if they are there. */
export const TARGETS: readonly Target[] = [...SUPPORTED, ...GPUS.filter(runs)];

const missing = [...INSTRUCTION_SETS, ...GPUS].filter((name) => !TARGETS.includes(name));
if (missing.length) console.log(`not tested, not on this machine or not built: ${missing.join(', ')}`);

/** What tests of whole models run on: KOTOBA_TEST_DEVICE (cuda-sim in CI, cuda on a GPU machine), or the CPU. */
export const openModelDevice = (): Device =>
  Device.open((process.env['KOTOBA_TEST_DEVICE'] ?? 'cpu') as DeviceName);

/** A GPU, or the simulated one. */
export type GpuTarget = (typeof GPUS)[number];
export const GPU_TARGETS = TARGETS.filter((target): target is GpuTarget => !isCpu(target));

/** Tests on each of `targets`; one that is skipped and says why where there is none. */
export function describeGpus(body: (target: GpuTarget) => void, targets = GPU_TARGETS): void {
  if (targets.length > 0) describe.each(targets)('%s', body);
  else describe.skip('needs a GPU, or the simulated one', () => test('is not here', () => undefined));
}
