/** What of the GPU machine's script can be tried without one. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const script = join(root, 'bench/device.sh');

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'kotoba-device-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const device = (...parts: string[]) =>
  spawnSync(script, parts, {
    encoding: 'utf8',
    env: {
      ...process.env,
      DEVICE: 'cuda-sim',
      OUT: folder,
      KOTOBA_BENCH_DIR: folder,
      BUILD: join(folder, 'build'),
    },
  });

test.each(['device.sh', 'device_pack.sh', 'build_time.sh'])('%s is a script that bash can read', (name) => {
  execFileSync('bash', ['-n', join(root, 'bench', name)]);
});

test('without a part it says what there is; one that is not there is wrong usage', () => {
  const help = device();
  expect(help.status).toBe(2);
  for (const part of [
    'build',
    'test',
    'sanitize',
    'bench-ops',
    'bench-encode',
    'bench-generate',
    'profile',
    'all',
  ])
    expect(help.stdout).toContain(part);
  const wrong = device('sanitize', 'lunch');
  expect(wrong).toMatchObject({ status: 2, stderr: "device: no part 'lunch'\n" });
});

test('parts that fail are in the table at the end, and in the exit status', () => {
  const run = device('report', 'profile');
  expect(run.status).toBe(1);
  expect(run.stdout).toMatch(/---- summary\nreport +FAILED +\d+ s\nprofile +ok +\d+ s\n$/);
});

test("a profile's kernels become a table", () => {
  const csv = join(folder, 'profile.csv');
  const metrics = [
    'gpu__time_duration.sum',
    'sm__throughput.avg.pct_of_peak_sustained_elapsed',
    'launch__grid_size',
  ];
  const rows = [
    ['ID', 'Kernel Name', ...metrics],
    ['', '', 'ns', '%', ''],
    ['0', 'dense_wgmma<BF16, 128>', '1,234,567', '71.25', '132'],
  ];
  const text = rows.map((row) => row.map((cell) => `"${cell}"`).join(',')).join('\n');
  writeFileSync(csv, `==PROF== Connected\n${text}\n`);
  const table = execFileSync('python3', [join(root, 'bench/profile_table.py'), csv], { encoding: 'utf8' });
  const [, kernel] = table.trim().split('\n');
  expect(kernel!.trim().split(/\s{2,}/)).toEqual([
    '1234.6',
    '71.2',
    '-',
    '-',
    '-',
    '-',
    '132',
    'dense_wgmma<BF16, 128>',
  ]);
  writeFileSync(csv, 'nothing\n');
  expect(spawnSync('python3', [join(root, 'bench/profile_table.py'), csv]).status).toBe(1);
});
