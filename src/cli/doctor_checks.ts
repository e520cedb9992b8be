/** The examinations of `kotoba doctor`, each a line of its report. */
import { accessSync, constants, existsSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, availableParallelism, cpus, freemem, release, totalmem, type as osType } from 'node:os';
import { delimiter, join } from 'node:path';
import { KotobaError } from '../errors.js';
import { clipTokenizer, findT5Tokenizer } from '../text/index.js';
import type { DeviceFlags } from './device.js';
import { gpuChecks } from './doctor_gpu.js';
import { bytesText, counted } from './text.js';
import { addonPath, packageRoot } from '../package_root.js';
import { packageJson } from './version.js';

export interface Check {
  readonly what: string;
  /** note: neither good nor bad */
  readonly state: 'ok' | 'note' | 'missing';
  readonly found: string;
  /** what to do about it */
  readonly advice?: string;
}

type Env = Readonly<Record<string, string | undefined>>;

const OLDEST_NODE = [20, 17] as const;

/** @param flags of the command: which device they choose is examined */
export async function examine(
  modelFolders: readonly string[],
  env: Env,
  flags: DeviceFlags,
): Promise<Check[]> {
  return [
    { what: 'kotoba', state: 'ok', found: `${packageJson().version}, in ${packageRoot()}` },
    node(),
    packages(),
    ...(await addon(env, flags)),
    threads(env),
    memory(),
    clipVocabulary(),
    await t5Vocabulary(modelFolders),
    models(modelFolders),
  ];
}

function node(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const isOld = major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1]);
  const found = `${process.version}, Node-API ${process.versions['napi']}, ${osType()} ${release()} ${arch()}`;
  if (isOld)
    return {
      what: 'node',
      state: 'missing',
      found,
      advice: `Node ${OLDEST_NODE.join('.')} or later is needed.`,
    };
  return { what: 'node', state: 'ok', found };
}

/** Installed versions, against those package.json asks for. */
function packages(): Check {
  const require = createRequire(import.meta.url);
  const asked = Object.entries(packageJson().dependencies);
  const rows = asked.map(([name, wanted]) => {
    const folders = require.resolve.paths(name) ?? [];
    const file = folders.map((dir) => join(dir, name, 'package.json')).find((path) => existsSync(path));
    const version = file && (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
    return { name, wanted, version };
  });
  const absent = rows.filter(({ version }) => version === undefined);
  return {
    what: 'packages',
    state: absent.length > 0 ? 'missing' : 'ok',
    found: rows
      .map(({ name, wanted, version }) =>
        version === wanted
          ? `${name} ${version}`
          : `${name} ${version ?? 'not there'} (asked for: ${wanted})`,
      )
      .join(', '),
    ...(absent.length > 0 && { advice: 'Run "npm ci" in the package folder.' }),
  };
}

/** The addon, and with it the CPU, its instruction sets and the GPUs: only the addon can tell those. */
async function addon(env: Env, flags: DeviceFlags): Promise<Check[]> {
  const path = addonPath(env);
  try {
    const { Device, INSTRUCTION_SETS } = await import('../runtime/device.js');
    const { size, mtime } = statSync(path);
    const found = `${path}, ${bytesText(size)}, built ${mtime.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
    const device = Device.open('cpu');
    const { description, instructions, threads: count } = device.info;
    device.close();
    const sets = INSTRUCTION_SETS.map((name) => `${name}: ${instructionSet(name, Device)}`);
    return [
      { what: 'addon', state: 'ok', found },
      {
        what: 'cpu',
        state: 'ok',
        found: `${description}, runs ${instructions} on ${counted(count, 'thread')}`,
      },
      { what: 'instructions', state: 'ok', found: sets.join('\n') },
      ...(await gpuChecks(flags)),
    ];
  } catch (error) {
    if (!(error instanceof KotobaError)) throw error;
    const tools = ['cmake', 'g++'].map((tool) => `${tool}: ${onPath(tool, env) ?? 'not found'}`);
    return [
      { what: 'addon', state: 'missing', found: error.message },
      { what: 'to build it', state: 'note', found: tools.join(', ') },
    ];
  }
}

type DeviceModule = typeof import('../runtime/device.js');

function instructionSet(
  instructions: DeviceModule['INSTRUCTION_SETS'][number],
  Device: DeviceModule['Device'],
): string {
  try {
    Device.open('cpu', { instructions, threads: 1 }).close();
    return 'yes';
  } catch (error) {
    return `no: ${(error as Error).message}`;
  }
}

function onPath(program: string, env: Env): string | undefined {
  const candidates = (env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, program));
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function threads(env: Env): Check {
  const asked = env['KOTOBA_THREADS'];
  const allowed = fromProc('/proc/self/status', /^Cpus_allowed_list:\s*(\S+)/m);
  const quota = cpuQuota();
  const facts = [
    `${cpus().length} in the machine, ${availableParallelism()} for this process`,
    ...(allowed ? [`on processors ${allowed}`] : []),
    ...(quota ? [`a control group gives it the time of ${quota.toFixed(1)}`] : []),
    asked ? `KOTOBA_THREADS=${asked}` : 'KOTOBA_THREADS is not set',
  ];
  const isTight = quota !== undefined && quota < availableParallelism();
  return {
    what: 'cores',
    state: isTight ? 'note' : 'ok',
    found: facts.join(', '),
    ...(isTight && {
      advice: `More threads than cores' worth of time slow each other down: try KOTOBA_THREADS=${Math.max(1, Math.floor(quota))}.`,
    }),
  };
}

/** Cores' worth of CPU time of the control group (cgroup v2), where it is limited. */
function cpuQuota(): number | undefined {
  const [quota, period] = (fromProc('/sys/fs/cgroup/cpu.max', /^(\d+ \d+)/) ?? '').split(' ').map(Number);
  return quota && period ? quota / period : undefined;
}

function fromProc(path: string, pattern: RegExp): string | undefined {
  try {
    return pattern.exec(readFileSync(path, 'utf8'))?.[1];
  } catch {
    return undefined; // not Linux, or no such control
  }
}

function memory(): Check {
  const limit = process.constrainedMemory();
  const available = Number(fromProc('/proc/meminfo', /^MemAvailable:\s*(\d+) kB/m) ?? 0) * 1024 || freemem();
  const limited = limit > 0 && limit < totalmem() ? `, a control group allows ${bytesText(limit)}` : '';
  return {
    what: 'memory',
    state: 'ok',
    found:
      `${bytesText(totalmem())}, ${bytesText(available)} available${limited}. ` +
      'Weights stay in the mapped file: those of a file larger than memory are read again for every pass.',
  };
}

function clipVocabulary(): Check {
  const what = 'CLIP tokens';
  try {
    const { source, vocabularySize } = clipTokenizer();
    return { what, state: 'ok', found: `${source}, ${counted(vocabularySize, 'id')}` };
  } catch (error) {
    return { what, state: 'missing', found: (error as Error).message };
  }
}

async function t5Vocabulary(folders: readonly string[]): Promise<Check> {
  const { file } = await findT5Tokenizer(folders.filter((folder) => existsSync(folder)));
  const found =
    file ?? 'looked for beside the weights: spiece.model or tokenizer.json, or in the GGUF file itself';
  return { what: 'T5 tokens', state: file === null ? 'note' : 'ok', found };
}

function models(folders: readonly string[]): Check {
  if (folders.length === 0)
    return {
      what: 'models',
      state: 'note',
      found: 'KOTOBA_MODELS is not set: model files are given by path',
    };
  const absent = folders.filter((folder) => !existsSync(folder));
  return {
    what: 'models',
    state: absent.length > 0 ? 'note' : 'ok',
    found: folders.map((folder) => folder + (absent.includes(folder) ? ' (not there)' : '')).join(', '),
  };
}
