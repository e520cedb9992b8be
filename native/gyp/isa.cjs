// What binding.gyp needs from CMakeLists.txt, so that sources and flags are listed there alone:
//   node isa.cjs sources        every native source that is compiled once
//   node isa.cjs isa-sources    those compiled once per instruction set
//   node isa.cjs flags NAME     the compiler flags of one instruction set
//   node isa.cjs names          the instruction sets, which must be those of binding.gyp
const { readFileSync, readdirSync } = require('node:fs');
const { join } = require('node:path');

const cmake = readFileSync(join(__dirname, '../../CMakeLists.txt'), 'utf8');

function cpp(folder) {
  const names = readdirSync(join(__dirname, folder)).filter((name) => name.endsWith('.cpp'));
  return names.map((name) => `${folder}/${name}`);
}

/** `set(AVX2 -mavx2 …)` and `${AVX2}` within it, as CMake expands them. */
function expand(words) {
  return words.replace(/\$\{(\w+)\}/g, (_, name) => {
    const value = new RegExp(`set\\(${name} ([^)]*)\\)`).exec(cmake);
    return value ? expand(value[1]) : '';
  });
}

function flags(isa) {
  // The last one: what comes before it is a variant that an option turns on.
  const own = [...cmake.matchAll(new RegExp(`add_isa\\(${isa}( [^)]*)?\\)`, 'g'))].at(-1);
  const common = /target_compile_options\(isa_\$\{name\} PRIVATE ([^)]*)\$\{ARGN\}\)/.exec(cmake);
  if (!own || !common) throw new Error(`CMakeLists.txt has no instruction set ${isa}`);
  return (common[1] + expand(own[1] ?? '')).trim();
}

const isIsa = (name) => name.endsWith('_isa.cpp');
const answers = {
  sources: () => [...cpp('..'), ...cpp('../cpu'), ...cpp('../../bindings')].filter((name) => !isIsa(name)),
  'isa-sources': () => cpp('../cpu').filter(isIsa),
  names: () => [...new Set([...cmake.matchAll(/^ *add_isa\((\w+)/gm)].map((match) => match[1]))],
  flags: () => [flags(process.argv[3])],
};
console.log(answers[process.argv[2]]().join(' '));
