// CUDA C++ as g++ sees it: keywords, built-in variables and functions, and how kernels declare shared memory.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

namespace kotoba::sim {
// Launches have one dimension (../launch.h).
struct Index {
  unsigned x;
};
}  // namespace kotoba::sim
#define threadIdx (::kotoba::sim::Index{::kotoba::sim::current_thread->rank})
#define blockIdx (::kotoba::sim::Index{::kotoba::sim::current_block->index()})
#define blockDim (::kotoba::sim::Index{::kotoba::sim::current_block->shape().threads})
#define gridDim (::kotoba::sim::Index{::kotoba::sim::current_block->shape().blocks})

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// KOTOBA_SHARED(tile, float[16][17]); declares `tile` in the block's shared memory.
#define KOTOBA_SHARED(name, ...)                                 \
  static const char name##_site = 0;                             \
  auto& name = *static_cast<std::type_identity_t<__VA_ARGS__>*>( \
      ::kotoba::sim::current_block->static_shared(&name##_site, sizeof(std::type_identity_t<__VA_ARGS__>)))
// The bytes that the launch asked for, 1024-aligned.
#define KOTOBA_DYNAMIC_SHARED(name) std::byte* name = ::kotoba::sim::current_block->dynamic_shared()

inline void __syncthreads(std::source_location at = std::source_location::current()) {
  using namespace kotoba::sim;
  current_block->meet(current_block->everybody(), nullptr, "__syncthreads", at);
}

// Blocks run one after the other: what one wrote, the next one sees.
inline void __threadfence() {}
template <typename T>
T atomicAdd(T* at, T value) {
  return std::exchange(*at, *at + value);
}
template <typename T>
T atomicMin(T* at, T value) {
  return std::exchange(*at, std::min(*at, value));
}

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
