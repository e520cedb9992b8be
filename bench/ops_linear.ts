/** linear against sgemm on the decoded weights, and in int8 against oneDNN's u8 × s8 product. */
import { native } from '../bindings/native.js';
import type { SgemmLibrary } from './blas_peer/peers.js';
import { eps, matmulAt, relativeError, spread } from './ops_reference.js';
import {
  copiesPastCache,
  decodeStored,
  ourSide,
  poisoned,
  uploadCopies,
  type Check,
  type PreparedCase,
  type Workbench,
} from './ops_bench.js';
import type { LinearCase } from './ops_cases.js';
import type { Side } from './ops_time.js';

/** Of int8 on normal values: 1/127 of a block's largest value, as a step, and the same for float weights. */
const int8Bound = 0.012;
/** c · eps · sqrt(k) relative to the result's size, c = 4: FP32 accumulation in any order. */
const fp32Bound = (k: number) => 4 * eps * Math.sqrt(k);

interface PeerSide {
  readonly side: Side;
  check(): Check;
}

export async function prepareLinear(bench: Workbench, c: LinearCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { m, n, k, type, precision } = c;
  const stored = random.stored(type, n * k);
  const decoded = await decodeStored(bench, stored, type, [n, k]);
  const x = random.normal(m * k);
  const copies = copiesPastCache(bench, stored.byteLength);
  const weights = uploadCopies(device, stored, { type, rows: n, cols: k, copies });
  const xt = device.from(x, [m, k]);
  const out = poisoned(device, [m, n]);
  const ours = ourSide(device, (i) =>
    native.linear(
      device.native,
      out.native,
      xt.native,
      weights.views[i % copies]!.native,
      undefined,
      precision,
    ),
  );
  const at = sampledPlaces(c);
  const expected = matmulAt(x, decoded, k, at);
  const check = (values: ArrayLike<number>) => relativeError(pick(values, n, at), expected);
  const peers = precision === 'int8' ? int8Peers(bench, c) : sgemmPeers(bench, c, x, decoded, check);
  return {
    sides: [ours, ...peers.map((peer) => peer.side)],
    flops: 2 * m * n * k,
    bytes: stored.byteLength + 4 * (m * k + m * n),
    async check() {
      await ours.run(0, 1);
      const values = await out.read();
      const error = values.some(Number.isNaN) ? NaN : check(values);
      const bound = precision === 'int8' ? int8Bound : fp32Bound(k);
      return [{ side: ours.name, error, bound }, ...peers.map((peer) => peer.check())];
    },
    dispose() {
      weights.dispose();
      xt.dispose();
      out.dispose();
    },
  };
}

type Places = Parameters<typeof matmulAt>[3];

/** 256 outputs or all. */
const sampledPlaces = ({ m, n }: LinearCase): Places => ({
  rows: spread(m, 8),
  cols: spread(n, Math.ceil(256 / Math.min(m, 8))),
});

function pick(values: ArrayLike<number>, columns: number, { rows, cols }: Places): number[] {
  return rows.flatMap((row) => cols.map((col) => values[row * columns + col]!));
}

const libraryNames: Record<SgemmLibrary, string> = { openblas: 'OpenBLAS', onednn: 'oneDNN' };

/** They multiply the decoded weights: the same x, as many bytes past the cache. */
function sgemmPeers(
  bench: Workbench,
  { m, n, k }: LinearCase,
  x: Float32Array,
  decoded: Float32Array,
  error: (values: ArrayLike<number>) => number,
): PeerSide[] {
  const { peers } = bench;
  const { addon } = peers;
  if (addon === undefined || peers.sgemm.length === 0) return [];
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
        return { side: name, error: error(out), bound: fp32Bound(k) };
      },
    };
  });
}

/** On random codes: the activations in 7 bits, so that no instruction set saturates a sum of two products. */
function int8Peers(bench: Workbench, c: LinearCase): PeerSide[] {
  const { m, n, k } = c;
  const { peers, random } = bench;
  const { addon } = peers;
  if (addon === undefined || !peers.sgemm.includes('onednn')) return [];
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
    const at = sampledPlaces(c);
    run(0, 1);
    return { side: name, error: relativeError(pick(out, n, at), matmulAt(x, w, k, at)), bound: 0 };
  };
  return [{ side: { name, run }, check }];
}
