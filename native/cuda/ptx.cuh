// Hardware instructions that CUDA C++ has no name for; with ptx_sm90a.cuh the only inline PTX. Their models
// are in sim/convert.h, sim/mma.h, sim/async_copy.h, sim/bulk_copy.h and sim/wgmma.h, function by function.
#pragma once

#include "runtime.h"

#ifdef KOTOBA_CUDA_SIM
#include "sim/async_copy.h"
#include "sim/bulk_copy.h"
#include "sim/convert.h"
#include "sim/mma.h"
#include "sim/wgmma.h"
#else

namespace kotoba::cuda::ptx {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// The same pointer, whose parts the compiler no longer knows: what is read at small distances from it shares
// one computation of it, instead of having its own.
template <typename T>
__device__ __forceinline__ const T* opaque(const T* global) {
  asm("" : "+l"(global));
  __builtin_assume(__isGlobal(global));
  return global;
}

// Two floats in one register, `low` in its low half, each rounded to the nearest, ties to even.
__device__ __forceinline__ uint32_t pack_f16x2(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
__device__ __forceinline__ uint32_t pack_bf16x2(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// The value of an F16; every NaN becomes the GPU's own.
__device__ __forceinline__ float f16_to_f32(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// 2^x by the special function unit: off by 2 units in the last place at most; results below 2^-126 are 0.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- sm_80: tensor cores fed from registers

// d [16, 8] += a [16, 16] · b [16, 8]
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4],
                                                 const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit numbers; lane 8i + j points to row j of matrix i.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// 16 bytes to shared memory, zeros instead of *global unless `present`.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool present = true) {
  const int bytes = present ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most kPending groups of this thread are under way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(kPending) : "memory");
}

}  // namespace kotoba::cuda::ptx

#include "ptx_sm90a.cuh"
#endif

#ifdef KOTOBA_SM90A  // on the simulator too, which decodes these bits
namespace kotoba::cuda::ptx {

// The bits for a tile [k, columns] in panels of 64 columns that are `panel_bytes` apart, each [k, 64] with
// 128-byte swizzle. 16 numbers of k further on is 2048 bytes, 128 in the descriptor.
__device__ __forceinline__ uint64_t wgmma_descriptor_kn(const void* tile, int panel_bytes) {
  const uint64_t start = shared_address(tile), panel = static_cast<uint64_t>(panel_bytes);
  return (start & 0x3ffff) >> 4 | panel >> 4 << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
// The bits for a tile [rows, k] of 16-bit numbers, 64 of k to a row, with 128-byte swizzle. 16 numbers of k
// further on is 32 bytes, 2 in the descriptor.
__device__ __forceinline__ uint64_t wgmma_descriptor(const void* tile) {
  return wgmma_descriptor_kn(tile, 16);
}

}  // namespace kotoba::cuda::ptx
#endif
