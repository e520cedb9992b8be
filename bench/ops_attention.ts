/** attention at the networks' shapes. No library has it as one call, so it is read beside linear's GFLOP/s. */
import { native, type NativeAttention } from '../bindings/native.js';
import { attentionRow, eps, relativeError, spread, t5Buckets, t5MaxDistance } from './ops_reference.js';
import { copiesPastCache, ourSide, poisoned, uploadCopies } from './ops_bench.js';
import type { PreparedCase, Workbench } from './ops_bench.js';
import type { AttentionCase } from './ops_cases.js';

export async function prepareAttention(bench: Workbench, c: AttentionCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { heads, headDim, tokens, mask } = c;
  const shape = { type: 'F32', rows: tokens, cols: heads * headDim } as const;
  const count = shape.rows * shape.cols;
  const copies = copiesPastCache(bench, 12 * count);
  const values = { q: random.normal(count), k: random.normal(count), v: random.normal(count) };
  const [q, k, v] = [values.q, values.k, values.v].map((each) =>
    uploadCopies(device, each, { ...shape, copies }),
  ) as [Q, Q, Q];
  const table = mask === 't5' ? random.normal(t5Buckets * heads) : undefined;
  const tableTensor = table && device.from(table, [t5Buckets, heads]);
  const out = poisoned(device, [tokens, heads * headDim]);
  // T5 folds 1/sqrt(headDim) into its weights.
  const scale = mask === 't5' ? 1 : 1 / Math.sqrt(headDim);
  const how: NativeAttention = {
    batch: 1,
    heads,
    scale,
    causal: mask === 'causal',
    bias: tableTensor && { table: tableTensor.native, bidirectional: true, maxDistance: t5MaxDistance },
  };
  const ours = ourSide(device, (i) => {
    const [qi, ki, vi] = [q, k, v].map((each) => each.views[i % copies]!.native) as [N, N, N];
    native.attention(device.native, out.native, qi, ki, vi, how);
  });
  const pairs = how.causal ? (tokens * (tokens + 1)) / 2 : tokens * tokens;
  return {
    sides: [ours],
    flops: 4 * pairs * heads * headDim,
    bytes: 16 * count,
    async check() {
      await ours.run(0, 1);
      const inputs = {
        ...values,
        tokens,
        heads,
        headDim,
        scale,
        causal: mask === 'causal',
        biasTable: table,
      };
      const error = sampledError(await out.read(), inputs);
      return [{ side: ours.name, error, bound: bound(c, scale) }];
    },
    dispose: () => [q, k, v, out, tableTensor].forEach((each) => each?.dispose()),
  };
}

type Q = ReturnType<typeof uploadCopies>;
type N = Q['views'][number]['native'];

function sampledError(values: Float32Array, inputs: Parameters<typeof attentionRow>[0]): number {
  if (values.some(Number.isNaN)) return NaN;
  const { heads, headDim, tokens } = inputs;
  const got: number[] = [];
  const expected: number[] = [];
  for (const head of spread(heads, 4))
    for (const query of spread(tokens, 8)) {
      const at = (query * heads + head) * headDim;
      got.push(...values.subarray(at, at + headDim));
      expected.push(...attentionRow(inputs, head, query));
    }
  return relativeError(got, expected);
}

/**
 * c · eps · (sqrt(tokens) + sqrt(headDim) · |score|), c = 4: the sum over the keys, and the scores' own error,
 * which their exponential turns into a relative one. Scores of normal values are scale · sqrt(headDim) large.
 */
function bound({ tokens, headDim }: AttentionCase, scale: number): number {
  return 4 * eps * (Math.sqrt(tokens) + Math.sqrt(headDim) * Math.max(1, scale * Math.sqrt(headDim)));
}
