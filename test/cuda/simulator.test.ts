/** The simulator's own tests (native/cuda/sim/tests): kernels with seeded bugs, each of which it has to catch. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const addon = process.env['KOTOBA_ADDON'] ?? join(root, 'build/Release/kotoba.node');
const program = join(dirname(addon), 'kotoba_sim_tests');
const built = existsSync(program);
if (!built) console.log('not tested, not built (cmake -DKOTOBA_CUDA_SIM=ON): the CUDA simulator');

describe.runIf(built)('the simulated GPU', () => {
  const run = (...names: string[]) => execFileSync(program, names, { encoding: 'utf8' });
  const names = built ? run().trim().split('\n') : ['none'];

  test('has tests', () => expect(names.length).toBeGreaterThan(20));
  test.each(names)('%s', (name) => {
    run(name); // throws with what the test printed unless it passed
  });
});
