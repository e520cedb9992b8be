/**
 * Reads a picture of the small model's world (models/README.md) and says what is on it, then compares that with what
 * was asked for. The reading knows nothing of the request: shapes are fitted one after the other, each the shape,
 * size, place and colour that explain most of what differs from the background, until nothing clear is left.
 */
import type { Picture, Rgb } from '../../src/image/index.js';
import { CENTRES, RADII, SHAPES, WINDOW, shapeMask, type Shape, type Size } from './shapes.js';

export type Palette = Readonly<Record<string, Rgb>>;

export interface SceneObject {
  readonly colour: string;
  readonly shape: Shape;
  readonly size: Size;
  /** centre, pixels; 16, 32 or 48 */
  readonly x: number;
  readonly y: number;
}

export interface Scene {
  readonly background: string;
  readonly objects: readonly SceneObject[];
}

export interface SceneReading extends Scene {
  /** something is there that is neither background nor one of the objects */
  readonly rest: boolean;
}

export interface Judgement {
  /** everything below */
  readonly correct: boolean;
  readonly background: boolean;
  /** one for each object asked for, in that order */
  readonly objects: readonly ObjectJudgement[];
  /** neither more objects than asked for nor anything else */
  readonly nothingElse: boolean;
}
export type ObjectJudgement = Readonly<Record<'colour' | 'shape' | 'size' | 'position', boolean>>;

const SIDE = 64;
/** one more than any scene has, so that a third object is told from dirt */
const MAX_OBJECTS = 3;
/** how far off its place a shape may be drawn, pixels */
const WANDER = 3;
/** largest distance to a colour of the palette, RGB; white and grey are 113 apart, orange and yellow 82 */
const MAX_COLOUR_ERROR = 55;
/** smallest distance to the background at which something is seen: shades take orange and yellow as near as 58 */
const MIN_CONTRAST = 35;
/** fewer are no object: the smallest has 106 */
const MIN_VISIBLE = 40;
/** unevenness of the background that is not held against a shape, at most, of 255 */
const MAX_NOISE = 15;
/** share of what is in a window that a shape must explain to be that shape */
const MIN_FIT = 0.8;
/** pixels of something unexplained, one pixel taken off its edge */
const MAX_REST = 5;

/** Compares with what was asked for. @throws Error if the picture is not 64 × 64 */
export function judgePicture(picture: Picture, expected: Scene, palette: Palette): Judgement {
  const found = readPicture(picture, palette);
  const pairs = pairUp(expected.objects, found.objects);
  const objects = expected.objects.map((wanted, i): ObjectJudgement => {
    const got = pairs[i];
    return {
      colour: got?.colour === wanted.colour,
      shape: got?.shape === wanted.shape,
      size: got?.size === wanted.size,
      position: got?.x === wanted.x && got.y === wanted.y,
    };
  });
  const background = found.background === expected.background;
  const nothingElse = found.objects.length <= expected.objects.length && !found.rest;
  const right = objects.every((object) => Object.values(object).every((value) => value));
  return { correct: background && nothingElse && right, background, objects, nothingElse };
}

/** The found object nearest to each wanted one, none twice, the sum of the distances the smallest. */
function pairUp(
  wanted: readonly SceneObject[],
  found: readonly SceneObject[],
): readonly (SceneObject | undefined)[] {
  let best: { readonly cost: number; readonly pairs: (SceneObject | undefined)[] } = {
    cost: Infinity,
    pairs: [],
  };
  const search = (pairs: (SceneObject | undefined)[], cost: number): void => {
    const next = wanted[pairs.length];
    if (!next) {
      if (cost < best.cost) best = { cost, pairs };
      return;
    }
    for (const object of [...found, undefined]) {
      if (object && pairs.includes(object)) continue;
      search([...pairs, object], cost + (object ? Math.hypot(object.x - next.x, object.y - next.y) : 200));
    }
  };
  search([], 0);
  return best.pairs;
}

/** What is on the picture, whatever was asked for; objects in the order of how much they stand out. */
export function readPicture(picture: Picture, palette: Palette): SceneReading {
  if (picture.width !== SIDE || picture.height !== SIDE)
    throw new Error(`expected a picture of 64 × 64, got ${picture.width} × ${picture.height}`);
  const { ground, noise } = readFrame(picture);
  // what is left to explain: the difference to the background, [64, 64, 3]
  const left = Float32Array.from(picture.rgb, (value, i) => value - ground[i % 3]!);
  const objects: SceneObject[] = [];
  for (let attempt = 0; attempt < MAX_OBJECTS && visiblePixels(left) > MIN_VISIBLE; attempt++) {
    const fit = bestFit(left);
    const colour = inkOf(left, fit);
    if (Math.hypot(...colour) < MIN_CONTRAST || fit.explained < MIN_FIT * energyAround(left, fit, noise))
      break;
    const name = nearestColour(ground.map((value, c) => value + colour[c]!) as unknown as Rgb, palette);
    if (name === undefined) break;
    objects.push({ colour: name, shape: fit.shape, size: fit.size, x: fit.x, y: fit.y });
    subtract(left, fit, colour);
  }
  const background = nearestColour(ground, palette) ?? 'unclear';
  return { background, objects, rest: solidPixels(left) > MAX_REST };
}

function nearestColour(colour: Rgb, palette: Palette): string | undefined {
  const distances = Object.entries(palette).map(
    ([name, [r, g, b]]) => [Math.hypot(colour[0] - r, colour[1] - g, colour[2] - b), name] as const,
  );
  const [distance, name] = distances.reduce((a, b) => (b[0] < a[0] ? b : a));
  return distance <= MAX_COLOUR_ERROR ? name : undefined;
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? 0;

/** The background's colour, and how uneven it is: mean squares in the three channels. No shape reaches that far out. */
function readFrame({ rgb }: Picture): { readonly ground: Rgb; readonly noise: number } {
  const channels: [number[], number[], number[]] = [[], [], []];
  for (let i = 0; i < SIDE * SIDE; i++) {
    const [x, y] = [i % SIDE, Math.floor(i / SIDE)];
    if (Math.min(x, y, SIDE - 1 - x, SIDE - 1 - y) < 2)
      for (const [c, channel] of channels.entries()) channel.push(rgb[i * 3 + c]!);
  }
  const ground = channels.map(median) as unknown as Rgb;
  const squares = channels.flatMap((channel, c) => channel.map((value) => (value - ground[c]!) ** 2));
  const noise = squares.reduce((sum, value) => sum + value, 0) / squares.length;
  return { ground, noise: Math.min(noise, MAX_NOISE ** 2) };
}

/** A shape somewhere in the picture. */
interface Place {
  readonly shape: Shape;
  readonly size: Size;
  /** where it belongs */
  readonly x: number;
  readonly y: number;
  /** where its window starts */
  readonly left: number;
  readonly top: number;
}

interface Fit extends Place {
  /** by how much the squared difference falls when the shape is drawn in its best colour */
  readonly explained: number;
}

/** Every shape at every place; then the best of them moved about; then every shape near there. */
function bestFit(left: Float32Array): Fit {
  const better = (a: Fit, b: Fit): Fit => (b.explained > a.explained ? b : a);
  const fitAll = (x: number, y: number, dx: number, dy: number): Fit[] =>
    SHAPES.flatMap((shape) =>
      RADII.map(([size]) => fitShape(left, { shape, size, x, y, left: x + dx - 16, top: y + dy - 16 })),
    );
  const shifts = (reach: number) => Array.from({ length: 2 * reach + 1 }, (_, i) => i - reach);
  const coarse = CENTRES.flatMap((y) => CENTRES.flatMap((x) => fitAll(x, y, 0, 0))).reduce(better);
  const moved = shifts(WANDER)
    .flatMap((dy) => shifts(WANDER).map((dx) => ({ left: coarse.x + dx - 16, top: coarse.y + dy - 16 })))
    .map((at) => fitShape(left, { ...coarse, ...at }))
    .reduce(better, coarse);
  const { x, y } = moved;
  const [dx, dy] = [moved.left - (x - 16), moved.top - (y - 16)];
  return shifts(1)
    .flatMap((j) => shifts(1).flatMap((i) => fitAll(x, y, dx + i, dy + j)))
    .filter((fit) => Math.abs(fit.left - (x - 16)) <= WANDER && Math.abs(fit.top - (y - 16)) <= WANDER)
    .reduce(better, moved);
}

/** Least squares: of all colours c, Σ|d − m c|² is smallest at c = Σ m d / Σ m², and falls by |Σ m d|² / Σ m². */
function fitShape(left: Float32Array, at: Place): Fit {
  const { columns, rows, weights } = coveredCells(at.shape, at.size);
  let red = 0;
  let green = 0;
  let blue = 0;
  let squares = 0;
  for (let i = 0; i < weights.length; i++) {
    const x = at.left + columns[i]!;
    const y = at.top + rows[i]!;
    const m = weights[i]!;
    if (x < 0 || y < 0 || x >= SIDE || y >= SIDE) continue;
    const pixel = (y * SIDE + x) * 3;
    squares += m * m;
    red += m * left[pixel]!;
    green += m * left[pixel + 1]!;
    blue += m * left[pixel + 2]!;
  }
  return { ...at, explained: squares ? (red * red + green * green + blue * blue) / squares : 0 };
}

/** The part of a mask that is not 0: hundreds of fits for one picture read it. */
interface CoveredCells {
  readonly columns: Uint8Array;
  readonly rows: Uint8Array;
  readonly weights: Float32Array;
}
const covered = new Map<string, CoveredCells>();

function coveredCells(shape: Shape, size: Size): CoveredCells {
  const key = `${shape} ${size}`;
  const known = covered.get(key);
  if (known) return known;
  const cells = [...shapeMask(shape, size).entries()].filter(([, m]) => m > 0);
  const made = {
    columns: Uint8Array.from(cells, ([cell]) => cell % WINDOW),
    rows: Uint8Array.from(cells, ([cell]) => Math.floor(cell / WINDOW)),
    weights: Float32Array.from(cells, ([, m]) => m),
  };
  covered.set(key, made);
  return made;
}

function forWindow(at: { left: number; top: number }, visit: (pixel: number, cell: number) => void): void {
  for (let j = Math.max(0, -at.top); j < Math.min(WINDOW, SIDE - at.top); j++)
    for (let i = Math.max(0, -at.left); i < Math.min(WINDOW, SIDE - at.left); i++)
      visit((j + at.top) * SIDE + i + at.left, j * WINDOW + i);
}

/** The difference to the background inside of the shape, edge left out: the median, so that specks do not count. */
function inkOf(left: Float32Array, fit: Fit): readonly number[] {
  const mask = shapeMask(fit.shape, fit.size);
  const inside: [number[], number[], number[]] = [[], [], []];
  forWindow(fit, (pixel, cell) => {
    if (mask[cell]! > 0.99) for (const [c, channel] of inside.entries()) channel.push(left[pixel * 3 + c]!);
  });
  return inside.map(median);
}

/** Squared differences in its window, less what the unevenness of the background alone would be. */
function energyAround(left: Float32Array, fit: Fit, noise: number): number {
  let sum = 0;
  forWindow(fit, (pixel) => {
    for (let c = 0; c < 3; c++) sum += left[pixel * 3 + c]! ** 2 - noise;
  });
  return sum;
}

function subtract(left: Float32Array, fit: Fit, colour: readonly number[]): void {
  const mask = shapeMask(fit.shape, fit.size);
  forWindow(fit, (pixel, cell) => {
    for (let c = 0; c < 3; c++) left[pixel * 3 + c]! -= mask[cell]! * colour[c]!;
  });
}

const isVisible = (left: Float32Array, pixel: number): boolean =>
  Math.hypot(left[pixel * 3]!, left[pixel * 3 + 1]!, left[pixel * 3 + 2]!) > MIN_CONTRAST;

function visiblePixels(left: Float32Array): number {
  let count = 0;
  for (let pixel = 0; pixel < SIDE * SIDE; pixel++) if (isVisible(left, pixel)) count++;
  return count;
}

/** Visible pixels whose whole 3 × 3 neighbourhood is: soft edges of what is explained are thinner. */
function solidPixels(left: Float32Array): number {
  const seen = Uint8Array.from({ length: SIDE * SIDE }, (_, pixel) => (isVisible(left, pixel) ? 1 : 0));
  let count = 0;
  for (let y = 1; y < SIDE - 1; y++)
    for (let x = 1; x < SIDE - 1; x++) {
      let full = 0;
      for (let j = y - 1; j <= y + 1; j++) for (let i = x - 1; i <= x + 1; i++) full += seen[j * SIDE + i]!;
      if (full === 9) count++;
    }
  return count;
}
