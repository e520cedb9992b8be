/** What `kotoba doctor` says about GPUs, and about the device that commands would run on. */
import { readFileSync, statSync } from 'node:fs';
import { KotobaError } from '../errors.js';
import type { DeviceFlags } from './device.js';
import type { Check } from './doctor_checks.js';
import { bytesText, counted } from './text.js';

type DeviceModule = typeof import('../runtime/device.js');

/** @param flags as given to the command: what they choose is the last check */
export async function gpuChecks(flags: DeviceFlags): Promise<Check[]> {
  const module = await import('../runtime/device.js');
  const presence = await import('../runtime/gpu_refusal.js');
  const hasDriver = presence.hasNvidiaDriver();
  const hasBuild = presence.hasCudaBuild();
  return [
    driver(hasDriver, hasBuild),
    build(presence.cudaLibraryPath(), hasBuild, hasDriver),
    ...(hasBuild ? gpus(module) : []),
    chosen(module, flags),
  ];
}

function driver(isThere: boolean, hasBuild: boolean): Check {
  if (isThere) return { what: 'driver', state: 'ok', found: driverVersion() ?? 'an NVIDIA driver is here' };
  return {
    what: 'driver',
    state: 'note',
    found: 'no NVIDIA driver seen: cpu runs',
    ...(hasBuild && {
      advice:
        'The CUDA device of this build needs driver 580 or newer, and in a container the GPU handed in.',
    }),
  };
}

/** "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  …" → the first line, as it is */
function driverVersion(): string | undefined {
  try {
    return /^NVRM version: *(.*\S)/m
      .exec(readFileSync('/proc/driver/nvidia/version', 'utf8'))?.[1]
      ?.replace(/ +/g, ' ');
  } catch {
    return undefined; // WSL has no such file
  }
}

function build(path: string, isThere: boolean, hasDriver: boolean): Check {
  if (!isThere)
    return {
      what: 'cuda build',
      state: 'note',
      found: 'this build has no CUDA device',
      ...(hasDriver && {
        advice:
          'To use the GPU, install nvcc of CUDA 13, then run "npx cmake-js build --CDKOTOBA_CUDA=AUTO" in the package folder.',
      }),
    };
  const { size, mtime } = statSync(path);
  const built = mtime.toISOString().slice(0, 16).replace('T', ' ');
  return { what: 'cuda build', state: 'ok', found: `${path}, ${bytesText(size)}, built ${built} UTC` };
}

/** One check a GPU; one in all where the first cannot be used. */
function gpus({ Device }: DeviceModule): Check[] {
  const checks: Check[] = [];
  for (let i = 0; ; i++) {
    try {
      const device = Device.open(`cuda:${i}`);
      const { name, description, instructions, threads, memory, budget } = device.info;
      device.close();
      const found =
        `${name}: ${description}, ${instructions}, ${counted(threads, 'multiprocessor')}, ` +
        `${bytesText(memory)}, of which at most ${bytesText(budget)} would be taken (--vram)`;
      checks.push({ what: 'gpu', state: 'ok', found });
    } catch (error) {
      if (!(error instanceof KotobaError)) throw error;
      if (i === 0) checks.push({ what: 'gpu', state: 'note', found: error.message });
      return checks;
    }
  }
}

function chosen(
  { Device, defaultDevice }: DeviceModule,
  { device: name, vram, threads }: DeviceFlags,
): Check {
  const asked = name ?? defaultDevice();
  try {
    const device = Device.open(name, { vram, threads });
    const { name: taken, description } = device.info;
    const { isGpu, fallback } = device;
    device.close();
    const precisions = isGpu ? 'fp32, fp16, bf16' : 'fp32, int8';
    const why = fallback?.isSurprising ? `: ${fallback.reason}` : '';
    return {
      what: 'device',
      state: why === '' ? 'ok' : 'note',
      found: `${asked} takes ${taken} (${description}), which runs ${precisions}${why}`,
    };
  } catch (error) {
    if (!(error instanceof KotobaError)) throw error;
    return { what: 'device', state: 'missing', found: `${asked}: ${error.message}` };
  }
}
