/** What a bench prints of its readings: the median, with the 5th and 95th percentiles as its spread. */
export interface Summary {
  readonly median: number;
  readonly p5: number;
  readonly p95: number;
  readonly count: number;
}

/**
 * The value below which `fraction` of the readings lie, interpolated linearly between neighbours.
 * @param fraction  0 to 1
 */
export function quantile(readings: readonly number[], fraction: number): number {
  if (readings.length === 0) throw new RangeError('quantile: expected readings, received none');
  if (!(fraction >= 0 && fraction <= 1))
    throw new RangeError(`quantile: expected 0 to 1, received ${fraction}`);
  if (readings.some(Number.isNaN)) return NaN;
  const sorted = [...readings].sort((a, b) => a - b);
  const place = fraction * (sorted.length - 1);
  const below = Math.floor(place);
  const low = sorted[below]!;
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return low === high ? low : low + (high - low) * (place - below);
}

export function median(readings: readonly number[]): number {
  return quantile(readings, 0.5);
}

export function summarize(readings: readonly number[]): Summary {
  return {
    median: median(readings),
    p5: quantile(readings, 0.05),
    p95: quantile(readings, 0.95),
    count: readings.length,
  };
}
