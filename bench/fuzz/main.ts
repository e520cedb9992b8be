/**
 * The fuzz run: npm run fuzz -- [--cases N] [--seed FIRST] [--sanitize address|undefined|none] [--jobs N]
 *   [--samples all|encoders|images]
 * Builds the addon with the sanitizer into build-<sanitizer>, damages small files of every container seed by seed and
 * takes each through the whole chain. A finding is anything but a right result or a coded error: another exception, a
 * sanitizer's report, a crash, a hang. Findings lie in out/fuzz; `--seed S --cases 1` repeats one.
 */
import { execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { caseOf, readTargets } from './damage.js';
import { SAMPLE_SETS } from './samples.js';
import type { BatchFigures, Finding } from './worker.js';

const kRoot = resolve(fileURLToPath(import.meta.url), '../../..');
const kFindings = join(kRoot, 'out/fuzz');
const kBatch = 2500;
/** Wall time without a new case after which a batch is killed, ms: far beyond the 5 s of CPU time a case may take. */
const kHang = 60_000;
/** Enough to mend before the run goes on. */
const kMaxFindings = 20;
const kShownLines = 25;
const kSanitizers = ['address', 'undefined', 'none'] as const;
type Sanitizer = (typeof kSanitizers)[number];

const { values: options } = parseArgs({
  options: {
    cases: { type: 'string', default: '120000' },
    seed: { type: 'string', default: '0' },
    jobs: { type: 'string', default: '1' },
    sanitize: { type: 'string', default: 'address' },
    addon: { type: 'string' },
    samples: { type: 'string', default: 'all' },
  },
});

function oneOf<Name extends string>(option: 'sanitize' | 'samples', names: readonly Name[]): Name {
  const found = names.find((name) => name === options[option]);
  if (!found) throw new Error(`--${option}: expected ${names.join(', ')}, got "${options[option]}"`);
  return found;
}

/** The addon to test: given, or built here. */
function buildAddon(which: Sanitizer): string {
  if (options.addon !== undefined) return resolve(options.addon);
  if (which === 'none') return join(kRoot, 'build/Release/kotoba.node');
  const folder = join(kRoot, `build-${which}`);
  const run = (...args: string[]) => execFileSync('cmake', args, { stdio: ['ignore', 'inherit', 'inherit'] });
  run('-S', kRoot, '-B', folder, '-G', 'Ninja', `-DKOTOBA_SANITIZE=${which}`, '-DKOTOBA_EMULATE_AMX=ON');
  run('--build', folder);
  return join(folder, 'Release/kotoba.node');
}

function environment(which: Sanitizer, addon: string): NodeJS.ProcessEnv {
  const env = { ...process.env, KOTOBA_ADDON: addon };
  // Node itself is not instrumented: the runtime must come first, and V8's own memory is no leak of ours.
  if (which === 'address')
    return {
      ...env,
      LD_PRELOAD: realpathSync(
        execFileSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim(),
      ),
      ASAN_OPTIONS: 'detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=4096:exitcode=99',
    };
  return which === 'undefined' ? { ...env, UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1' } : env;
}

interface Batch {
  readonly first: number;
  readonly count: number;
}

const totals = { cases: 0, slowest: 0, peak: 0, outcomes: new Map<string, number>(), instructions: '' };
const findings: Finding[] = [];

async function runBatch({ first, count }: Batch, env: NodeJS.ProcessEnv): Promise<void> {
  const shm = '/dev/shm';
  const scratch = mkdtempSync(join(existsSync(shm) ? shm : tmpdir(), 'kotoba-fuzz-'));
  const worker = fileURLToPath(new URL('./worker.ts', import.meta.url));
  const args = ['--import', 'tsx', worker, String(first), String(count), scratch, samples];
  const child = spawn(process.execPath, args, { env, cwd: kRoot, stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (text: Buffer) => (stdout += text.toString()));
  child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
  const at = () => (existsSync(join(scratch, 'seed')) ? readFileSync(join(scratch, 'seed'), 'utf8') : '');
  let last = '';
  let stuck = false;
  const watch = setInterval(() => {
    const now = at();
    if (now !== '' && now === last) {
      stuck = true;
      child.kill('SIGKILL');
    }
    last = now;
  }, kHang);
  const ended = await new Promise<string>((done) =>
    child.on('close', (code, signal) => done(signal ?? `exit code ${code}`)),
  );
  clearInterval(watch);
  const finished = readReport(stdout);
  const seed = Number.parseInt(at());
  rmSync(scratch, { recursive: true });
  if (Number.isNaN(seed)) throw new Error(`a batch did not start: ${ended}\n${stderr}`);
  if (ended === 'exit code 0' && finished && stderr === '') return;
  if (finished)
    return void findings.push({ seed: first, what: `batch of ${count} from here: ${ended}\n${stderr}` });
  findings.push({ seed, what: `${stuck ? 'hang' : ended}\n${stderr}` });
  // The rest of the batch still counts.
  totals.cases += seed + 1 - first;
  const left = first + count - seed - 1;
  if (left > 0 && findings.length < kMaxFindings) await runBatch({ first: seed + 1, count: left }, env);
}

/** @returns whether the batch came to its end */
function readReport(stdout: string): boolean {
  let finished = false;
  for (const line of stdout.split('\n').filter((text) => text.startsWith('{'))) {
    const { finding, figures } = JSON.parse(line) as { finding?: Finding; figures?: BatchFigures };
    if (finding) findings.push(finding);
    if (!figures) continue;
    finished = true;
    totals.cases += figures.cases;
    totals.slowest = Math.max(totals.slowest, figures.slowest);
    totals.peak = Math.max(totals.peak, figures.peak);
    totals.instructions = figures.instructions.join(', ');
    for (const [key, n] of Object.entries(figures.outcomes))
      totals.outcomes.set(key, (totals.outcomes.get(key) ?? 0) + n);
  }
  return finished;
}

/** The damaged file and what happened, by seed. */
async function keep({ seed, what }: Finding): Promise<void> {
  const dir = join(kFindings, String(seed));
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, 'finding.txt'), what);
  const { target, bytes } = caseOf(await readTargets(samples), seed);
  for (const [name, whole] of target.sample.files) writeFileSync(join(dir, name), whole);
  writeFileSync(join(dir, target.name), bytes);
  const text = what.split('\n').slice(0, kShownLines).join('\n');
  console.log(`\nfinding, seed ${seed}, kept in ${dir}\n${text}`);
}

const which = oneOf('sanitize', kSanitizers);
const samples = oneOf('samples', SAMPLE_SETS);
const env = environment(which, buildAddon(which));
const [cases, firstSeed] = [Number(options.cases), Number(options.seed)];
const batches = Array.from({ length: Math.ceil(cases / kBatch) }, (_, i): Batch => {
  const first = firstSeed + i * kBatch;
  return { first, count: Math.min(kBatch, firstSeed + cases - first) };
});
const started = performance.now();
const lanes = Array.from({ length: Number(options.jobs) }, async () => {
  for (let batch = batches.shift(); batch && findings.length < kMaxFindings; batch = batches.shift()) {
    await runBatch(batch, env);
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    process.stderr.write(`\r${totals.cases} cases, ${findings.length} findings, ${seconds} s `);
  }
});
await Promise.all(lanes);
const seconds = (performance.now() - started) / 1000;
process.stderr.write('\n');
for (const finding of findings.slice(0, kMaxFindings)) await keep(finding);
for (const [key, n] of [...totals.outcomes].sort((a, b) => b[1] - a[1]))
  console.log(`${String(n).padStart(8)}  ${key}`);
const sum = (stage: string) =>
  [...totals.outcomes].reduce((total, [key, n]) => (key.includes(stage) ? total + n : total), 0);
console.log(
  `${totals.cases} damaged files under ${which === 'none' ? 'no' : `the ${which}`} sanitizer in ${seconds.toFixed(0)} s: ` +
    `${sum(' refused ')} refused by the readers, ${sum(' selected ')} by the loader or the encoder, ` +
    `${sum(' encoded ')} encoded; slowest case ${totals.slowest.toFixed(0)} ms of CPU time, ` +
    `peak ${(totals.peak / 2 ** 20).toFixed(0)} MiB; ${totals.instructions}; findings: ${findings.length}`,
);
process.exitCode = findings.length === 0 ? 0 : 1;
