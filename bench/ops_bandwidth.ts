/** The ops that memory bounds: norms, decode and embedding, against memcpy of as many bytes. */
import { native } from '../bindings/native.js';
import { DTYPES } from '../src/formats/dtype.js';
import { eps, normRow, relativeError, spread } from './ops_reference.js';
import {
  copiesPastCache,
  decodeStored,
  memcpySides,
  ourSide,
  poisoned,
  uploadCopies,
  type PreparedCase,
  type Workbench,
} from './ops_bench.js';
import type { DecodeCase, EmbeddingCase, NormCase } from './ops_cases.js';

const normEps = 1e-6;

export async function prepareNorm(bench: Workbench, c: NormCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { rows, cols } = c;
  const x = random.normal(rows * cols);
  const weight = random.normal(cols);
  const bias = c.op === 'layer_norm' ? random.normal(cols) : undefined;
  const copies = copiesPastCache(bench, x.byteLength);
  const inputs = uploadCopies(device, x, { type: 'F32', rows, cols, copies });
  const weightTensor = device.from(weight, [cols]);
  const biasTensor = bias && device.from(bias, [cols]);
  const out = poisoned(device, [rows, cols]);
  const ours = ourSide(device, (i) => {
    const from = inputs.views[i % copies]!.native;
    if (biasTensor)
      native.layerNorm(device.native, out.native, from, weightTensor.native, biasTensor.native, normEps);
    else native.rmsNorm(device.native, out.native, from, weightTensor.native, normEps);
  });
  const bytes = 2 * x.byteLength;
  return {
    sides: [ours, ...memcpySides(bench, bytes)],
    bytes,
    async check() {
      await ours.run(0, 1);
      const values = await out.read();
      const errors = spread(rows, 8).map((row) => {
        const range = [row * cols, (row + 1) * cols] as const;
        return relativeError(values.subarray(...range), normRow(x.subarray(...range), weight, bias, normEps));
      });
      const error = values.some(Number.isNaN) ? NaN : Math.max(...errors);
      return [{ side: ours.name, error, bound: 8 * eps }];
    },
    dispose: () => [inputs, weightTensor, biasTensor, out].forEach((each) => each?.dispose()),
  };
}

/** Decoders must agree with the plain ones to the bit. */
const exact = 0;

export async function prepareDecode(bench: Workbench, c: DecodeCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { type, rows, cols } = c;
  const stored = random.stored(type, rows * cols);
  const copies = copiesPastCache(bench, stored.byteLength);
  const weights = uploadCopies(device, stored, { type, rows, cols, copies });
  const out = poisoned(device, [rows, cols]);
  const ours = ourSide(device, (i) =>
    native.decode(device.native, out.native, weights.views[i % copies]!.native),
  );
  const bytes = stored.byteLength + 4 * rows * cols;
  return {
    sides: [ours, ...memcpySides(bench, bytes)],
    bytes,
    async check() {
      await ours.run(0, 1);
      const expected = await decodeStored(bench, stored, type, [rows, cols]);
      return [{ side: ours.name, error: relativeError(await out.read(), expected), bound: exact }];
    },
    dispose: () => [weights, out].forEach((each) => each.dispose()),
  };
}

export async function prepareEmbedding(bench: Workbench, c: EmbeddingCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { type, ids, vocabulary, cols } = c;
  const stored = random.stored(type, vocabulary * cols);
  const table = device.empty(type, [vocabulary, cols]);
  device.native.upload(table.native, stored);
  const [weights, blockBytes] = DTYPES[type];
  const rowBytes = (cols / weights) * blockBytes;
  // The rows of all lists together are past the cache.
  const copies = copiesPastCache(bench, ids * rowBytes);
  const lists = Array.from({ length: copies }, () => random.ids(ids, vocabulary));
  const idTensors = lists.map((list) => device.from(list, [ids]));
  const out = poisoned(device, [ids, cols]);
  const ours = ourSide(device, (i) =>
    native.embedding(device.native, out.native, table.native, idTensors[i % copies]!.native, false),
  );
  const bytes = ids * (rowBytes + 4 * cols);
  return {
    sides: [ours, ...memcpySides(bench, bytes)],
    bytes,
    async check() {
      await ours.run(0, 1);
      const rows = new Uint8Array(ids * rowBytes);
      for (const [i, id] of lists[0]!.entries())
        rows.set(stored.subarray(id * rowBytes, (id + 1) * rowBytes), i * rowBytes);
      const expected = await decodeStored(bench, rows, type, [ids, cols]);
      return [{ side: ours.name, error: relativeError(await out.read(), expected), bound: exact }];
    },
    dispose: () => [table, out, ...idTensors].forEach((each) => each.dispose()),
  };
}
