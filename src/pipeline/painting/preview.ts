/** A small picture of latents under way: averaged down, then decoded as usual, so that it fits every autoencoder. */
import { pictureFromValues, type Picture } from '../../image/index.js';
import type { Ops } from '../../runtime/ops.js';
import type { Autoencoder } from './autoencoder.js';
import type { Planes } from './tiles.js';

/** Latents along the longer side of a preview: 256 pixels with the usual factor of 8. */
const LONGEST = 32;

export async function previewOf(ops: Ops, autoencoder: Autoencoder, latents: Planes): Promise<Picture> {
  const step = Math.ceil(Math.max(latents.width, latents.height) / LONGEST);
  const small = step === 1 ? latents : averaged(latents, step);
  const { data, width, height } = await autoencoder.decode(ops, small, { tile: Infinity });
  return pictureFromValues(data, { width, height });
}

/** Means of step × step latents; what is left at the edges is dropped. */
function averaged({ data, channels, height, width }: Planes, step: number): Planes {
  const rows = Math.max(1, Math.floor(height / step));
  const columns = Math.max(1, Math.floor(width / step));
  const out = new Float32Array(channels * rows * columns);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++) {
        let sum = 0;
        for (let dy = 0; dy < step; dy++)
          for (let dx = 0; dx < step; dx++)
            sum +=
              data[
                (c * height + Math.min(y * step + dy, height - 1)) * width +
                  Math.min(x * step + dx, width - 1)
              ]!;
        out[(c * rows + y) * columns + x] = sum / step ** 2;
      }
  return { data: out, channels, height: rows, width: columns };
}
