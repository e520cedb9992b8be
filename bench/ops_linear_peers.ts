/** Who else multiplies: OpenBLAS and oneDNN on the CPU, PyTorch on a GPU. All on the decoded weights of the case. */
import type { SgemmLibrary } from './blas_peer/peers.js';
import { copiesPastCache, decodeStored, type Workbench } from './ops_bench.js';
import type { LinearCase } from './ops_cases.js';
import { matmulAt, pick, relativeError, type Places } from './ops_reference.js';
import type { Expected, PeerSide, PeerSides } from './torch_ops.js';

export interface LinearPeerInputs {
  /** [m, k] */
  readonly x: Float32Array;
  /** Weights as stored. */
  readonly stored: Uint8Array<ArrayBuffer>;
  readonly bias?: Float32Array | undefined;
  readonly multiply?: Float32Array | undefined;
  readonly add?: Float32Array | undefined;
  readonly expected: Expected;
}

export async function linearPeers(
  bench: Workbench,
  c: LinearCase,
  inputs: LinearPeerInputs,
): Promise<PeerSides> {
  const { n, k, type } = c;
  if (bench.torch) {
    const { x, stored, bias, multiply, add, expected } = inputs;
    const decoded = await decodeStored(bench, stored, type, [n, k]);
    const copies = copiesPastCache(bench, 2 * n * k);
    const files = { x, w: stored, decoded, bias, multiply, add };
    return await bench.torch.prepare({ ...c, copies }, files, expected);
  }
  // On a GPU the CPU's libraries say nothing, and no library has the epilogues.
  const comparable = bench.threads > 0 && c.epilogue === undefined;
  if (bench.peers.addon === undefined || !comparable) return { sides: [], missing: [] };
  if (c.precision === 'int8') return { sides: int8Peers(bench, c, inputs.expected.places), missing: [] };
  const decoded = await decodeStored(bench, inputs.stored, type, [n, k]);
  return { sides: sgemmPeers(bench, c, decoded, inputs), missing: [] };
}

const libraryNames: Record<SgemmLibrary, string> = { openblas: 'OpenBLAS', onednn: 'oneDNN' };

/** They multiply the decoded weights: the same x, as many bytes past the cache. */
function sgemmPeers(
  bench: Workbench,
  { m, n, k }: LinearCase,
  decoded: Float32Array,
  { x, expected }: LinearPeerInputs,
): PeerSide[] {
  const { peers } = bench;
  const addon = peers.addon!;
  const copies = copiesPastCache(bench, 4 * n * k);
  const w = new Float32Array(peers.operand('w', 4 * n * k * copies), 0, n * k * copies);
  for (let i = 0; i < copies; i++) w.set(decoded, i * n * k);
  const ownX = new Float32Array(peers.operand('x', 4 * m * k), 0, m * k);
  ownX.set(x);
  const out = new Float32Array(peers.operand('out', 4 * m * n), 0, m * n);
  return peers.sgemm.map((library) => {
    const name = libraryNames[library];
    const run = (first: number, reps: number) => {
      addon.sgemm(library, { m, n, k, first, reps }, out, ownX, w);
    };
    return {
      side: { name, run },
      check() {
        out.fill(NaN);
        run(0, 1);
        const error = relativeError(pick(out, n, expected.places), expected.values);
        return { side: name, error, bound: expected.bound };
      },
    };
  });
}

/** On random codes: the activations in 7 bits, so that no instruction set saturates a sum of two products. */
function int8Peers(bench: Workbench, { m, n, k }: LinearCase, places: Places): PeerSide[] {
  const { peers, random } = bench;
  if (!peers.sgemm.includes('onednn')) return [];
  const addon = peers.addon!;
  const copies = copiesPastCache(bench, n * k);
  const w = new Int8Array(peers.operand('w', n * k * copies), 0, n * k * copies);
  w.set(new Int8Array(random.bytes(n * k, 256).buffer));
  for (let i = 1; i < copies; i++) w.copyWithin(i * n * k, 0, n * k);
  const x = new Uint8Array(peers.operand('x', m * k), 0, m * k);
  x.set(random.bytes(m * k, 128));
  const out = new Int32Array(peers.operand('out', 4 * m * n), 0, m * n);
  const name = 'oneDNN u8s8';
  const run = (first: number, reps: number) => addon.gemmU8S8S32({ m, n, k, first, reps }, out, x, w);
  const check = () => {
    run(0, 1);
    return { side: name, error: relativeError(pick(out, n, places), matmulAt(x, w, k, places)), bound: 0 };
  };
  return [{ side: { name, run }, check }];
}
