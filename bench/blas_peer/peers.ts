/** The typed surface of kotoba_blas.node (blas_peer.cpp), its loader, and the operands it works on. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { env } from 'node:process';
import { fileURLToPath } from 'node:url';

export type SgemmLibrary = 'openblas' | 'onednn';

/** out [m, n] = x [m, k] · w [n, k]ᵀ; `w` holds several copies that take turns, beginning with number `first`. */
export interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly first: number;
  readonly reps: number;
}

type Found =
  { readonly version: string; readonly instructions: string | number } | { readonly missing: string };

interface Addon {
  load(): { openblas: Found; onednn: Found };
  setThreads(threads: number): void;
  allocate(bytes: number): ArrayBuffer;
  sgemm(library: SgemmLibrary, product: Product, out: Float32Array, x: Float32Array, w: Float32Array): void;
  gemmU8S8S32(product: Product, out: Int32Array, x: Uint8Array, w: Int8Array): void;
  copy(out: Uint8Array, from: Uint8Array, bytes: number, first: number, reps: number, threads: number): void;
}

export interface PeerInfo {
  readonly name: 'OpenBLAS' | 'oneDNN' | 'PyTorch';
  /** With the instruction set in use. */
  readonly version?: string;
  /** Why it is not there, and how to get it. */
  readonly missing?: string;
}

type Role = 'x' | 'w' | 'out';

/** What of the peers this machine has. */
export class BlasPeers {
  readonly info: readonly PeerInfo[];
  readonly environment: PeerEnvironment;
  /** Undefined when kotoba_blas.node is not built. */
  readonly addon: Addon | undefined;
  /** The libraries whose sgemm can be called. */
  readonly sgemm: readonly SgemmLibrary[];
  readonly #memory = new Map<Role, ArrayBuffer>();

  constructor(
    info: readonly PeerInfo[],
    addon?: Addon,
    environment: PeerEnvironment = { inherited: [], chosen: [] },
  ) {
    this.addon = addon;
    this.info = info;
    this.environment = environment;
    this.sgemm = info
      .filter((peer) => peer.version !== undefined)
      .map((peer) => (peer.name === 'OpenBLAS' ? 'openblas' : 'onednn'));
  }

  /** Memory for one operand; the next call for the same role may hand out the same memory. */
  operand(role: Role, bytes: number): ArrayBuffer {
    let memory = this.#memory.get(role);
    if (memory === undefined || memory.byteLength < bytes) {
      memory = this.addon!.allocate(bytes);
      this.#memory.set(role, memory);
    }
    return memory;
  }
}

const install = {
  OpenBLAS: 'Debian: apt-get install libopenblas0-pthread',
  oneDNN: 'Debian: apt-get install libdnnl2',
} as const;

export interface PeerOptions {
  /** The device's. */
  readonly instructions: string;
  /** Whether the peers are held to them, too. */
  readonly forced: boolean;
  /** Whether others use this machine's cores. */
  readonly busy: boolean;
}

/** Opens the libraries; a process keeps the choices of the first call. */
export function openBlasPeers(options: PeerOptions): BlasPeers {
  const path = addonPath();
  if (!existsSync(path)) {
    const missing = 'kotoba_blas.node is not built (npm run build:native)';
    return new BlasPeers([
      { name: 'OpenBLAS', missing },
      { name: 'oneDNN', missing },
    ]);
  }
  const environment = prepareEnvironment(options);
  const addon = createRequire(import.meta.url)(path) as Addon;
  const { openblas, onednn } = addon.load();
  const info = [describe('OpenBLAS', openblas), describe('oneDNN', onednn)];
  return new BlasPeers(info, addon, environment);
}

/** Beside the addon in use. */
function addonPath(): string {
  if (env['KOTOBA_ADDON']) return join(dirname(env['KOTOBA_ADDON']), 'kotoba_blas.node');
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return join(folder, 'build', 'Release', 'kotoba_blas.node');
}

const coreTypes: Record<string, string> = {
  avx2: 'Haswell',
  avxvnni: 'Haswell',
  avx512: 'SkylakeX',
  avx512vnni: 'SkylakeX',
};
const oneDnnSets: Record<string, string> = {
  avx2: 'AVX2',
  avxvnni: 'AVX2_VNNI',
  avx512: 'AVX512_CORE',
  avx512vnni: 'AVX512_CORE_VNNI',
};

export interface PeerEnvironment {
  /** `NAME=value` of what was set already and counts: a peer that is held back must not look slow by itself. */
  readonly inherited: readonly string[];
  /** Of what the bench has set. */
  readonly chosen: readonly string[];
}

/** The libraries read the environment when they are opened. */
function prepareEnvironment({ instructions, forced, busy }: PeerOptions): PeerEnvironment {
  const inherited = Object.keys(env)
    .filter((name) => /^(OPENBLAS|GOTO|ONEDNN|DNNL|OMP|GOMP)_/.test(name))
    .sort();
  const wanted: Record<string, string | undefined> = {
    OPENBLAS_CORETYPE: forced ? coreTypes[instructions] : undefined,
    ONEDNN_MAX_CPU_ISA: forced ? oneDnnSets[instructions] : undefined,
    // Threads that spin for one whose core is taken: 1/14 of oneDNN's speed at 77x768x768 on two busy cores.
    OMP_WAIT_POLICY: busy ? 'passive' : undefined,
  };
  const chosen = Object.keys(wanted).filter((name) => wanted[name] && env[name] === undefined);
  for (const name of chosen) env[name] = wanted[name];
  const show = (name: string) => `${name}=${env[name]}`;
  return { inherited: inherited.map(show), chosen: chosen.map(show) };
}

function describe(name: keyof typeof install, found: Found): PeerInfo {
  if ('missing' in found) return { name, missing: `${found.missing}; ${install[name]}` };
  const { version, instructions } = found;
  const set = typeof instructions === 'number' ? oneDnnSetName(instructions) : instructions;
  return { name, version: `${version.trim()} (${set})` };
}

/** dnnl_cpu_isa_t: each instruction set has the bits of those it includes. */
const oneDnnBits = [
  [0x3e7, 'avx512_core_amx'],
  [0xe7, 'avx512_core_bf16'],
  [0x67, 'avx512_core_vnni'],
  [0x27, 'avx512_core'],
  [0x407, 'avx2_vnni'],
  [0x7, 'avx2'],
] as const;

function oneDnnSetName(bits: number): string {
  const found = oneDnnBits.find(([mask]) => (bits & mask) === mask);
  return found ? found[1] : `isa 0x${bits.toString(16)}`;
}
