/** The plain double-precision reference of conv2d. */

export interface ConvCase {
  batch?: number;
  height: number;
  width: number;
  c: number;
  n: number;
  kernel: number;
  stride?: number;
  upscale?: 1 | 2;
  padding?: readonly [number, number];
}

/** x NHWC, w [n, ky, kx, c]; @returns NHWC */
export function convolve(x: ArrayLike<number>, w: ArrayLike<number>, how: ConvCase): Float64Array {
  const { batch = 1, height, width, c, n, kernel, stride = 1, upscale = 1 } = how;
  const half = (kernel - 1) / 2;
  const [before, after] = how.padding ?? [half, half];
  const side = (size: number) => Math.floor((size * upscale + before + after - kernel) / stride) + 1;
  const [rows, columns] = [side(height), side(width)];
  const out = new Float64Array(batch * rows * columns * n);
  let at = 0;
  for (let b = 0; b < batch; b++)
    for (let oy = 0; oy < rows; oy++)
      for (let ox = 0; ox < columns; ox++)
        for (let o = 0; o < n; o++, at++)
          for (let ky = 0; ky < kernel; ky++)
            for (let kx = 0; kx < kernel; kx++) {
              const y = Math.floor((oy * stride + ky - before) / upscale);
              const z = Math.floor((ox * stride + kx - before) / upscale);
              if (y < 0 || z < 0 || y >= height || z >= width) continue;
              const seen = ((b * height + y) * width + z) * c;
              const tap = ((o * kernel + ky) * kernel + kx) * c;
              for (let i = 0; i < c; i++) out[at]! += x[seen + i]! * w[tap + i]!;
            }
  return out;
}
