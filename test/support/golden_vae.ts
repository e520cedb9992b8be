/** Runs one direction of an autoencoder and keeps every stage. */
import type { VaeStage } from '../../src/diffusion/vae.js';
import type { Ops } from '../../src/runtime/ops.js';
import type { Tensor } from '../../src/runtime/tensor.js';
import type { GoldenTensor } from './golden.js';

/** Rows of pixels as NCHW on the host. */
async function read(ops: Ops, pixels: Tensor, size: VaeStage['size']): Promise<Float32Array> {
  using image = ops.unpatchify(pixels, { ...size, channels: pixels.cols, patch: 1 });
  return await image.read();
}

/** @param image NCHW */
export async function runTower(
  ops: Ops,
  image: GoldenTensor,
  tower: (rows: Tensor, size: VaeStage['size']) => Generator<VaeStage, Tensor>,
): Promise<{ stages: Map<string, Float32Array>; out: Float32Array; channels: number }> {
  const [batch, channels, height, width] = image.shape as [number, number, number, number];
  return await ops.device.run(async () => {
    using nchw = ops.device.from(image.data as Float32Array, [batch, channels, height, width]);
    using rows = ops.patchify(nchw, { batch, channels, height, width, patch: 1 });
    const stages = new Map<string, Float32Array>();
    const running = tower(rows, { batch, height, width });
    for (let last = { batch, height, width }; ;) {
      const { done, value } = running.next();
      if (done) {
        using out = value;
        return { stages, out: await read(ops, out, last), channels: out.cols };
      }
      last = value.size as typeof last;
      stages.set(value.name, await read(ops, value.image, value.size));
    }
  });
}
