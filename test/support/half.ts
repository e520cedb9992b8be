/** Numbers of the 16-bit float types, for references. */

export const HALF_DTYPES = ['F16', 'BF16'] as const;
export type Half = (typeof HALF_DTYPES)[number];

/** The nearest number of the type, ties to even; too large ones are infinite. */
export function rounded(value: number, dtype: Half): number {
  if (value === 0 || !Number.isFinite(value)) return value;
  const [digits, least, most] = dtype === 'F16' ? [10, -14, 65504] : [7, -126, 3.3895313892515355e38];
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), least);
  const unit = 2 ** (exponent - digits);
  const down = Math.floor(value / unit);
  const rest = value / unit - down;
  const nearest = (rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down) * unit;
  return Math.abs(nearest) > most ? Math.sign(value) * Infinity : nearest;
}
