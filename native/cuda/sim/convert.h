// Numbers from numbers: two floats rounded into one register of 16-bit ones (to the nearest, ties to even),
// and powers of two.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "../../float_formats.h"

namespace kotoba::sim {

// Built for CPUs with F16C, which rounds as the GPU does.
inline uint16_t f16_bits(float x) { return _cvtss_sh(x, 0); }

inline uint16_t bf16_bits(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;  // the GPU's own NaN
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace kotoba::sim

namespace kotoba::cuda::ptx {

inline uint32_t pack_f16x2(float low, float high) {
  return uint32_t{sim::f16_bits(high)} << 16 | sim::f16_bits(low);
}
inline uint32_t pack_bf16x2(float low, float high) {
  return uint32_t{sim::bf16_bits(high)} << 16 | sim::bf16_bits(low);
}

template <typename T>
const T* opaque(const T* global) {
  return global;
}

inline float f16_to_f32(uint16_t bits) { return kotoba::f16_to_f32(bits); }

inline float exp2_approx(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0 : y;
}

}  // namespace kotoba::cuda::ptx
