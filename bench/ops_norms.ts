/** Norms over rows and over groups of channels, against a copy of as many bytes. */
import { native, type NativeTensor } from '../bindings/native.js';
import { copySides } from './ops_copy.js';
import {
  eps,
  groupNormGroup,
  modulatedRow,
  normRow,
  relativeError,
  roundTo,
  spread,
} from './ops_reference.js';
import {
  activationType,
  copiesPastCache,
  ourSide,
  poisoned,
  readValues,
  uploadCopies,
  type PreparedCase,
  type Workbench,
} from './ops_bench.js';
import type { NormCase } from './ops_cases.js';

const normEps = 1e-6;
/** Of Flux's autoencoder. */
const groups = 32;

interface NormParts {
  readonly bench: Workbench;
  readonly c: NormCase;
  /** F32 vectors [cols], by the op's order. */
  readonly vectors: readonly Float32Array[];
  readonly enqueue: (out: NativeTensor, x: NativeTensor, vectors: readonly NativeTensor[]) => void;
  /** The places to compare: indices into the output, and what should be there. */
  readonly expect: (x: Float32Array) => { at: readonly number[]; values: readonly number[] };
}

export function prepareRowNorm(bench: Workbench, c: NormCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { op, rows, cols } = c;
  const [first, second] = [random.normal(cols), random.normal(cols)];
  const row = (x: Float32Array): Float64Array => {
    if (op === 'layer_norm_modulated') return modulatedRow(x, { shift: first, scale: second }, normEps);
    return normRow(x, first, op === 'layer_norm' ? second : undefined, normEps);
  };
  return prepare({
    bench,
    c,
    vectors: [first, second],
    enqueue: (out, x, [a, b]) => {
      if (op === 'rms_norm') native.rmsNorm(device.native, out, x, a!, normEps);
      else if (op === 'layer_norm') native.layerNorm(device.native, out, x, a!, b!, normEps);
      else native.layerNormModulated(device.native, out, x, a!, b!, normEps);
    },
    expect: (x) => {
      const sampled = spread(rows, 8);
      return {
        at: sampled.flatMap((r) => Array.from({ length: cols }, (_, i) => r * cols + i)),
        values: sampled.flatMap((r) => [...row(x.subarray(r * cols, (r + 1) * cols))]),
      };
    },
  });
}

export function prepareGroupNorm(bench: Workbench, c: NormCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { rows, cols } = c;
  const [weight, bias] = [random.normal(cols), random.normal(cols)];
  const width = cols / groups;
  return prepare({
    bench,
    c,
    vectors: [weight, bias],
    enqueue: (out, x, [w, b]) =>
      native.groupNorm(device.native, out, x, w!, b!, { batch: 1, groups, eps: normEps, activation: 'none' }),
    expect: (x) => {
      const at: number[] = [];
      const values: number[] = [];
      for (const group of spread(groups, 2)) {
        const all = groupNormGroup(x, { cols, group, groups }, { weight, bias }, normEps);
        for (const row of spread(rows, 64))
          for (let i = 0; i < width; i++) {
            at.push(row * cols + group * width + i);
            values.push(all[row * width + i]!);
          }
      }
      return { at, values };
    },
  });
}

async function prepare({ bench, c, vectors, enqueue, expect }: NormParts): Promise<PreparedCase> {
  const { device, random } = bench;
  const { rows, cols, precision = 'fp32' } = c;
  const type = activationType(precision);
  const x = random.normal(rows * cols);
  const copies = copiesPastCache(bench, x.byteLength);
  const inputs = uploadCopies(device, x, { type: 'F32', rows, cols, copies });
  const shape = c.op === 'layer_norm_modulated' ? [1, cols] : [cols];
  const tensors = vectors.map((vector) => device.from(vector, shape));
  const handles = tensors.map((tensor) => tensor.native);
  const out = poisoned(device, [rows, cols], type);
  const ours = ourSide(bench, copies, (i) => enqueue(out.native, inputs.views[i % copies]!.native, handles));
  const bytes = x.byteLength + (type === 'F32' ? 4 : 2) * x.length;
  const { sides, missing } = await copySides(bench, bytes);
  return {
    sides: [ours, ...sides],
    missing,
    bytes,
    async check() {
      await ours.run(0, 1);
      const values = await readValues(device, out);
      const { at, values: exact } = expect(x);
      const stored = exact.map((value) => roundTo(precision, value));
      const error = values.some(Number.isNaN)
        ? NaN
        : relativeError(
            at.map((i) => values[i]!),
            exact,
          );
      return [{ side: ours.name, error, bound: 2 * relativeError(stored, exact) + sumBound(c) }];
    },
    dispose: () => [inputs, out, ...tensors].forEach((each) => each.dispose()),
  };
}

/** c · eps, c = 8, for a row; a group's sums run over all its pixels in partial sums of a few thousand. */
const sumBound = ({ op }: NormCase): number => (op === 'group_norm' ? 64 : 8) * eps;
