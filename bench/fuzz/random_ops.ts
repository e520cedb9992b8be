/** Calls of the ops of image models with shapes and options that fit, nearly fit, or are absurd. Internal, yet no crash. */
import type { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import { below, pick, type Random } from './mutate.js';

type Call = (ops: Ops, random: Random) => Tensor | void;

/** Elements of a tensor: more would be slower, not different. */
const kMost = 1 << 14;
const kOdd = [0, 1, 2, 3, 5, 7, 16, 17, 63, 2 ** 20, 2 ** 31, 2 ** 31 + 1, 2 ** 53, -1, 0.5, NaN];

/** Mostly `right`, now and then another number. */
const near = (right: number, random: Random): number => (random() < 0.1 ? pick(kOdd, random) : right);

function tensor({ device }: Pick<Ops, 'device'>, shape: readonly number[], random: Random): Tensor {
  const wanted = shape.map((n) => near(n, random));
  const elements = wanted.reduce((a, b) => a * b, 1);
  if (!(elements >= 0 && elements <= kMost && Number.isInteger(elements)))
    return tensor({ device }, shape, random);
  const values = Float32Array.from({ length: elements }, () => random() * 2 - 1);
  return device.from(values, wanted);
}

const size = (random: Random): number => pick([1, 2, 3, 4, 5, 8, 9], random);

const conv2d: Call = (ops, random) => {
  const [batch, height, width, inputs, outputs] = Array.from({ length: 5 }, () => size(random)) as Five;
  const kernel = pick([1, 3, 3, 5], random);
  const x = tensor(ops, [batch * height * width, inputs], random);
  const weight = tensor(ops, [outputs, inputs * kernel * kernel], random);
  const bias = random() < 0.5 ? tensor(ops, [outputs], random) : undefined;
  const stride = near(pick([1, 1, 2], random), random);
  const upscale = near(pick([1, 1, 2], random), random) as 1 | 2;
  const padding = [near(pick([0, 1], random), random), near(1, random)] as const;
  const side = (n: number): number =>
    Math.floor((n * upscale + padding[0] + padding[1] - kernel) / stride) + 1;
  const add = random() < 0.3 ? tensor(ops, [batch * side(height) * side(width), outputs], random) : undefined;
  const how = { batch: near(batch, random), height: near(height, random), width: near(width, random) };
  return ops.conv2d(
    x,
    { weight, bias, kernel: near(kernel, random) },
    { ...how, stride, upscale, padding, ...(add && { add }) },
  );
};
type Five = [number, number, number, number, number];

const convWeight: Call = (ops, random) => {
  const [rows, inputs] = [size(random), size(random)];
  const taps = pick([1, 9, 25], random);
  const out = ops.device.empty(pick(['F32', 'F32', 'F16'], random), [rows, inputs * taps]);
  ops.convWeight(out, tensor(ops, [rows, inputs * taps], random), near(taps, random));
  return out;
};

const groupNorm: Call = (ops, random) => {
  const groups = size(random);
  const [batch, pixels, channels] = [size(random), size(random), groups * size(random)];
  const norm = { weight: tensor(ops, [channels], random), bias: tensor(ops, [channels], random) };
  const how = { batch: near(batch, random), groups: near(groups, random), eps: 1e-6 };
  return ops.groupNorm(tensor(ops, [batch * pixels, channels], random), norm, how);
};

const headNormRope: Call = (ops, random) => {
  const [batch, heads, tokens] = [size(random), size(random), size(random)];
  const [headDim, offset] = [2 * size(random), size(random)];
  const longer = tokens + offset + below(random, 3);
  const out = tensor(ops, [batch * longer, heads * headDim], random);
  const parts = {
    ...(random() < 0.7 && { weight: tensor(ops, [headDim], random) }),
    ...(random() < 0.7 && { rotation: tensor(ops, [longer, headDim], random) }),
  };
  const how = {
    batch: near(batch, random),
    heads: near(heads, random),
    offset: near(offset, random),
    eps: 1e-6,
  };
  ops.headNormRope(out, tensor(ops, [batch * tokens, heads * headDim], random), parts, how);
  return out;
};

const copyTokens: Call = (ops, random) => {
  const [batch, tokens, columns] = [size(random), size(random), size(random)];
  const [outOffset, xOffset] = [below(random, 4), below(random, 4)];
  const out = tensor(ops, [batch * (tokens + outOffset), columns], random);
  const x = tensor(ops, [batch * (tokens + xOffset), columns], random);
  const how = { outOffset: near(outOffset, random), xOffset: near(xOffset, random) };
  ops.copyTokens(out, x, { batch: near(batch, random), tokens: near(tokens, random), ...how });
  return out;
};

const patches: Call = (ops, random) => {
  const [batch, channels, patch] = [size(random), size(random), pick([1, 2, 3], random)];
  const [height, width] = [patch * size(random), patch * size(random)];
  const options = {
    ...{ batch: near(batch, random), channels: near(channels, random), height: near(height, random) },
    ...{ width: near(width, random), patch: near(patch, random) },
    ...(random() < 0.5 && { order: 'ph,pw,c' as const }),
  };
  const tokens = (batch * height * width) / patch ** 2;
  if (random() < 0.5) return ops.patchify(tensor(ops, [batch, channels, height, width], random), options);
  return ops.unpatchify(tensor(ops, [tokens, channels * patch ** 2], random), options);
};

const modulated: Call = (ops, random) => {
  const [groups, rows, columns] = [size(random), size(random), size(random)];
  const x = tensor(ops, [groups * rows, columns], random);
  return ops.layerNormModulated(
    x,
    tensor(ops, [groups, columns], random),
    tensor(ops, [groups, columns], random),
    1e-6,
  );
};

const gated: Call = (ops, random) => {
  const [groups, rows, inputs, outputs] = Array.from({ length: 4 }, () => size(random)) as Five;
  const sum = tensor(ops, [groups * rows, outputs], random);
  const w = { weight: tensor(ops, [outputs, inputs], random) };
  ops.linearAdd(sum, tensor(ops, [groups * rows, inputs], random), w, tensor(ops, [groups, outputs], random));
  return sum;
};

const combine: Call = (ops, random) => {
  const [rows, columns] = [size(random), size(random)];
  const terms = Array.from(
    { length: 1 + below(random, 4) },
    () => [random(), tensor(ops, [rows, columns], random)] as const,
  );
  return ops.combine(terms);
};

const kCalls: readonly Call[] = [
  ...[conv2d, conv2d, conv2d, convWeight, groupNorm, headNormRope, copyTokens],
  ...[patches, patches, modulated, gated, combine],
];

/** One call, and what it gives. Runs as a job of the device; may throw whatever the op does. */
export async function callRandomOp(device: Device, random: Random): Promise<void> {
  await device.run(async () => {
    const ops = new Ops(device, pick(['fp32', 'int8'] as const, random));
    const out = pick(kCalls, random)(ops, random);
    if (out) await out.read();
  });
}
