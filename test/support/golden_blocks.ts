/** What tests of a network against golden/diffusion share: which are here, and every block's values by its name. */
import { test } from 'vitest';
import { goldenPath, type GoldenTensor } from './golden.js';

export type Tensors = ReadonlyMap<string, GoldenTensor>;
export const values = (tensors: Tensors, name: string): Float32Array =>
  tensors.get(name)!.data as Float32Array;
export const shape = (tensors: Tensors, name: string): readonly number[] => tensors.get(name)!.shape;

/** Those of `names` that are on this machine; says which are not, and skips where none is. */
export function available<Name extends string>(names: readonly Name[]): readonly Name[] {
  const missing = names.filter((name) => !goldenPath(`diffusion/${name}`));
  if (missing.length) console.log(`not tested, ../shared/golden is not here: ${missing.join(', ')}`);
  if (missing.length === names.length) test.skip('needs ../shared/golden', () => undefined);
  return names.filter((name) => !missing.includes(name));
}

type Reads = readonly (readonly [name: string, values: Promise<Float32Array>])[];

/**
 * Runs a network's blocks.
 * @param of     what a block has left, being read, under the golden names
 * @param finish reads what the network returns
 */
export async function blockValues<Stage, Result>(
  blocks: Iterator<Stage, Result>,
  of: (stage: Stage) => Reads,
  finish: (result: Result) => Promise<Float32Array>,
): Promise<Map<string, Float32Array>> {
  const reads: (readonly [string, Promise<Float32Array>])[] = [];
  for (;;) {
    const { done, value } = blocks.next();
    if (done) {
      reads.push(['out', finish(value)]);
      return new Map(await Promise.all(reads.map(async ([name, read]) => [name, await read] as const)));
    }
    reads.push(...of(value));
  }
}
