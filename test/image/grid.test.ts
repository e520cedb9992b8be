/** The grid: everything lies inside, pictures unchanged in their places, text where it belongs. */
import { expect, test } from 'vitest';
import { glyphsOf } from '../../src/image/font.js';
import { drawGrid, tile } from '../../src/image/grid.js';
import { blankPicture, enlarge, type Picture, type Rgb } from '../../src/image/picture.js';
import { drawText, lineHeight, textWidth, wrapText, type TextStyle } from '../../src/image/text.js';

const RED: Rgb = [220, 0, 0];
const STYLE: TextStyle = { scale: 1, colour: [0, 0, 0] };
const ASCII = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join('');

/** left, top, right, bottom (exclusive) of the pixels for which `hit` holds; undefined if none */
function extent(picture: Picture, hit: (r: number, g: number, b: number) => boolean) {
  let box: [number, number, number, number] | undefined;
  for (let i = 0; i < picture.width * picture.height; i++) {
    const [r, g, b] = picture.rgb.subarray(i * 3, i * 3 + 3);
    if (!hit(r!, g!, b!)) continue;
    const [x, y] = [i % picture.width, Math.floor(i / picture.width)];
    box ??= [x, y, x + 1, y + 1];
    box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x + 1), Math.max(box[3], y + 1)];
  }
  return box;
}
const isRed = (r: number, g: number, b: number) => r === 220 && g === 0 && b === 0;
const isDark = (r: number, g: number, b: number) => r + g + b < 500;

test('every printable character has its own picture, inside its box at every scale', () => {
  const drawn = new Map<string, string>();
  for (const character of ASCII + '×·–—…∞→≈±≤≥°Δ')
    for (const scale of [0.9, 1, 1.6, 3]) {
      const style = { ...STYLE, scale };
      const [width, height] = [textWidth(character, style), lineHeight(style)];
      const canvas = blankPicture(width + 20, height + 20, [255, 255, 255]);
      drawText(canvas, character, [10, 10], style);
      const box = extent(canvas, (r) => r < 160);
      expect(box === undefined, character).toBe(character === ' ');
      if (!box) continue;
      const inside = box[0] >= 9 && box[1] >= 10 && box[2] <= width + 11 && box[3] <= height + 10;
      expect(inside, `${character} at ${scale}: ${box.join()} in ${width} × ${height}`).toBe(true);
      if (scale !== 3) continue;
      const key = Buffer.from(canvas.rgb).toString('base64');
      expect(drawn.get(key), `${character} looks like another`).toBeUndefined();
      drawn.set(key, character);
    }
});

test('accents fall away, unknown characters are boxes of their own count', () => {
  expect(glyphsOf('é’ü')).toEqual(glyphsOf("e'u"));
  const boxes = glyphsOf('言葉🐦');
  expect(boxes.length).toBe(3);
  expect(new Set(boxes).size).toBe(1);
  expect(textWidth('abc', STYLE)).toBe(textWidth('a', STYLE) + textWidth('b', STYLE) + textWidth('c', STYLE));
});

test('wrapping: nothing is wider, nothing is lost, too much ends with an ellipsis', () => {
  const text =
    'a green triangle left of flan-t5-xxl-encoder-only.Q4_K_M.gguf and then somethingverylongwithoutanybreak';
  for (const width of [60, 100, 180, 400]) {
    const lines = wrapText(text, STYLE, width, 99);
    for (const line of lines) expect(textWidth(line, STYLE), line).toBeLessThanOrEqual(width);
    expect(lines.join('').replaceAll(' ', '')).toBe(text.replaceAll(' ', ''));
    const short = wrapText(text, STYLE, width, 2);
    expect(short.length).toBeLessThanOrEqual(2);
    if (lines.length > 2) expect(short.at(-1)).toMatch(/…$/);
    for (const line of short) expect(textWidth(line, STYLE), line).toBeLessThanOrEqual(width);
  }
  expect(wrapText('one\ntwo', STYLE, 400, 4)).toEqual(['one', 'two']);
  expect(wrapText('', STYLE, 10, 4)).toEqual(['']);
  expect(wrapText('WW', STYLE, 1, 4)).toEqual(['W', 'W']);
});

test('small pictures are enlarged, framed, in even columns, with text outside of them only', () => {
  const cell = { picture: blankPicture(64, 48, RED), caption: 'PSNR 23.1 dB' };
  const text = { title: 'Title', subtitle: 'a prompt', footer: 'what it means' };
  const grid = drawGrid({
    ...text,
    columns: ['one', 'two'],
    rows: [{ label: 'seed 1', cells: [cell, cell] }],
  });
  const [left, top, right, bottom] = extent(grid, isRed)!;
  const [width, height] = [64 * 3, 48 * 3]; // at least 160 on the longer side
  expect(bottom - top).toBe(height);
  const gap = right - left - 2 * width;
  expect(gap).toBeGreaterThan(8);
  let wrong = 0;
  for (let y = top; y < bottom; y++)
    for (let x = left; x < right; x++) {
      const [r, g, b] = grid.rgb.subarray((y * grid.width + x) * 3, (y * grid.width + x) * 3 + 3);
      if (isRed(r!, g!, b!) !== (x < left + width || x >= right - width)) wrong++;
    }
  expect(wrong).toBe(0);
  const ink = extent(grid, isDark)!;
  const room = 20; // margin
  expect(
    ink[0] >= room && ink[1] >= room && ink[2] <= grid.width - room && ink[3] <= grid.height - room,
  ).toBe(true);
  for (const [name, box] of Object.entries({
    'row label': [0, top, left - 4, bottom],
    'column label': [left, 0, left + width, top - 2],
    caption: [left, bottom + 2, left + width, grid.height],
  })) {
    const [x0, y0, x1, y1] = box as [number, number, number, number];
    const part = blankPicture(x1 - x0, y1 - y0, [255, 255, 255]);
    for (let y = y0; y < y1; y++)
      part.rgb.set(
        grid.rgb.subarray((y * grid.width + x0) * 3, (y * grid.width + x1) * 3),
        (y - y0) * part.width * 3,
      );
    expect(extent(part, isDark), name).toBeDefined();
  }
});

test('pictures of any size, empty cells, no labels, long labels', () => {
  const long = 'a label that goes on and on '.repeat(30);
  const mixed = drawGrid({
    title: long,
    columns: [long, ''],
    rows: [
      { label: long, cells: [{ picture: blankPicture(200, 31, RED), caption: long }, {}] },
      { label: '', cells: [{ caption: 'failed', tone: 'quiet' }, { picture: blankPicture(9, 300, RED) }] },
    ],
  });
  expect(extent(mixed, isRed)![3] - extent(mixed, isRed)![1]).toBeGreaterThan(300);
  expect(mixed.height).toBeLessThan(1600);
  const plain = drawGrid({
    columns: [''],
    rows: [{ label: '', cells: [{ picture: blankPicture(160, 160, RED) }] }],
  });
  expect([plain.width, extent(plain, isRed)![0]]).toEqual([160 + 48, 24]);
  const large = drawGrid({
    columns: ['x'],
    rows: [{ label: '', cells: [{ picture: blankPicture(1024, 512, RED) }] }],
  });
  const [l, t, r, b] = extent(large, isRed)!;
  expect([r - l, b - t]).toEqual([1024, 512]);
});

test('what is no grid is refused, and what would be too large', () => {
  const argument = expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error;
  expect(() => drawGrid({ columns: [], rows: [] })).toThrow(argument);
  expect(() => drawGrid({ columns: ['a'], rows: [{ label: 'b', cells: [] }] })).toThrow(argument);
  const cell = { picture: blankPicture(1024, 1024, RED) };
  const row = { label: '', cells: new Array<typeof cell>(9).fill(cell) };
  expect(() =>
    drawGrid({ columns: new Array<string>(9).fill(''), rows: new Array<typeof row>(9).fill(row) }),
  ).toThrow(
    expect.objectContaining({ code: 'ERR_IMAGE_SIZE', message: expect.stringContaining('9 × 9') as string }),
  );
});

test('tiles: reading order, gaps, uneven last row', () => {
  const colours: Rgb[] = [RED, [0, 200, 0], [0, 0, 200]];
  const sheet = tile(colours.map((colour) => blankPicture(5, 4, colour)), { columns: 2, gap: 1 }); // prettier-ignore
  expect([sheet.width, sheet.height]).toEqual([11, 9]);
  const at = (x: number, y: number) => [...sheet.rgb.subarray((y * 11 + x) * 3, (y * 11 + x) * 3 + 3)];
  expect([at(0, 0), at(4, 3), at(6, 0), at(10, 3), at(0, 5)]).toEqual([
    RED,
    RED,
    colours[1],
    colours[1],
    colours[2],
  ]);
  expect(at(5, 0)).toEqual(at(6, 8));
  expect(tile([blankPicture(3, 3, RED)])).toEqual(blankPicture(3, 3, RED));
  expect(() => tile([])).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  expect(enlarge(sheet, 2).rgb.subarray(0, 6)).toEqual(Uint8Array.of(...RED, ...RED));
});
