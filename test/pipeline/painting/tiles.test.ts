/** Tiles: every position covered, neighbours overlap, blending gives back what was cut. */
import { expect, test } from 'vitest';
import { Blend, crop, spans } from '../../../src/pipeline/painting/tiles.js';
import { maxAbsDifference, normal } from '../../support/reference.js';

test.each([
  [10, 16, 2, 1],
  [16, 16, 2, 1],
  [17, 16, 2, 2],
  [30, 16, 2, 2],
  [31, 16, 2, 3],
  [1000, 128, 16, 9],
  [2, 1, 0, 2],
])('%i in spans of %i with overlap %i', (size, most, overlap, count) => {
  const list = spans(size, most, overlap);
  expect(list).toHaveLength(count);
  expect(list[0]!.start).toBe(0);
  expect(list.at(-1)!.start + list.at(-1)!.length).toBe(size);
  for (const [i, { start, length }] of list.entries()) {
    expect(length).toBeLessThanOrEqual(most);
    if (i > 0) expect(list[i - 1]!.start + most - start).toBeGreaterThanOrEqual(overlap);
  }
});

test('cut and blended again, a picture is what it was', () => {
  const [channels, height, width] = [3, 23, 37];
  const picture = { data: normal(channels * height * width, 1), channels, height, width };
  const blend = new Blend(channels, height, width, 3);
  for (const rows of spans(height, 10, 3))
    for (const columns of spans(width, 12, 3)) blend.add(crop(picture, rows, columns).data, rows, columns);
  expect(maxAbsDifference(blend.result().data, picture.data)).toBeLessThan(1e-5);
});

test('a single tile is passed on as it is', () => {
  const data = normal(12, 2);
  const blend = new Blend(3, 2, 2, 1);
  blend.add(data, { start: 0, length: 2 }, { start: 0, length: 2 });
  expect(blend.result().data).toBe(data);
});
