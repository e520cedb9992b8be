/** The limit of ops that memory bounds: a copy of as many bytes in all, by memcpy on the CPU, by PyTorch on a GPU. */
import { copiesPastCache, type MissingSide, type Workbench } from './ops_bench.js';
import type { Side } from './ops_time.js';

/** Copies of as many bytes in all, read and written. */
export async function copySides(
  bench: Workbench,
  bytes: number,
): Promise<{ sides: readonly Side[]; missing: readonly MissingSide[] }> {
  if (!bench.torch) return { sides: memcpySides(bench, bytes), missing: [] };
  const half = Math.ceil(bytes / 2);
  const copies = copiesPastCache(bench, half);
  const { sides, missing } = await bench.torch.prepare({
    op: 'copy',
    bytes: half,
    copies,
    precision: 'fp32',
  });
  return { sides: sides.map(({ side }) => side), missing };
}

/**
 * The op's bandwidth limit: memcpy of as many bytes in all (read and written), on as many threads. Like the op it
 * reads past the cache and writes to one place.
 */
function memcpySides(bench: Workbench, bytes: number): Side[] {
  const { peers, threads } = bench;
  const { addon } = peers;
  if (addon === undefined || threads === 0) return [];
  const half = Math.ceil(bytes / 2);
  const places = copiesPastCache(bench, half);
  const from = new Uint8Array(peers.operand('x', half * places), 0, half * places).fill(1);
  const to = new Uint8Array(peers.operand('out', half), 0, half).fill(0);
  return [{ name: 'memcpy', run: (first, reps) => addon.copy(to, from, half, first, reps, threads) }];
}
