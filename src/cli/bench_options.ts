/** Options that the benches share. */
import { InvalidArgumentError, Option } from 'commander';
import { namesOf } from './lists.js';

export type BenchPrecision = 'fp32' | 'int8' | 'fp16' | 'bf16';

/** A bench is told its device: it compares, so none is chosen for it. */
export const deviceOption = (): Option =>
  new Option('--device <name>', 'cpu, cuda, cuda:1, … or cuda-sim').default('cpu').argParser(parseDevice);

function parseDevice(name: string): string {
  if (!/^(cpu|cuda(-sim)?(:\d+)?)$/.test(name))
    throw new InvalidArgumentError(`expected cpu, cuda, cuda:1, … or cuda-sim, got "${name}".`);
  return name;
}

export const precisionsOption = (): Option =>
  new Option(
    '--precisions <list>',
    'of fp32, int8 (CPU), fp16 and bf16 (GPU) (default: all of the device)',
  ).argParser(namesOf(['fp32', 'int8', 'fp16', 'bf16'] as const));

export const PEER_HELP =
  "--peer torch is PyTorch's program in bench/torch_peer, run by python3 (in a clone of the repository only).";
