/** The scorer is right on true renders, clean and spoiled, and wrong attributes never pass. */
import { describe, expect, test } from 'vitest';
import { blankPicture, type Picture, type Rgb } from '../../src/image/index.js';
import { judgePicture, readPicture, type Palette, type Scene, type SceneObject } from './scorer.js';
import { CENTRES, RADII, SHAPES, WINDOW, shapeMask } from './shapes.js';

const PALETTE: Palette = {
  red: [220, 40, 40],
  green: [40, 165, 60],
  blue: [40, 80, 220],
  yellow: [245, 215, 40],
  purple: [150, 55, 190],
  orange: [250, 135, 20],
  white: [245, 245, 245],
  black: [20, 20, 20],
  grey: [180, 180, 180],
};
const COLOURS = Object.keys(PALETTE).filter((name) => name !== 'grey');
const BACKGROUNDS = Object.keys(PALETTE);
const SIZES = RADII.map(([size]) => size);

function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
type Random = () => number;
const pick = <T>(random: Random, list: readonly T[]): T => list[Math.floor(random() * list.length)]!;

/** Up to 10 lighter or darker, and up to 3 in each channel, as the training pictures are. */
function shade(name: string, random: Random): Rgb {
  const drift = (random() * 2 - 1) * 10;
  return PALETTE[name]!.map((v) =>
    Math.min(255, Math.max(0, v + drift + (random() * 2 - 1) * 3)),
  ) as unknown as Rgb;
}

function render(scene: Scene, random: Random): Picture {
  const picture = blankPicture(64, 64, shade(scene.background, random));
  for (const { colour, shape, size, x, y } of scene.objects) {
    const ink = shade(colour, random);
    for (const [i, m] of shapeMask(shape, size).entries()) {
      const at = ((y - 16 + Math.floor(i / WINDOW)) * 64 + x - 16 + (i % WINDOW)) * 3;
      for (let c = 0; c < 3; c++) picture.rgb[at + c]! += m * (ink[c]! - picture.rgb[at + c]!);
    }
  }
  return picture;
}

/** A 3 × 3 blur and normal-like noise: worse than what a good autoencoder does. */
function spoil({ width, height, rgb }: Picture, random: Random, noise: number): Picture {
  const at = (x: number, y: number, c: number) =>
    rgb[(Math.min(63, Math.max(0, y)) * width + Math.min(63, Math.max(0, x))) * 3 + c]!;
  const out = new Uint8Array(rgb.length);
  for (let i = 0; i < rgb.length; i++) {
    const [c, x, y] = [i % 3, Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
    let sum = 0;
    for (const dy of [-1, 0, 1])
      for (const dx of [-1, 0, 1])
        sum += (at(x + dx, y + dy, c) * (2 - Math.abs(dx)) * (2 - Math.abs(dy))) / 16;
    const grain = (random() + random() + random() - 1.5) * 2 * noise; // standard deviation = noise
    out[i] = Math.min(255, Math.max(0, sum + grain));
  }
  return { width, height, rgb: out };
}

const look = (random: Random, background: string) => ({
  colour: pick(
    random,
    COLOURS.filter((name) => name !== background),
  ),
  shape: pick(random, SHAPES),
  size: pick(random, SIZES),
});

function randomPair(random: Random): Scene {
  const background = pick(random, BACKGROUNDS);
  const places = random() < 0.5 ? [[16, 32], [48, 32]] : [[32, 16], [32, 48]]; // prettier-ignore
  return { background, objects: places.map(([x, y]) => ({ ...look(random, background), x: x!, y: y! })) };
}

/** Every background, colour, shape, size and place, thinned out evenly. */
function singles(every: number): Scene[] {
  const scenes: Scene[] = [];
  for (const background of BACKGROUNDS)
    for (const colour of COLOURS.filter((name) => name !== background))
      for (const shape of SHAPES)
        for (const size of SIZES)
          for (const x of CENTRES)
            for (const y of CENTRES) scenes.push({ background, objects: [{ colour, shape, size, x, y }] });
  return scenes.filter((_, i) => i % every === 0);
}

function failures(scenes: readonly Scene[], draw: (scene: Scene) => Picture): string[] {
  return scenes
    .filter((scene) => !judgePicture(draw(scene), scene, PALETTE).correct)
    .map((scene) => JSON.stringify(scene));
}

const EVERY = Number(process.env['SCORER_EVERY'] ?? 37);

describe('true renders', () => {
  test('one object, each attribute in each combination with most others', () => {
    const random = generator(1);
    const scenes = singles(EVERY);
    expect(scenes.length).toBeGreaterThan(150);
    expect(failures(scenes, (scene) => render(scene, random))).toEqual([]);
  });

  test('two objects', () => {
    const random = generator(2);
    const scenes = Array.from({ length: 200 }, () => randomPair(random));
    expect(failures(scenes, (scene) => render(scene, random))).toEqual([]);
  });

  test('blurred, with noise of 8 steps: at least 99 %', () => {
    const random = generator(3);
    const scenes = [...singles(101), ...Array.from({ length: 130 }, () => randomPair(random))];
    const wrong = failures(scenes, (scene) => spoil(render(scene, random), random, 8));
    expect(wrong.length, wrong.join('\n')).toBeLessThan(scenes.length * 0.01);
  });
});

describe('one wrong attribute never passes', () => {
  const random = generator(4);
  const scenes = [...singles(211), ...Array.from({ length: 40 }, () => randomPair(random))];
  const other = <T>(list: readonly T[], value: T): T =>
    pick(
      random,
      list.filter((entry) => entry !== value),
    );
  const changeOne = (scene: Scene, change: (object: SceneObject) => SceneObject): Scene => {
    const which = Math.floor(random() * scene.objects.length);
    return { ...scene, objects: scene.objects.map((object, i) => (i === which ? change(object) : object)) };
  };
  const asked: Readonly<Record<string, (scene: Scene) => Scene>> = {
    colour: (scene) => changeOne(scene, (o) => ({ ...o, colour: other(COLOURS, o.colour) })),
    shape: (scene) => changeOne(scene, (o) => ({ ...o, shape: other(SHAPES, o.shape) })),
    size: (scene) => changeOne(scene, (o) => ({ ...o, size: other(SIZES, o.size) })),
    position: (scene) => changeOne(scene, (o) => ({ ...o, x: other(CENTRES, o.x) })),
  };

  test.each(Object.keys(asked))('%s, and only that is reported', (attribute) => {
    for (const scene of scenes) {
      const wanted = asked[attribute]!(scene);
      const judgement = judgePicture(render(scene, random), wanted, PALETTE);
      const wrong = judgement.objects.flatMap((object) =>
        Object.entries(object).flatMap(([name, right]) => (right ? [] : [name])),
      );
      expect(judgement.correct, JSON.stringify({ scene, wanted })).toBe(false);
      // a pair whose one place is asked for elsewhere may be paired crosswise
      if (scene.objects.length === 1 || attribute !== 'position')
        expect(wrong, JSON.stringify({ scene, wanted })).toEqual([attribute]);
      expect(judgement.background && judgement.nothingElse).toBe(true);
    }
  });

  test('background', () => {
    for (const scene of scenes) {
      const wanted = { ...scene, background: other(BACKGROUNDS, scene.background) };
      const judgement = judgePicture(render(scene, random), wanted, PALETTE);
      expect(judgement).toMatchObject({ correct: false, background: false, nothingElse: true });
    }
  });

  test('a missing object', () => {
    for (const scene of scenes.filter(({ objects }) => objects.length === 2)) {
      const half = { ...scene, objects: scene.objects.slice(0, 1) };
      const judgement = judgePicture(render(half, random), scene, PALETTE);
      expect(judgement).toMatchObject({ correct: false, nothingElse: true });
      expect(Object.values(judgement.objects[1]!)).toEqual([false, false, false, false]);
    }
  });

  test('one object too many', () => {
    for (const scene of scenes.filter(({ objects }) => objects.length === 2)) {
      const half = { ...scene, objects: scene.objects.slice(0, 1) };
      const judgement = judgePicture(render(scene, random), half, PALETTE);
      expect(judgement, JSON.stringify(scene)).toMatchObject({ correct: false, nothingElse: false });
      expect(Object.values(judgement.objects[0]!)).toEqual([true, true, true, true]);
    }
  });

  test('colours of two objects exchanged', () => {
    for (const scene of scenes.filter(({ objects: [a, b] }) => b && a!.colour !== b.colour)) {
      const [a, b] = scene.objects as [SceneObject, SceneObject];
      const wanted = {
        ...scene,
        objects: [
          { ...a, colour: b.colour },
          { ...b, colour: a.colour },
        ],
      };
      expect(judgePicture(render(scene, random), wanted, PALETTE).correct).toBe(false);
    }
  });
});

describe('what is no object', () => {
  const random = generator(5);
  const scene: Scene = {
    background: 'white',
    objects: [{ colour: 'red', shape: 'circle', size: 'big', x: 32, y: 32 }],
  };

  test('a blot of 7 × 7 beside the object is something else', () => {
    const picture = render(scene, random);
    for (let y = 4; y < 11; y++)
      for (let x = 4; x < 11; x++) picture.rgb.set([40, 80, 220], (y * 64 + x) * 3);
    const judgement = judgePicture(picture, scene, PALETTE);
    expect(judgement).toMatchObject({ correct: false, nothingElse: false, background: true });
  });

  test('an object between two places is at neither', () => {
    const picture = blankPicture(64, 64, PALETTE['white']!);
    for (let i = 0; i < 64 * 64; i++)
      if (Math.hypot((i % 64) - 23.5, (i >> 6) - 31.5) < 14) picture.rgb.set(PALETTE['red']!, i * 3);
    for (const x of [16, 32]) {
      const wanted: Scene = { ...scene, objects: [{ ...scene.objects[0]!, x }] };
      expect(judgePicture(picture, wanted, PALETTE).correct).toBe(false);
    }
  });

  test('plain and striped pictures hold nothing right', () => {
    expect(readPicture(blankPicture(64, 64, [245, 245, 245]), PALETTE)).toEqual({
      background: 'white',
      objects: [],
      rest: false,
    });
    const stripes = blankPicture(64, 64, [245, 245, 245]);
    for (let i = 0; i < 64 * 64; i++) if (i & 8) stripes.rgb.set([20, 20, 20], i * 3);
    expect(judgePicture(stripes, scene, PALETTE)).toMatchObject({ correct: false, nothingElse: false });
    expect(() => readPicture(blankPicture(32, 64, [0, 0, 0]), PALETTE)).toThrow('64 × 64');
  });
});
