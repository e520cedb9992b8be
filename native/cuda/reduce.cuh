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

// The sum over all threads of the block, for all of them. Ends with the block's threads together.
template <int kThreads>
__device__ __forceinline__ float block_sum(float v) {
  KOTOBA_SHARED(parts, float[kThreads / 32]);
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < kThreads / 32; ++i) sum += parts[i];
  __syncthreads();  // parts may be used again
  return sum;
}

}  // namespace kotoba::cuda
