/** Runs a case of golden/diffusion/flux_tiny_* and keeps every stage. */
import { fluxBlocks, fluxSinusoids } from '../../src/diffusion/flux.js';
import { SINUSOID_WIDTH, type FluxModel } from '../../src/diffusion/flux_model.js';
import { rotation } from '../../src/diffusion/rotary.js';
import type { Ops } from '../../src/runtime/ops.js';
import { blockValues, shape, values, type Tensors } from './golden_blocks.js';

/** [tokens, 3] of the first sequence */
export function ids(tensors: Tensors, name: string): number[][] {
  const [, tokens, axes] = shape(tensors, name) as [number, number, number];
  const data = values(tensors, name);
  return Array.from({ length: tokens }, (_, i) => [...data.subarray(i * axes, (i + 1) * axes)]);
}

/** Runs one case; every stage as host values, under the golden names. */
export async function runFlux(
  ops: Ops,
  model: FluxModel,
  io: Tensors,
  at: string,
): Promise<Map<string, Float32Array>> {
  const { device } = ops;
  const upload = (name: string) => {
    const [batch, rows, columns] = shape(io, name) as [number, number, number];
    return device.from(values(io, name), [batch * rows, columns]);
  };
  const positions = [...ids(io, `${at}.in.txt_ids`), ...ids(io, `${at}.in.img_ids`)];
  const pe = rotation(positions, model.config.axes_dim, model.config.theta);
  using img = upload(`${at}.in.img`);
  using txt = upload(`${at}.in.txt`);
  using y = device.from(values(io, `${at}.in.y`), shape(io, `${at}.in.y`));
  using table = device.from(pe, [positions.length, model.headDim]);
  const batch = shape(io, `${at}.in.img`)[0]!;
  const sinusoidsOf = (name: string) =>
    device.from(fluxSinusoids([...values(io, `${at}.in.${name}`)]), [batch, SINUSOID_WIDTH]);
  using time = sinusoidsOf('timesteps');
  using guidance = model.guidance_in && sinusoidsOf('guidance');
  const blocks = fluxBlocks(ops, model, { batch, img, txt, y, rotation: table, time, guidance });
  return await blockValues(
    blocks,
    ({ name, img: image, txt: text, joint }) => [
      ...(image ? [[`mid.${name}.img`, image.read()] as const] : []),
      ...(text ? [[`mid.${name}.txt`, text.read()] as const] : []),
      ...(joint ? [[`mid.${name}`, joint.read()] as const] : []),
    ],
    async (result) => {
      using out = result;
      return await out.read();
    },
  );
}
