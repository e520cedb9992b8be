/** The build without cmake has no list of its own to fall behind: what it compiles is what CMakeLists.txt says. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';

const folder = resolve(import.meta.dirname, '../../native/gyp');
const gyp = readFileSync(resolve(folder, 'binding.gyp'), 'utf8');
const cmake = readFileSync(resolve(folder, '../../CMakeLists.txt'), 'utf8');
const ask = (...question: string[]) =>
  execFileSync(process.execPath, [resolve(folder, 'isa.cjs'), ...question], { encoding: 'utf8' })
    .trim()
    .split(/\s+/);

test('every instruction set has its target, its flags and its definition', () => {
  const names = ask('names');
  expect(names).toContain('plain');
  expect([...gyp.matchAll(/"target_name": "isa_(\w+)"/g)].map((match) => match[1])).toEqual(names);
  expect([...gyp.matchAll(/KOTOBA_HAS_(\w+)/g)].map((match) => match[1])).toEqual(names);
  for (const name of names) expect(gyp).toContain(`flags ${name})`);
});

test('flags are expanded', () => {
  expect(ask('flags', 'plain')).toContain('-ffp-contract=off');
  expect(ask('flags', 'avx2')).toEqual(expect.arrayContaining(['-O3', '-mavx2', '-mfma', '-mf16c']));
  expect(ask('flags', 'amx')).toEqual(expect.arrayContaining(['-mavx2', '-mavx512f', '-mamx-int8']));
  for (const name of ask('names'))
    for (const flag of ask('flags', name)) {
      expect(flag).toMatch(/^-[\w-]+(=[\w]+)?$/);
      expect(cmake).toContain(flag);
    }
});

test('sources: each once, those of an instruction set apart', () => {
  const once = ask('sources');
  const perIsa = ask('isa-sources');
  expect(once).toContain('../../bindings/addon.cpp');
  expect(perIsa).toContain('../cpu/linear_isa.cpp');
  expect(new Set([...once, ...perIsa]).size).toBe(once.length + perIsa.length);
});

test('definitions of the addon are those of cmake', () => {
  const addon = /target_compile_definitions\(\$\{PROJECT_NAME\} PRIVATE ([^)]*)\)/.exec(cmake)![1]!;
  for (const definition of addon.split(/\s+/)) expect(gyp).toContain(`"${definition}"`);
});
