// Numbers from numbers: two floats rounded into one register of 16-bit ones (to the nearest, ties to even),
// and powers of two.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>

namespace kotoba::cuda::ptx {

// Built for CPUs with F16C, which rounds as the GPU does.
inline uint32_t pack_f16x2(float low, float high) {
  return uint32_t{_cvtss_sh(high, 0)} << 16 | _cvtss_sh(low, 0);
}

inline uint16_t bf16_bits(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return 0x7fff;  // the GPU's own NaN
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline uint32_t pack_bf16x2(float low, float high) {
  return uint32_t{bf16_bits(high)} << 16 | bf16_bits(low);
}

inline float f16_to_f32(uint16_t bits) { return _cvtsh_ss(bits); }

inline float exp2_approx(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0 : y;
}

template <typename T>
const T* opaque(const T* global) {
  return global;
}

}  // namespace kotoba::cuda::ptx
