// Hopper's own instructions: mbarrier, TMA, wgmma, register reallocation. On every other target there is
// nothing here, so kernels that use them must be left out there too: #ifdef KOTOBA_SM90A.
#pragma once

#include "tensor_map.h"

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
// What this thread wrote to shared memory before it, the copy engine and the tensor cores see after it.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Brings a map that is a kernel's parameter closer, so that the first copy need not wait for it.
__device__ __forceinline__ void prefetch_map(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" : : "l"(map) : "memory");
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
// The same of four dimensions, from (i3, i2, i1, i0) on; i0 counts neighbouring numbers.
__device__ __forceinline__ void tma_load_4d(void* shared, const TensorMap* map, uint64_t* barrier, int i0,
                                            int i1, int i2, int i3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4, %5, %6}], [%2];"
      :
      : "r"(shared_address(shared)), "l"(map), "r"(shared_address(barrier)), "r"(i0), "r"(i1), "r"(i2),
        "r"(i3)
      : "memory");
}

// Before the first wgmma, and before one whose registers the threads themselves have touched since the last.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kPending groups of this warpgroup are under way.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kPending) : "memory");
}
// The compiler does not know that products write `d` until wgmma_wait: it may not move what uses `d` across
// this. After the wait, before the first use.
template <int kCount>
__device__ __forceinline__ void hold_registers(float (&d)[kCount]) {
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i]) : : "memory");
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

// ---- wgmma: d [64, n] (+)= a [64, 16] · b [n, 16]ᵀ, by name of the registers: n / 2 of `d`

// Operands of the text, ten by ten: "%x0" to "%x9", and the registers that they stand for.
// clang-format off
#define KOTOBA_T10(x) "%" #x "0, %" #x "1, %" #x "2, %" #x "3, %" #x "4, %" #x "5, %" #x "6, %" #x "7, %" #x "8, %" #x "9"
#define KOTOBA_T30 KOTOBA_T10() ", " KOTOBA_T10(1) ", " KOTOBA_T10(2)
#define KOTOBA_T60 KOTOBA_T30 ", " KOTOBA_T10(3) ", " KOTOBA_T10(4) ", " KOTOBA_T10(5)
#define KOTOBA_T90 KOTOBA_T60 ", " KOTOBA_T10(6) ", " KOTOBA_T10(7) ", " KOTOBA_T10(8)
#define KOTOBA_T32 KOTOBA_T30 ", %30, %31"
#define KOTOBA_T48 KOTOBA_T30 ", " KOTOBA_T10(3) ", %40, %41, %42, %43, %44, %45, %46, %47"
#define KOTOBA_T64 KOTOBA_T60 ", %60, %61, %62, %63"
#define KOTOBA_T80 KOTOBA_T60 ", " KOTOBA_T10(6) ", " KOTOBA_T10(7)
#define KOTOBA_T96 KOTOBA_T90 ", %90, %91, %92, %93, %94, %95"
#define KOTOBA_T128 KOTOBA_T90 ", " KOTOBA_T10(9) ", " KOTOBA_T10(10) ", " KOTOBA_T10(11) ", %120, %121, %122, %123, %124, %125, %126, %127"
#define KOTOBA_R4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define KOTOBA_R16(i) KOTOBA_R4(i), KOTOBA_R4(i + 4), KOTOBA_R4(i + 8), KOTOBA_R4(i + 12)
#define KOTOBA_R32(i) KOTOBA_R16(i), KOTOBA_R16(i + 16)
#define KOTOBA_R64(i) KOTOBA_R32(i), KOTOBA_R32(i + 32)
// clang-format on

// o0, o1, …: the numbers of the operands after the registers.
#define KOTOBA_WGMMA(name, type, n, text, o0, o1, o2, ...)                                             \
  template <>                                                                                          \
  __device__ __forceinline__ void name<n>(float(&d)[n / 2], uint64_t a, uint64_t b, bool accumulate) { \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #o2                                              \
                 ", 0;\n"                                                                              \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" text "}, %" #o0  \
                 ", %" #o1 ", p, 1, 1, 0, 0;\n}"                                                       \
                 : __VA_ARGS__                                                                         \
                 : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));                                 \
  }
#define KOTOBA_WGMMA_KN(name, type, n, text, o0, o1, o2, o3, o4, o5, ...)                                  \
  template <>                                                                                              \
  __device__ __forceinline__ void name<n>(float(&d)[n / 2], const uint32_t(&a)[4], uint64_t b,             \
                                          bool accumulate) {                                               \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #o5                                                  \
                 ", 0;\n"                                                                                  \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" text "}, {%" #o0     \
                 ", %" #o1 ", %" #o2 ", %" #o3 "}, %" #o4 ", p, 1, 1, 1;\n}"                               \
                 : __VA_ARGS__                                                                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate))); \
  }

template <int n>
__device__ void wgmma_bf16(float (&d)[n / 2], uint64_t a, uint64_t b, bool accumulate);
template <int n>
__device__ void wgmma_f16(float (&d)[n / 2], uint64_t a, uint64_t b, bool accumulate);
// d [64, n] (+)= a [64, 16] · b [16, n]: a in registers, as those of mma_m16n8k16 in every warp, b by
// wgmma_descriptor_kn. `a` may change only after wgmma_wait.
template <int n>
__device__ void wgmma_bf16_kn(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate);
template <int n>
__device__ void wgmma_f16_kn(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate);

#define KOTOBA_WGMMA_WIDTHS(name, type)                                                                   \
  KOTOBA_WGMMA(name, type, 64, KOTOBA_T32, 32, 33, 34, KOTOBA_R32(0))                                     \
  KOTOBA_WGMMA(name, type, 96, KOTOBA_T48, 48, 49, 50, KOTOBA_R32(0), KOTOBA_R16(32))                     \
  KOTOBA_WGMMA(name, type, 128, KOTOBA_T64, 64, 65, 66, KOTOBA_R64(0))                                    \
  KOTOBA_WGMMA(name, type, 160, KOTOBA_T80, 80, 81, 82, KOTOBA_R64(0), KOTOBA_R16(64))                    \
  KOTOBA_WGMMA(name, type, 192, KOTOBA_T96, 96, 97, 98, KOTOBA_R64(0), KOTOBA_R32(64))                    \
  KOTOBA_WGMMA(name, type, 256, KOTOBA_T128, 128, 129, 130, KOTOBA_R64(0), KOTOBA_R64(64))                \
  KOTOBA_WGMMA_KN(name##_kn, type, 64, KOTOBA_T32, 32, 33, 34, 35, 36, 37, KOTOBA_R32(0))                 \
  KOTOBA_WGMMA_KN(name##_kn, type, 96, KOTOBA_T48, 48, 49, 50, 51, 52, 53, KOTOBA_R32(0), KOTOBA_R16(32)) \
  KOTOBA_WGMMA_KN(name##_kn, type, 128, KOTOBA_T64, 64, 65, 66, 67, 68, 69, KOTOBA_R64(0))

KOTOBA_WGMMA_WIDTHS(wgmma_bf16, "bf16")
KOTOBA_WGMMA_WIDTHS(wgmma_f16, "f16")

#undef KOTOBA_WGMMA_WIDTHS
#undef KOTOBA_WGMMA_KN
#undef KOTOBA_WGMMA
#undef KOTOBA_R64
#undef KOTOBA_R32
#undef KOTOBA_R16
#undef KOTOBA_R4
#undef KOTOBA_T128
#undef KOTOBA_T96
#undef KOTOBA_T80
#undef KOTOBA_T64
#undef KOTOBA_T48
#undef KOTOBA_T32
#undef KOTOBA_T90
#undef KOTOBA_T60
#undef KOTOBA_T30
#undef KOTOBA_T10

}  // namespace kotoba::cuda::ptx
#endif
