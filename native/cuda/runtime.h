// The CUDA runtime: NVIDIA's, or the simulator's when g++ builds the same sources for tests.
#pragma once

#ifdef KOTOBA_CUDA_SIM
#include "sim/cudart/runtime.h"

// KOTOBA_UNROLL(unroll 4) before a loop: for nvcc only.
#define KOTOBA_UNROLL(...)
#else
#include <cuda_runtime.h>

#define KOTOBA_UNROLL(...) _Pragma(#__VA_ARGS__)

// KOTOBA_SHARED(tile, float[16][17]); declares `tile` in the block's shared memory.
#define KOTOBA_SHARED(name, ...) __shared__ std::type_identity_t<__VA_ARGS__> name
// The bytes that the launch asked for, 1024-aligned.
#define KOTOBA_DYNAMIC_SHARED(name)                             \
  extern __shared__ __align__(1024) unsigned char name##_raw[]; \
  std::byte* name = reinterpret_cast<std::byte*>(name##_raw)
#endif

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace kotoba::cuda {

#ifdef KOTOBA_CUDA_SIM
inline constexpr const char* kDeviceName = "cuda-sim";
inline constexpr bool kSimulated = true;
#else
inline constexpr const char* kDeviceName = "cuda";
inline constexpr bool kSimulated = false;
#endif

}  // namespace kotoba::cuda
