/** Our own side of a bench, in a process of its own so that it is treated like a peer's. */
import { existsSync } from 'node:fs';
import { execPath } from 'node:process';
import { fileURLToPath } from 'node:url';
import type { OpPrecision } from '../src/runtime/ops.js';
import { isGpu, isSimulated } from './report.js';
import { torchCommand } from './torch_ops.js';

/** @param name  of a program of this folder; run from source, as tsx and tests do, it is TypeScript */
export function ownCommand(name: string, options: Readonly<Record<string, string | undefined>>): string[] {
  const paths = ['js', 'ts'].map((extension) =>
    fileURLToPath(new URL(`./${name}.${extension}`, import.meta.url)),
  );
  const path = paths.find((candidate) => existsSync(candidate))!;
  const program = path.endsWith('.ts') ? ['--import', 'tsx', path] : [path];
  const given = Object.entries(options).flatMap(([key, value]) =>
    value === undefined ? [] : [`--${key}`, value],
  );
  return [execPath, ...program, ...given];
}

/**
 * The precisions to run, the one that others' errors are read against first: fp32 on the CPU, where it costs little; on a
 * GPU, where every contender holds the model, the first of those asked for.
 */
export function precisionsOf(device: string, chosen?: readonly OpPrecision[]): OpPrecision[] {
  if (isGpu(device)) return [...new Set(chosen ?? (['fp32', 'bf16', 'fp16'] as const))];
  return [...new Set<OpPrecision>(['fp32', ...(chosen ?? (['int8'] as const))])];
}

/** What `--peer` names: `torch` is PyTorch's program of this folder, anything else a command. */
export function peerCommand(
  peer: string | readonly string[],
  script: string,
  device: string,
): string | readonly string[] {
  if (peer !== 'torch') return peer;
  return [...torchCommand(script), '--device', isGpu(device) && !isSimulated(device) ? device : 'cpu'];
}
