/**
 * Registers, stack and spills of every CUDA kernel, as ptxas reports them, and a check that no kernel keeps values in
 * local memory that ought to be in registers:
 *
 *   cmake -S . -B build-nvcc -G Ninja -DKOTOBA_CUDA=ON -DCMAKE_CUDA_FLAGS=-Xptxas=-v
 *   cmake --build build-nvcc --target kotoba_cuda | tee build-nvcc/ptxas.log
 *   npx tsx bench/ptxas_report.ts build-nvcc/ptxas.log
 *
 * It also reads what `cuobjdump --dump-resource-usage kotoba_cuda.so` prints, which needs no new build.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { argv, stderr, stdout } from 'node:process';
import { pathToFileURL } from 'node:url';

export interface KernelResources {
  /** Mangled. */
  readonly symbol: string;
  /** `sm_90a` */
  readonly target: string;
  readonly registers: number;
  /** Bytes of a thread's local memory: arrays that are indexed at run time, and what was spilled. */
  readonly stack: number;
  /** Bytes that were spilled, by stores; cuobjdump does not tell them apart from the stack. */
  readonly spills: number;
  /** Bytes of static shared memory. */
  readonly shared: number;
}

/** A kernel that may use local memory, and why. */
export interface Exemption {
  /** Of the demangled name without its namespace. */
  readonly kernel: RegExp;
  /** Bytes of stack at most; spills count as stack. */
  readonly stack: number;
  readonly reason: string;
}

export const EXEMPTIONS: readonly Exemption[] = [
  {
    kernel: /^matmul_simt_64x64</,
    stack: 96,
    reason: 'the judge of the fast kernels, plain on purpose',
  },
  {
    kernel: /^embedding_\w*kernel<BlockIQ3_S/,
    stack: 16,
    reason: 'a gather of few rows, once a prompt',
  },
];

const number = (text: string | undefined): number => Number(text ?? 0);

/** @throws RangeError where a report has no kernel: a check of nothing must not pass */
export function parseResources(report: string): KernelResources[] {
  const kernels = /Resource usage:/.test(report) ? parseCuobjdump(report) : parsePtxas(report);
  if (kernels.length === 0)
    throw new RangeError(
      'expected the output of ptxas -v or of cuobjdump --dump-resource-usage, found no kernel',
    );
  return kernels;
}

function parsePtxas(report: string): KernelResources[] {
  const kernels: KernelResources[] = [];
  const entries = report.split(/Compiling entry function /).slice(1);
  for (const entry of entries) {
    const [, symbol, target] = /^'(\S+)' for '(\w+)'/.exec(entry) ?? [];
    const frame = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(entry);
    const used = /Used (\d+) registers/.exec(entry);
    if (symbol === undefined || target === undefined || !frame || !used)
      throw new RangeError(`a kernel without figures: ${entry.slice(0, 200)}`);
    kernels.push({
      symbol,
      target,
      registers: number(used[1]),
      stack: number(frame[1]),
      spills: Math.max(number(frame[2]), number(frame[3])),
      shared: number(/(\d+) bytes smem/.exec(entry)?.[1]),
    });
  }
  return kernels;
}

function parseCuobjdump(report: string): KernelResources[] {
  const kernels: KernelResources[] = [];
  let target = '';
  let symbol: string | undefined;
  for (const line of report.split('\n')) {
    target = /^arch = (\w+)/.exec(line)?.[1] ?? target;
    symbol = /^\s*Function (\S+):/.exec(line)?.[1] ?? symbol;
    const figures = /REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)/.exec(line);
    if (!figures || symbol === undefined) continue;
    const [, registers, stack, shared, local] = figures.map(Number) as [
      number,
      number,
      number,
      number,
      number,
    ];
    kernels.push({ symbol, target, registers, stack: stack + local, spills: 0, shared });
    symbol = undefined;
  }
  return kernels;
}

export interface CheckedKernel extends KernelResources {
  /** Demangled, without namespaces and parameters. */
  readonly name: string;
  readonly exemption?: Exemption | undefined;
  readonly isWrong: boolean;
}

export function checkKernels(
  kernels: readonly KernelResources[],
  names: readonly string[],
  exemptions: readonly Exemption[] = EXEMPTIONS,
): CheckedKernel[] {
  return kernels.map((kernel, i) => {
    const name = shortName(names[i] ?? kernel.symbol);
    const exemption = exemptions.find((each) => each.kernel.test(name));
    const isWrong = Math.max(kernel.stack, kernel.spills) > (exemption?.stack ?? 0);
    return { ...kernel, name, exemption, isWrong };
  });
}

/** `void kotoba::cuda::(anonymous namespace)::f<kotoba::cuda::G, 2>(int)` → `f<G, 2>` */
function shortName(demangled: string): string {
  const bare = demangled
    .replaceAll('kotoba::cuda::', '')
    .replaceAll('kotoba::', '')
    .replace(/\(anonymous namespace\)::|_GLOBAL__N__\w+::/g, '')
    .replace(/^void /, '');
  let depth = 0;
  for (const [i, character] of [...bare].entries()) {
    if (character === '<') depth++;
    else if (character === '>') depth--;
    else if (character === '(' && depth === 0) return bare.slice(0, i);
  }
  return bare;
}

/** Through c++filt, which comes with every compiler here; the symbols themselves where it is not. */
function demangle(symbols: readonly string[]): string[] {
  try {
    return execFileSync('c++filt', { input: symbols.join('\n'), encoding: 'utf8', maxBuffer: 1 << 28 }).split(
      '\n',
    );
  } catch {
    return [...symbols];
  }
}

/** The kernels that use most, then those that are wrong. */
export function describeKernels(kernels: readonly CheckedKernel[], exemptions = EXEMPTIONS): string[] {
  const targets = [...new Set(kernels.map((kernel) => kernel.target))];
  const wrong = kernels.filter((kernel) => kernel.isWrong);
  const figures = ({ target, registers, shared, stack, spills }: CheckedKernel): string =>
    `${target.padEnd(8)} ${registers} registers, ${shared} bytes shared, ${stack} stack, ${spills} spilled`;
  const excused = kernels.filter((kernel) => kernel.stack > 0 && !kernel.isWrong);
  const unused = exemptions.filter((each) => !excused.some((kernel) => kernel.exemption === each));
  return [
    `${kernels.length} kernels for ${targets.join(', ')}`,
    ...excused.map((kernel) => `exempt  ${figures(kernel)}  ${kernel.name}: ${kernel.exemption!.reason}`),
    ...unused.map((each) => `exempt for nothing, the line can go: ${each.kernel}`),
    ...wrong.map((kernel) => `WRONG   ${figures(kernel)}  ${kernel.name}`),
    wrong.length === 0 ? 'no kernel spills' : `${wrong.length} kernels keep values in local memory`,
  ];
}

function main(paths: readonly string[]): number {
  if (paths.length === 0) {
    stderr.write('usage: npx tsx bench/ptxas_report.ts [--all] FILE...\n');
    return 2;
  }
  const kernels = paths
    .filter((path) => path !== '--all')
    .flatMap((path) => parseResources(readFileSync(path, 'utf8')));
  const checked = checkKernels(kernels, demangle(kernels.map((kernel) => kernel.symbol)));
  if (paths.includes('--all'))
    for (const { target, registers, shared, stack, name } of checked)
      stdout.write(`${target.padEnd(8)} ${registers} ${shared} ${stack}  ${name}\n`);
  for (const line of describeKernels(checked)) stdout.write(`${line}\n`);
  return checked.some((kernel) => kernel.isWrong) ? 1 : 0;
}

if (import.meta.url === pathToFileURL(argv[1] ?? '').href) process.exitCode = main(argv.slice(2));
