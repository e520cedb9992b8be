/** Sinusoids of a timestep (arXiv:1706.03762 §3.5): cosines first, then sines. On the host, in double precision. */

/**
 * @param values    one timestep per sequence, 0 to 1000
 * @param dimension columns, even
 * @returns [values, dimension]: cos(v · f_i), sin(v · f_i) with f_i = 10000^(−i / (dimension / 2))
 */
export function sinusoids(values: readonly number[], dimension: number): Float32Array {
  const half = dimension / 2;
  const out = new Float32Array(values.length * dimension);
  for (const [row, value] of values.entries())
    for (let i = 0; i < half; i++) {
      const angle = value * Math.exp((-Math.log(10000) * i) / half);
      out[row * dimension + i] = Math.cos(angle);
      out[row * dimension + half + i] = Math.sin(angle);
    }
  return out;
}
