// CUDA C++ as g++ sees it: keywords, built-in variables, and how kernels declare shared memory.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

#define threadIdx (::kotoba::sim::current_thread->index)
#define blockIdx (::kotoba::sim::current_block->index())
#define blockDim (::kotoba::sim::current_block->shape().block)
#define gridDim (::kotoba::sim::current_block->shape().grid)

// KOTOBA_SHARED(tile, float[16][17]); declares `tile` in the block's shared memory.
#define KOTOBA_SHARED(name, ...)                                                                             \
  static const char name##_site = 0;                                                                         \
  auto& name = *static_cast<std::type_identity_t<__VA_ARGS__>*>(::kotoba::sim::current_block->static_shared( \
      &name##_site, sizeof(std::type_identity_t<__VA_ARGS__>), alignof(std::type_identity_t<__VA_ARGS__>)))
// The bytes that the launch asked for, 1024-aligned.
#define KOTOBA_DYNAMIC_SHARED(name) std::byte* name = ::kotoba::sim::current_block->dynamic_shared()

inline void __syncthreads(const std::source_location& at = std::source_location::current()) {
  using namespace kotoba::sim;
  meet(current_block->barrier(), current_block->threads(), 0, nullptr, "__syncthreads", at, [](void**) {});
}

// Blocks run one after the other: what one wrote, the next one sees.
inline void __threadfence() {}

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
// Bytes of x (0…3) and y (4…7), chosen by the low three bits of the selector's four lowest nibbles.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = uint64_t{y} << 32 | x;
  unsigned chosen = 0;
  for (int i = 0; i < 4; ++i)
    chosen |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return chosen;
}
// The low half of high:low, shifted right by the low five bits of `bits`.
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned bits) {
  return static_cast<unsigned>((uint64_t{high} << 32 | low) >> (bits & 31));
}
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
