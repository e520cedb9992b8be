/** The README keeps its promises: every error code is explained, every command and file it names exists. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { main } from '../src/cli/main.js';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const readme = readFileSync(resolve(root, 'README.md'), 'utf8');

test('every error code is in the troubleshooting table', () => {
  const codes = [...readFileSync(resolve(root, 'src/errors.ts'), 'utf8').matchAll(/'(ERR_\w+)'/g)].map(
    (m) => m[1]!,
  );
  expect(codes.length).toBeGreaterThan(20);
  expect(codes.filter((code) => !readme.includes(`\`${code}\``))).toEqual([]);
});

test('files of the repository that it names exist', () => {
  const paths = [
    ...readme.matchAll(/(?:^|[\s`(])((?:src|test|native|bindings|models|bench|\.ci)\/[\w./-]*\w)/gm),
  ];
  expect(paths.length).toBeGreaterThan(10);
  expect(paths.map((m) => m[1]!).filter((path) => !existsSync(resolve(root, path)))).toEqual([]);
});

test('npm scripts that it names exist', () => {
  const { scripts } = JSON.parse(readFileSync(resolve(root, 'package.json'), 'utf8')) as { scripts: object };
  const named = [...readme.matchAll(/npm run ([\w:]+)/g)].map((m) => m[1]!);
  expect(named.filter((name) => !(name in scripts))).toEqual([]);
});

test('every command of the program is named', async () => {
  let help = '';
  const output = { write: (text: string) => (help += text) };
  await main(['node', 'kotoba', '--help'], {
    stdout: output,
    stderr: output,
    stdin: process.stdin,
    env: {},
    onInterrupt: () => () => undefined,
  });
  const commands = [...help.matchAll(/^ {2}([a-z]+) (?:\[|<|file|prompt|help)/gm)].map((m) => m[1]!);
  expect(commands.filter((name) => name !== 'help' && !readme.includes(name))).toEqual([]);
});
