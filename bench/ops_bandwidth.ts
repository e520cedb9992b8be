/** The ops that memory bounds: norms, decode and embedding, against a copy of as many bytes. */
import { native } from '../bindings/native.js';
import { DTYPES } from '../src/formats/dtype.js';
import { copySides } from './ops_copy.js';
import { prepareGroupNorm, prepareRowNorm } from './ops_norms.js';
import { relativeError } from './ops_reference.js';
import {
  copiesPastCache,
  decodeStored,
  ourSide,
  poisoned,
  storedRows,
  uploadCopies,
  type PreparedCase,
  type Workbench,
} from './ops_bench.js';
import type { DecodeCase, EmbeddingCase, NormCase } from './ops_cases.js';

export const prepareNorm = (bench: Workbench, c: NormCase): Promise<PreparedCase> =>
  c.op === 'group_norm' ? prepareGroupNorm(bench, c) : prepareRowNorm(bench, c);

/** Decoders must agree with the plain ones to the bit. */
const exact = 0;

export async function prepareDecode(bench: Workbench, c: DecodeCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { type, rows, cols } = c;
  const stored = random.stored(type, rows * cols);
  const copies = copiesPastCache(bench, stored.byteLength);
  const weights = uploadCopies(device, stored, { type, rows, cols, copies });
  const out = poisoned(device, [rows, cols]);
  const ours = ourSide(bench, copies, (i) =>
    native.decode(device.native, out.native, weights.views[i % copies]!.native),
  );
  const bytes = stored.byteLength + 4 * rows * cols;
  const { sides, missing } = await copySides(bench, bytes);
  return {
    sides: [ours, ...sides],
    missing,
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
  const ours = ourSide(bench, copies, (i) =>
    native.embedding(device.native, out.native, table.native, idTensors[i % copies]!.native, false),
  );
  const bytes = ids * (rowBytes + 4 * cols);
  const { sides, missing } = await copySides(bench, bytes);
  return {
    sides: [ours, ...sides],
    missing,
    bytes,
    async check() {
      await ours.run(0, 1);
      const rows = storedRows(stored, { type, cols, rows: [...lists[0]!] });
      const expected = await decodeStored(bench, rows, type, [ids, cols]);
      return [{ side: ours.name, error: relativeError(await out.read(), expected), bound: exact }];
    },
    dispose: () => [table, out, ...idTensors].forEach((each) => each.dispose()),
  };
}
