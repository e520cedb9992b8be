// Hopper's own instructions: mbarrier, TMA, wgmma, register reallocation. On every other target there is
// nothing here, so kernels that use them must be left out there too: #ifdef KOTOBA_SM90A.
#pragma once

#include <cuda.h>

#include "runtime.h"

namespace kotoba::cuda {

// A matrix in global memory that TMA reads boxes of: cuTensorMapEncodeTiled makes one on the host.
using TensorMap = CUtensorMap;

}  // namespace kotoba::cuda

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define KOTOBA_SM90A

namespace kotoba::cuda::ptx {

__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :
               : "r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(shared_address(barrier)) : "memory");
}
// Announces bytes of bulk copies, then arrives.
__device__ __forceinline__ void mbarrier_arrive_expect(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Until the phase with this parity is over.
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}"
      :
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
}
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// The box of `map` from (row, col) on to shared memory, zeros where it leaves the matrix.
__device__ __forceinline__ void tma_load_2d(void* shared, const TensorMap* map, uint64_t* barrier, int col,
                                            int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];"
      :
      : "r"(shared_address(shared)), "l"(map), "r"(shared_address(barrier)), "r"(col), "r"(row)
      : "memory");
}

// The bits for a K-major tile of 16-bit numbers, 64 to a row, with 128-byte swizzle.
__device__ __forceinline__ uint64_t wgmma_descriptor(const void* tile) {
  const uint64_t start = shared_address(tile);
  return (start & 0x3ffff) >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kPending groups of this warpgroup are under way.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kPending) : "memory");
}
// Of every thread of the warpgroup, for other warpgroups to take.
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(kRegisters));
}

// ---- wgmma: d [64, n] (+)= a [64, 16] · b [n, 16]ᵀ; an instruction names each of its n / 2 registers

// Ten operands of the text, "%x0" to "%x9", and the registers that they stand for.
#define KOTOBA_T10(x) \
  "%" #x "0, %" #x "1, %" #x "2, %" #x "3, %" #x "4, %" #x "5, %" #x "6, %" #x "7, %" #x "8, %" #x "9"
#define KOTOBA_R4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define KOTOBA_R32(i)                                                                                        \
  KOTOBA_R4(i), KOTOBA_R4(i + 4), KOTOBA_R4(i + 8), KOTOBA_R4(i + 12), KOTOBA_R4(i + 16), KOTOBA_R4(i + 20), \
      KOTOBA_R4(i + 24), KOTOBA_R4(i + 28)
#define KOTOBA_T32 KOTOBA_T10() ", " KOTOBA_T10(1) ", " KOTOBA_T10(2) ", %30, %31"
#define KOTOBA_T64                                                                             \
  KOTOBA_T10()                                                                                 \
  ", " KOTOBA_T10(1) ", " KOTOBA_T10(2) ", " KOTOBA_T10(3) ", " KOTOBA_T10(4) ", " KOTOBA_T10( \
      5) ", %60, %61, %62, %63"
#define KOTOBA_T128 \
  KOTOBA_T10() ", " KOTOBA_T10(1) ", " KOTOBA_T10(2) ", " KOTOBA_T10(3) ", " KOTOBA_T10(4) ", " KOTOBA_T10(5) \
      ", " KOTOBA_T10(6) ", " KOTOBA_T10(7) ", " KOTOBA_T10(8) ", " KOTOBA_T10(9) ", " KOTOBA_T10(10)        \
      ", " KOTOBA_T10(11) ", %120, %121, %122, %123, %124, %125, %126, %127"

// first, second, third: the numbers of the operands after the registers.
#define KOTOBA_WGMMA(name, type, n, text, first, second, third, ...)                                     \
  template <>                                                                                            \
  __device__ __forceinline__ void name<n>(float(&d)[n / 2], uint64_t a, uint64_t b, bool accumulate) {   \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #third                                             \
                 ", 0;\n"                                                                                \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" text "}, %" #first \
                 ", %" #second ", p, 1, 1, 0, 0;\n}"                                                     \
                 : __VA_ARGS__                                                                           \
                 : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));                                   \
  }

template <int n>
__device__ void wgmma_bf16(float (&d)[n / 2], uint64_t a, uint64_t b, bool accumulate);
template <int n>
__device__ void wgmma_f16(float (&d)[n / 2], uint64_t a, uint64_t b, bool accumulate);

#define KOTOBA_WGMMA_WIDTHS(name, type)                                                                    \
  KOTOBA_WGMMA(name, type, 64, KOTOBA_T32, 32, 33, 34, KOTOBA_R32(0))                                      \
  KOTOBA_WGMMA(name, type, 128, KOTOBA_T64, 64, 65, 66, KOTOBA_R32(0), KOTOBA_R32(32))                     \
  KOTOBA_WGMMA(name, type, 256, KOTOBA_T128, 128, 129, 130, KOTOBA_R32(0), KOTOBA_R32(32), KOTOBA_R32(64), \
               KOTOBA_R32(96))

KOTOBA_WGMMA_WIDTHS(wgmma_bf16, "bf16")
KOTOBA_WGMMA_WIDTHS(wgmma_f16, "f16")

#undef KOTOBA_WGMMA_WIDTHS
#undef KOTOBA_WGMMA
#undef KOTOBA_T128
#undef KOTOBA_T64
#undef KOTOBA_T32
#undef KOTOBA_R32
#undef KOTOBA_R4
#undef KOTOBA_T10

}  // namespace kotoba::cuda::ptx
#endif
