// Bits of the small float formats to float, exactly: F16, BF16, FP8 (E4M3 "fn", E5M2) and the block scales
// E8M0 and E4M3 without sign. For host and CUDA code. Every function is static: see kernels.h.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define KOTOBA_HD __host__ __device__
#else
#define KOTOBA_HD
#endif

namespace kotoba {

KOTOBA_HD static inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// A NaN becomes quiet, as in hardware.
KOTOBA_HD static inline float f16_to_f32(uint16_t half) {
  const uint32_t sign = uint32_t{half} << 16 & 0x80000000u;
  const uint32_t rest = half & 0x7fffu;
  uint32_t bits = (rest << 13) + (112u << 23);
  if (rest >= 0x7c00) bits = 0x7f800000u | rest << 13 | (rest > 0x7c00 ? 0x400000u : 0);
  if (rest < 0x400) {
    const float subnormal = static_cast<float>(rest) * 0x1p-24f;
    memcpy(&bits, &subnormal, sizeof bits);
  }
  return float_of_bits(sign | bits);
}

KOTOBA_HD static inline float bf16_to_f32(uint16_t bits) { return float_of_bits(uint32_t{bits} << 16); }

// E4M3 is the finite kind: no infinity, 0x7f and 0xff are NaN. Its bits are those of an F16 whose exponent is
// 8 too low, NaN apart.
KOTOBA_HD static inline float f8_e4m3_to_f32(uint8_t bits) {
  const uint32_t sign = uint32_t{bits} << 24 & 0x80000000u;
  if ((bits & 0x7f) == 0x7f) return float_of_bits(sign | 0x7ff00000u);
  return f16_to_f32(static_cast<uint16_t>((bits & 0x80) << 8 | (bits & 0x7f) << 7)) * 256;
}

KOTOBA_HD static inline float f8_e5m2_to_f32(uint8_t bits) {
  return f16_to_f32(static_cast<uint16_t>(bits << 8));
}

// 2^(bits - 128): half of the E8M0 value, for codes that are stored doubled.
KOTOBA_HD static inline float half_e8m0_to_f32(uint8_t bits) {
  return float_of_bits(bits < 2 ? 0x00200000u << bits : (uint32_t{bits} - 1) << 23);
}

// Half of the E4M3 value, for codes that are stored doubled. The sign is ignored; NVFP4's only NaN counts as
// 0.
KOTOBA_HD static inline float half_ue4m3_to_f32(uint8_t bits) {
  const float value = f16_to_f32(static_cast<uint16_t>((bits & 0x7f) << 7)) * 128;
  return bits == 0x7f ? 0 : value;
}

}  // namespace kotoba
