/** The check that no kernel spills, on reports as nvcc 13.0 and cuobjdump print them. */
import { expect, test } from 'vitest';
import { checkKernels, describeKernels, parseResources } from '../../bench/ptxas_report.js';

const entry = (symbol: string, stack: number, spills: number) => `
ptxas info    : Compiling entry function '${symbol}' for 'sm_90a'
ptxas info    : Function properties for ${symbol}
    ${stack} bytes stack frame, ${spills} bytes spill stores, ${spills} bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 1024 bytes smem`;
const ptxas = `[1/2] Building CUDA object
ptxas info    : 33824 bytes gmem${entry('_Z5cleanv', 0, 0)}${entry('_Z5spillv', 104, 104)}${entry('_Z5framev', 816, 0)}
ptxas info    : Compile time = 3738.832 ms
[2/2] Linking CUDA shared module`;
const cuobjdump = `
Fatbin elf code:
================
arch = sm_80
code version = [1,7]
Resource usage:
 Common:
  GLOBAL:0
 Function _Z5cleanv:
  REG:32 STACK:0 SHARED:64 LOCAL:0 CONSTANT[0]:380 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _Z5framev:
  REG:40 STACK:16 SHARED:0 LOCAL:0 CONSTANT[0]:380 TEXTURE:0 SURFACE:0 SAMPLER:0
`;
const names = ['clean()', 'spill()', 'frame()'];

test('both reports are read', () => {
  expect(parseResources(ptxas)).toEqual([
    { symbol: '_Z5cleanv', target: 'sm_90a', registers: 168, stack: 0, spills: 0, shared: 1024 },
    { symbol: '_Z5spillv', target: 'sm_90a', registers: 168, stack: 104, spills: 104, shared: 1024 },
    { symbol: '_Z5framev', target: 'sm_90a', registers: 168, stack: 816, spills: 0, shared: 1024 },
  ]);
  expect(parseResources(cuobjdump)).toEqual([
    { symbol: '_Z5cleanv', target: 'sm_80', registers: 32, stack: 0, spills: 0, shared: 64 },
    { symbol: '_Z5framev', target: 'sm_80', registers: 40, stack: 16, spills: 0, shared: 0 },
  ]);
});

test('a spill or a stack frame is wrong, unless it is exempt, and then only up to its size', () => {
  const kernels = parseResources(ptxas);
  expect(checkKernels(kernels, names, []).map((kernel) => kernel.isWrong)).toEqual([false, true, true]);
  const exempt = [{ kernel: /^frame/, stack: 816, reason: 'cold' }];
  expect(checkKernels(kernels, names, exempt).map((kernel) => kernel.isWrong)).toEqual([false, true, false]);
  const smaller = [{ kernel: /^frame/, stack: 815, reason: 'cold' }];
  expect(checkKernels(kernels, names, smaller)[2]!.isWrong).toBe(true);
  const lines = describeKernels(checkKernels(kernels, names, exempt), exempt).join('\n');
  expect(lines).toMatch(
    /^3 kernels for sm_90a\nexempt .* frame: cold\nWRONG .* spill\n1 kernels keep values/,
  );
  const clean = checkKernels(kernels.slice(0, 1), names, exempt);
  expect(describeKernels(clean, exempt).join('\n')).toMatch(/exempt for nothing.*\nno kernel spills$/);
});

test('a report of nothing does not pass', () => {
  for (const text of ['', 'ninja: no work to do.', 'Resource usage:\n'])
    expect(() => parseResources(text)).toThrow(/found no kernel/);
  expect(() => parseResources("Compiling entry function '_Z1av' for 'sm_80'\n")).toThrow(/without figures/);
});

test('names are told without namespaces and parameters', () => {
  const demangled =
    'void kotoba::cuda::(anonymous namespace)::f<kotoba::cuda::G, (int)2>(kotoba::cuda::H, int)';
  const [kernel] = checkKernels(parseResources(ptxas), [demangled], []);
  expect(kernel!.name).toBe('f<G, (int)2>');
});
