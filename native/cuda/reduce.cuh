// Sums over a warp and over a block, in a fixed order: the same bits in every run.
#pragma once

#include "runtime.h"

namespace kotoba::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;

template <typename T>
__device__ __forceinline__ T warp_sum(T v) {
  for (int bits = 16; bits > 0; bits /= 2) v += __shfl_xor_sync(kWholeWarp, v, bits);
  return v;
}

__device__ __forceinline__ float warp_max(float v) {
  for (int bits = 16; bits > 0; bits /= 2) v = fmaxf(v, __shfl_xor_sync(kWholeWarp, v, bits));
  return v;
}

// Each v[i] becomes its sum over all threads of the block. Ends with the block's threads together.
template <int kThreads, int kCount>
__device__ __forceinline__ void block_sums(float (&v)[kCount]) {
  KOTOBA_SHARED(parts, float[kCount][kThreads / 32]);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kCount; ++i) {
    v[i] = warp_sum(v[i]);
    if (threadIdx.x % 32 == 0) parts[i][threadIdx.x / 32] = v[i];
  }
  __syncthreads();
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kCount; ++i) {
    v[i] = 0;
    for (int j = 0; j < kThreads / 32; ++j) v[i] += parts[i][j];
  }
  __syncthreads();  // parts may be used again
}

template <int kThreads>
__device__ __forceinline__ float block_sum(float v) {
  float sums[1] = {v};
  block_sums<kThreads>(sums);
  return sums[0];
}

}  // namespace kotoba::cuda
