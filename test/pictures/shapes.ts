/**
 * The shapes of the small model's world, from their description in models/README.md and not from the training code:
 * with r the radius and the centre at (0, 0), y down.
 */
export const SHAPES = ['circle', 'square', 'triangle', 'star', 'ring', 'cross'] as const;
export type Shape = (typeof SHAPES)[number];
export const RADII = [
  ['big', 14],
  ['small', 9],
] as const;
export type Size = (typeof RADII)[number][0];
export const CENTRES = [16, 32, 48] as const;
/** pixels a side that one shape may touch */
export const WINDOW = 32;

/** Is (x, y), in radii, inside? */
const INSIDE: Readonly<Record<Shape, (x: number, y: number) => boolean>> = {
  circle: (x, y) => x * x + y * y < 1,
  ring: (x, y) => x * x + y * y < 1 && x * x + y * y > 0.56 ** 2,
  square: (x, y) => Math.max(Math.abs(x), Math.abs(y)) < 0.86,
  // apex at y = -1, base at y = 0.78 and 1.9936 wide
  triangle: (x, y) => y < 0.78 && Math.abs(x) < 0.56 * (y + 1),
  // bars 0.6 thick and 2 long
  cross: (x, y) => Math.max(Math.abs(x), Math.abs(y)) < 1 && Math.min(Math.abs(x), Math.abs(y)) < 0.3,
  star: (x, y) => insidePolygon(STAR, x, y),
};

/** Five points at 1.06, the first one up, and between them notches at 0.42. */
const STAR = Array.from({ length: 10 }, (_, i) => {
  const angle = (i * Math.PI) / 5;
  const radius = i % 2 ? 0.42 : 1.06;
  return [radius * Math.sin(angle), -radius * Math.cos(angle)] as const;
});

/** Even-odd rule: a ray to the right crosses the outline an odd number of times. */
function insidePolygon(corners: readonly (readonly [number, number])[], x: number, y: number): boolean {
  let inside = false;
  for (const [i, [x1, y1]] of corners.entries()) {
    const [x0, y0] = corners.at(i - 1)!;
    if (y0 > y !== y1 > y && x < x0 + ((y - y0) / (y1 - y0)) * (x1 - x0)) inside = !inside;
  }
  return inside;
}

const SAMPLES = 4; // a side, in each pixel
const masks = new Map<string, Float32Array>();

/** [WINDOW, WINDOW] covered share of each pixel, the shape in the middle. */
export function shapeMask(shape: Shape, size: Size): Float32Array {
  const key = `${shape} ${size}`;
  const known = masks.get(key);
  if (known) return known;
  const radius = RADII.find(([name]) => name === size)![1];
  const mask = new Float32Array(WINDOW * WINDOW);
  const steps = WINDOW * SAMPLES;
  const place = (step: number) => ((step + 0.5) / SAMPLES - WINDOW / 2) / radius;
  for (let j = 0; j < steps; j++)
    for (let i = 0; i < steps; i++)
      if (INSIDE[shape](place(i), place(j)))
        mask[Math.floor(j / SAMPLES) * WINDOW + Math.floor(i / SAMPLES)]! += 1 / SAMPLES ** 2;
  masks.set(key, mask);
  return mask;
}
