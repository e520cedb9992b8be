/**
 * attention at the networks' shapes. On a GPU against each of PyTorch's SDPA backends; on the CPU no library has it as
 * one call, so it is read beside linear's GFLOP/s.
 */
import { native, type NativeAttention, type NativeTensor } from '../bindings/native.js';
import {
  attentionRow,
  eps,
  pick,
  relativeError,
  rounded,
  spread,
  t5Bucket,
  t5Buckets,
  t5MaxDistance,
  type AttentionInputs,
} from './ops_reference.js';
import {
  activationType,
  copiesPastCache,
  ourSide,
  poisoned,
  randomActivations,
  readValues,
  uploadCopies,
  type Activations,
  type Check,
  type PreparedCase,
  type Workbench,
} from './ops_bench.js';
import type { AttentionCase } from './ops_cases.js';
import type { Side } from './ops_time.js';
import type { Expected, PeerSides } from './torch_ops.js';

export async function prepareAttention(bench: Workbench, c: AttentionCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { heads, headDim, tokens, mask } = c;
  const type = activationType(c.precision);
  const [rows, cols] = [tokens, heads * headDim];
  const stored: Activations[] = [];
  for (let i = 0; i < 3; i++) stored.push(await randomActivations(bench, type, [rows, cols]));
  const [q, k, v] = stored as [Activations, Activations, Activations];
  const copies = copiesPastCache(bench, 3 * q.stored.byteLength);
  const uploaded = stored.map((each) => uploadCopies(device, each.stored, { type, rows, cols, copies }));
  const table = mask === 't5' ? random.normal(t5Buckets * heads) : undefined;
  const tableTensor = table && device.from(table, [t5Buckets, heads]);
  const out = poisoned(device, [rows, cols], type);
  // T5 folds 1/sqrt(headDim) into its weights.
  const scale = c.network === 't5' ? 1 : 1 / Math.sqrt(headDim);
  const bias = tableTensor && { table: tableTensor.native, bidirectional: true, maxDistance: t5MaxDistance };
  const causal = mask === 'causal';
  const how: NativeAttention = { batch: 1, heads, scale, causal, bias };
  const side = (options: NativeAttention): Side =>
    ourSide(bench, copies, (i) => {
      const [qi, ki, vi] = uploaded.map((each) => each.views[i % copies]!.native) as Triple;
      native.attention(device.native, out.native, qi, ki, vi, options);
    });
  const ours = side(how);
  const inputs = { tokens, heads, headDim, scale, causal, q: q.values, k: k.values, v: v.values };
  const expected = sampledAttention({ ...inputs, biasTable: table }, c);
  const found = await torchSides(bench, c, { inputs, table, copies, expected });
  const pairs = causal ? (tokens * (tokens + 1)) / 2 : tokens * tokens;
  return {
    sides: [ours, ...found.sides.map((peer) => peer.side)],
    missing: found.missing,
    flops: 4 * pairs * heads * headDim,
    bytes: 4 * q.stored.byteLength,
    async check() {
      await ours.run(0, 1);
      const values = await readValues(device, out);
      const got = pick(values, cols, expected.places);
      const error = values.some(Number.isNaN) ? NaN : relativeError(got, expected.values);
      const checks: Check[] = [{ side: ours.name, error, bound: expected.bound }];
      for (const peer of found.sides) checks.push(await peer.check());
      return checks;
    },
    dispose: () => [...uploaded, out, tableTensor].forEach((each) => each?.dispose()),
  };
}

type Triple = [NativeTensor, NativeTensor, NativeTensor];

interface SampledAttention extends Expected {
  readonly peerBound: number;
}

/** In 16 bits the bound is twice the error of the plain computation: what meets v is rounded, and the result. */
function sampledAttention(inputs: AttentionInputs, c: AttentionCase): SampledAttention {
  const { heads, headDim, tokens } = inputs;
  const precision = c.precision ?? 'fp32';
  const rows = spread(tokens, 8);
  const sampledHeads = spread(heads, 4);
  const all = (a: AttentionInputs): Float64Array =>
    Float64Array.from(
      rows.flatMap((query) => sampledHeads.flatMap((head) => [...attentionRow(a, head, query)])),
    );
  const values = all(inputs);
  const sums = fp32Bound(c, inputs.scale);
  const plain =
    precision === 'fp32' ? 0 : relativeError(rounded(precision, all({ ...inputs, precision })), values);
  const cols = sampledHeads.flatMap((head) => Array.from({ length: headDim }, (_, i) => head * headDim + i));
  return { places: { rows, cols }, values, bound: 2 * plain + sums, peerBound: peerSlack * (plain + sums) };
}

/** Backends may round the scores and the bias to 16 bits as well, which large scores turn into a relative error. */
const peerSlack = 64;

/**
 * c · eps · (sqrt(tokens) + sqrt(headDim) · |score|), c = 4: the sum over the keys, and the scores' own error,
 * which their exponential turns into a relative one. Scores of normal values are scale · sqrt(headDim) large.
 */
function fp32Bound({ tokens, headDim }: AttentionCase, scale: number): number {
  return 4 * eps * (Math.sqrt(tokens) + Math.sqrt(headDim) * Math.max(1, scale * Math.sqrt(headDim)));
}

interface TorchAttention {
  readonly inputs: AttentionInputs;
  readonly table: Float32Array | undefined;
  readonly copies: number;
  readonly expected: SampledAttention;
}

async function torchSides(
  { torch }: Workbench,
  c: AttentionCase,
  { inputs, table, copies, expected }: TorchAttention,
): Promise<PeerSides> {
  if (!torch) return { sides: [], missing: [] };
  const { heads, headDim, tokens } = c;
  const { q, k, v, scale, causal } = inputs;
  return await torch.prepare(
    { op: 'attention', heads, headDim, tokens, scale, causal, copies, precision: c.precision ?? 'fp32' },
    { q, k, v, bias: table && fullBias(table, heads, tokens) },
    { ...expected, bound: expected.peerBound },
  );
}

/** [heads, tokens, tokens]: what a library without relative positions has to be given. */
function fullBias(table: Float32Array, heads: number, tokens: number): Float32Array {
  const byDistance = Array.from({ length: 2 * tokens - 1 }, (_, i) => t5Bucket(i - tokens + 1));
  const bias = new Float32Array(heads * tokens * tokens);
  for (let head = 0, at = 0; head < heads; head++)
    for (let query = 0; query < tokens; query++)
      for (let key = 0; key < tokens; key++)
        bias[at++] = table[byDistance[key - query + tokens - 1]! * heads + head]!;
  return bias;
}
