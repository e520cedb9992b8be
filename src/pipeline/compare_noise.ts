/** How different two pictures are that differ in nothing but the seed: what any other difference is measured by. */
import { setImmediate } from 'node:timers/promises';
import { pictureDistance, type Picture, type PictureDistance } from '../image/index.js';

export interface SeedNoise {
  /** of each measure by itself, over all pairs */
  readonly median: PictureDistance;
  readonly pairs: number;
}

/**
 * Neighbouring seeds of each column: as many pairs as pictures, where all pairs would be their square.
 * @param pictures [column][seed] of one prompt
 * @returns null without two seeds
 */
export async function seedNoise(pictures: readonly (readonly Picture[])[]): Promise<SeedNoise | null> {
  const distances: PictureDistance[] = [];
  for (const ofColumn of pictures)
    for (const [i, picture] of ofColumn.entries()) {
      if (i === 0) continue;
      distances.push(pictureDistance(picture, ofColumn[i - 1]!));
      await setImmediate(); // a distance of large pictures holds the thread for some 100 ms
    }
  if (distances.length === 0) return null;
  const median = (of: keyof PictureDistance) => middle(distances.map((distance) => distance[of]));
  return {
    median: { mae: median('mae'), psnr: median('psnr'), ssim: median('ssim') },
    pairs: distances.length,
  };
}

function middle(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  if (sorted.length % 2 === 1) return sorted[half]!;
  const [low, high] = [sorted[half - 1]!, sorted[half]!];
  return low === high ? low : (low + high) / 2; // two infinite PSNRs
}
