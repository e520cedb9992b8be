/** Who may import whom (README, Architecture). Leftwards only; folders of one group are strangers to each other. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

const ORDER: readonly (readonly string[])[] = [
  ['errors'],
  ['atomic_file', 'package_root'],
  ['formats', 'text', 'image'],
  ['bindings'],
  ['runtime'],
  ['nn'],
  // hub: files by name; it needs no more than `formats`, and `pipeline` finds files through it.
  ['encoders', 'diffusion', 'sampling', 'convert', 'hub'],
  ['pipeline'],
  ['index'],
  ['bench'],
  ['cli', 'server'],
];
const rank = new Map(ORDER.flatMap((group, i) => group.map((room) => [room, i] as const)));

function filesUnder(folder: string, pattern: RegExp): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)));
}

/** src/formats/gguf.ts → formats; src/errors.ts → errors; bindings/native.ts → bindings */
function roomOf(file: string): string {
  const parts = file.replace(/\.(ts|js)$/, '').split('/');
  return parts[0] === 'src' ? parts[1]! : parts[0]!; // bench/ops.ts → bench
}

function importsOf(file: string): string[] {
  const source = readFileSync(join(root, file), 'utf8');
  const found = source.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g);
  return [...found].map((match) => relative(root, resolve(root, dirname(file), match[1]!)));
}

describe('TypeScript rooms', () => {
  const files = [...['src', 'bindings', 'bench'].flatMap((folder) => filesUnder(folder, /\.ts$/))];

  test.each(files)('%s imports leftwards only', (file) => {
    const room = roomOf(file);
    expect(rank.has(room), `${room} is not a known room`).toBe(true);
    for (const target of importsOf(file)) {
      const other = roomOf(target);
      const allowed = other === room || rank.get(other)! < rank.get(room)!;
      expect(allowed, `${file} must not import ${target}`).toBe(true);
    }
  });

  test('only runtime imports the bindings, and the bench that times single ops', () => {
    const importers = files.filter((file) => importsOf(file).some((target) => roomOf(target) === 'bindings'));
    expect(new Set(importers.map(roomOf))).toEqual(new Set(['runtime', 'bench']));
  });
});

describe('native rooms', () => {
  const includes = (file: string): string[] =>
    [...readFileSync(join(root, file), 'utf8').matchAll(/#include\s+[<"]([^>"]+)[>"]/g)].map((m) => m[1]!);
  const native = filesUnder('native', /\.(h|cpp|cu|cuh)$/);

  test('napi.h stays in bindings', () => {
    expect(native.filter((file) => includes(file).some((name) => /napi|node_api/.test(name)))).toEqual([]);
  });

  test('CUDA headers stay in native/cuda', () => {
    const outside = native.filter((file) => !file.startsWith('native/cuda/'));
    expect(outside.filter((file) => includes(file).some((name) => /^cuda|cuda_/.test(name)))).toEqual([]);
  });

  test('cpu and cuda never see each other', () => {
    for (const file of native) {
      const other = file.startsWith('native/cpu/')
        ? 'cuda/'
        : file.startsWith('native/cuda/')
          ? 'cpu/'
          : null;
      if (other)
        expect(
          includes(file).filter((name) => name.includes(other)),
          file,
        ).toEqual([]);
    }
  });

  test('nothing in the addon ends the process', () => {
    for (const file of [...native, ...filesUnder('bindings', /\.(h|cpp)$/)])
      expect(readFileSync(join(root, file), 'utf8'), file).not.toMatch(
        /\b(?:std::)?(?:abort|exit|terminate|_Exit)\(\)?/,
      );
  });
});

test('no source file is longer than 500 lines', () => {
  const all = ['src', 'bindings', 'native', 'test', 'bench'].flatMap((f) =>
    filesUnder(f, /\.(ts|h|cpp|cu|cuh)$/),
  );
  const lines = (file: string) => readFileSync(join(root, file), 'utf8').split('\n').length;
  expect(all.filter((file) => lines(file) > 500)).toEqual([]);
});
