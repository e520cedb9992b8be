/**
 * linear. On the CPU against sgemm on the decoded weights, and in int8 against oneDNN's u8 × s8 product; on a GPU
 * against PyTorch on the decoded weights, and with its own dequantisation of the stored ones.
 */
import { native, type NativeEpilogue } from '../bindings/native.js';
import type { Tensor } from '../src/runtime/tensor.js';
import {
  activationType,
  copiesPastCache,
  decodeStored,
  ourSide,
  poisoned,
  randomActivations,
  readValues,
  storedRows,
  weightCopies,
  type Activations,
  type Check,
  type PreparedCase,
  type Workbench,
} from './ops_bench.js';
import type { LinearCase } from './ops_cases.js';
import { expectedLinear } from './ops_linear_reference.js';
import { pick, relativeError, spread, type Places } from './ops_reference.js';
import { linearPeers } from './ops_linear_peers.js';

export async function prepareLinear(bench: Workbench, c: LinearCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { m, n, k, type, precision } = c;
  const activation = activationType(precision);
  const stored = random.stored(type, n * k);
  const copies = copiesPastCache(bench, stored.byteLength);
  const weights = weightCopies(bench, stored, { type, rows: n, cols: k, copies });
  const x = await randomActivations(bench, activation, [m, k]);
  const inputs = await epilogueInputs(bench, c);
  const xt = device.empty(activation, [m, k]);
  device.native.upload(xt.native, x.stored);
  const { epilogue, out, tensors } = uploadEpilogue(bench, c, inputs);
  const ours = ourSide(bench, copies, (i) =>
    native.linear(
      device.native,
      out.native,
      xt.native,
      weights.views[i % copies]!.native,
      epilogue,
      precision,
    ),
  );
  const places = sampledPlaces(c);
  const w = await decodeStored(bench, storedRows(stored, { type, cols: k, rows: places.cols }), type, [
    places.cols.length,
    k,
  ]);
  const { bias, multiply, add } = inputs;
  const {
    values: exact,
    bound,
    peerBound,
  } = expectedLinear(c, { x: x.values, w, bias, multiply: multiply?.values, add }, places);
  const found = await linearPeers(bench, c, {
    x: x.values,
    stored,
    bias,
    multiply: multiply?.values,
    add,
    expected: { places, values: exact, bound: peerBound },
  });
  const outBytes = out.dtype === 'F32' ? 4 : 2;
  return {
    sides: [ours, ...found.sides.map((peer) => peer.side)],
    missing: found.missing,
    flops: 2 * m * n * k,
    bytes: stored.byteLength + x.stored.byteLength + outBytes * m * n * (c.epilogue === 'residual' ? 2 : 1),
    async check() {
      await ours.run(0, 1);
      const values = await readValues(device, out);
      const error = values.some(Number.isNaN) ? NaN : relativeError(pick(values, n, places), exact);
      const checks: Check[] = [{ side: ours.name, error, bound }];
      for (const peer of found.sides) checks.push(await peer.check());
      return checks;
    },
    dispose: () => [weights, xt, out, ...tensors].forEach((each) => each.dispose()),
  };
}

/** 256 outputs or all. */
const sampledPlaces = ({ m, n }: LinearCase): Places => ({
  rows: spread(m, 8),
  cols: spread(n, Math.ceil(256 / Math.min(m, 8))),
});

interface EpilogueInputs {
  readonly bias?: Float32Array;
  readonly multiply?: Activations;
  readonly add?: Float32Array;
}

async function epilogueInputs(bench: Workbench, c: LinearCase): Promise<EpilogueInputs> {
  const { random } = bench;
  const { m, n, epilogue } = c;
  if (epilogue === 'gated')
    return { multiply: await randomActivations(bench, activationType(c.precision), [m, n]) };
  if (epilogue === 'gelu') return { bias: random.normal(n) };
  if (epilogue === undefined) return {};
  const gate = await randomActivations(bench, 'F32', [1, n]);
  return { bias: random.normal(n), multiply: gate, add: random.normal(m * n) };
}

/** A residual goes to F32, everything else to what matmuls read. */
function uploadEpilogue(
  { device }: Workbench,
  { m, n, epilogue, precision }: LinearCase,
  inputs: EpilogueInputs,
): { epilogue: NativeEpilogue | undefined; out: Tensor; tensors: Tensor[] } {
  const type = activationType(precision);
  if (epilogue === undefined) return { epilogue, out: poisoned(device, [m, n], type), tensors: [] };
  const isResidual = epilogue === 'residual';
  const bias = inputs.bias && device.from(inputs.bias, [n]);
  const multiply = inputs.multiply && device.empty(isResidual ? 'F32' : type, isResidual ? [1, n] : [m, n]);
  if (multiply) device.native.upload(multiply.native, inputs.multiply!.stored);
  const add = inputs.add && device.from(inputs.add, [m, n]);
  return {
    epilogue: {
      bias: bias?.native,
      activation: isResidual ? 'none' : 'gelu_tanh',
      multiply: multiply?.native,
      add: add?.native,
    },
    out: poisoned(device, [m, n], isResidual ? 'F32' : type),
    tensors: [bias, multiply, add].filter((tensor) => tensor !== undefined),
  };
}
