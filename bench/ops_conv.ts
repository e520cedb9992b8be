/** conv2d at the autoencoder's shapes: images as rows of pixels, weights F32, on the CPU as files have them. On a GPU against PyTorch's. */
import { native, type NativeConv2d } from '../bindings/native.js';
import { eps, pick, relativeError, rounded, roundTo, spread, type Places } from './ops_reference.js';
import {
  activationType,
  copiesPastCache,
  ourSide,
  poisoned,
  randomActivations,
  readValues,
  uploadCopies,
  type Check,
  type PreparedCase,
  type Workbench,
} from './ops_bench.js';
import type { ConvCase } from './ops_cases.js';
import type { PeerSides } from './torch_ops.js';

export async function prepareConv(bench: Workbench, c: ConvCase): Promise<PreparedCase> {
  const { device, random } = bench;
  const { height, width, inputs, outputs, kernel, upscale = 1, precision } = c;
  const type = activationType(precision);
  const pixels = height * width * upscale ** 2;
  const columns = kernel * kernel * inputs;
  const x = await randomActivations(bench, type, [height * width, inputs]);
  const w = random.normal(outputs * columns);
  const copies = copiesPastCache(bench, x.stored.byteLength);
  const images = uploadCopies(device, x.stored, { type, rows: height * width, cols: inputs, copies });
  const weight = device.isGpu
    ? device.from(w, [outputs, columns])
    : device.from(inFileOrder(w, inputs, kernel ** 2), [outputs, inputs, kernel, kernel]);
  const out = poisoned(device, [pixels, outputs], type);
  const pad = (kernel - 1) / 2;
  const how: NativeConv2d = {
    batch: 1,
    height,
    width,
    upscale,
    kernel,
    stride: 1,
    padBefore: pad,
    padAfter: pad,
  };
  const ours = ourSide(bench, copies, (i) =>
    native.conv2d(
      device.native,
      out.native,
      images.views[i % copies]!.native,
      weight.native,
      {},
      how,
      precision,
    ),
  );
  const expected = sampledConv(c, x.values, w);
  const found = await torchSides(bench, c, { x: x.values, w, copies, expected });
  return {
    sides: [ours, ...found.sides.map((peer) => peer.side)],
    missing: found.missing,
    flops: 2 * pixels * outputs * columns,
    bytes: x.stored.byteLength + w.byteLength + (type === 'F32' ? 4 : 2) * pixels * outputs,
    async check() {
      await ours.run(0, 1);
      const values = await readValues(device, out);
      const got = pick(values, outputs, expected.places);
      const error = values.some(Number.isNaN) ? NaN : relativeError(got, expected.values);
      const checks: Check[] = [{ side: ours.name, error, bound: expected.bound }];
      for (const peer of found.sides) checks.push(await peer.check());
      return checks;
    },
    dispose: () => [images, weight, out].forEach((each) => each.dispose()),
  };
}

/** [outputs, taps, inputs] to [outputs, inputs, taps] */
function inFileOrder(w: Float32Array, inputs: number, taps: number): Float32Array {
  return w.map((_, i) => {
    const [channel, tap] = [Math.floor(i / taps) % inputs, i % taps];
    return w[i - (i % (taps * inputs)) + tap * inputs + channel]!;
  });
}

interface SampledConv {
  readonly places: Places;
  readonly values: Float64Array;
  readonly bound: number;
  readonly peerBound: number;
}

function sampledConv(c: ConvCase, x: Float32Array, w: Float32Array): SampledConv {
  const { height, width, inputs, outputs, kernel, upscale = 1, precision } = c;
  const places = { rows: spread(height * width * upscale ** 2, 16), cols: spread(outputs, 16) };
  const values = convAt(c, x, w, places);
  const columns = kernel * kernel * inputs;
  const sums = 4 * eps * Math.sqrt(columns);
  if (precision === 'fp32' || precision === 'int8')
    return { places, values, bound: sums, peerBound: 4 * sums };
  const plain = convAt(c, x, rounded(precision, w), places).map((value) => roundTo(precision, value));
  const error = relativeError(plain, values);
  return { places, values, bound: 2 * error + sums, peerBound: 4 * (error + sums) };
}

/** x [height · width, inputs], w [outputs, ky, kx, inputs]; outside the image are zeros. */
function convAt(
  c: ConvCase,
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  { rows, cols }: Places,
): Float64Array {
  const { height, width, inputs, kernel, upscale = 1 } = c;
  const pad = (kernel - 1) / 2;
  const out = new Float64Array(rows.length * cols.length);
  for (const [i, row] of rows.entries())
    for (const [j, col] of cols.entries()) {
      let sum = 0;
      for (let tap = 0; tap < kernel * kernel; tap++) {
        const y = Math.floor(row / (width * upscale)) + Math.floor(tap / kernel) - pad;
        const across = (row % (width * upscale)) + (tap % kernel) - pad;
        if (y < 0 || across < 0 || y >= height * upscale || across >= width * upscale) continue;
        const from = (Math.floor(y / upscale) * width + Math.floor(across / upscale)) * inputs;
        const weight = (col * kernel * kernel + tap) * inputs;
        for (let channel = 0; channel < inputs; channel++) sum += x[from + channel]! * w[weight + channel]!;
      }
      out[i * cols.length + j] = sum;
    }
  return out;
}

interface TorchConv {
  readonly x: Float32Array;
  readonly w: Float32Array;
  readonly copies: number;
  readonly expected: SampledConv;
}

async function torchSides(
  { torch }: Workbench,
  c: ConvCase,
  { x, w, copies, expected }: TorchConv,
): Promise<PeerSides> {
  if (!torch) return { sides: [], missing: [] };
  const { places, values, peerBound } = expected;
  const { upscale = 1, ...sizes } = c;
  return await torch.prepare({ ...sizes, upscale, copies }, { x, w }, { places, values, bound: peerBound });
}
