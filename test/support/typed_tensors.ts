/** Activations of any of the three dtypes, to the device and back. */
import type { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';

/** A tensor whose values are `values`, rounded by the device. */
export function stored(
  device: Device,
  values: Float32Array,
  shape: readonly number[],
  dtype: string,
): Tensor {
  if (dtype === 'F32') return device.from(values, shape);
  using exact = device.from(values, shape);
  const tensor = device.empty(dtype, shape);
  new Ops(device, 'fp32').decodeInto(tensor, exact);
  return tensor;
}

export async function readAny(tensor: Tensor): Promise<Float32Array> {
  using values = new Ops(tensor.device, 'fp32').decode(tensor);
  return await values.read();
}
