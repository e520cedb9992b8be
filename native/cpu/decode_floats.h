// Decoders of the types that hold one number an element. FP8 goes through F16, whose hardware conversion
// knows subnormals (most FP8 weights are) at full speed; see float_formats.h.
#pragma once

#include "../float_formats.h"
#include "simd.h"

namespace kotoba::cpu::KOTOBA_ISA {

KOTOBA_INLINE uint16_t load_u16(const std::byte* src, int64_t i) {
  uint16_t bits;
  memcpy(&bits, src + i * sizeof bits, sizeof bits);
  return bits;
}

#if defined(__AVX512F__)

KOTOBA_INLINE __m256i load_halves(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
KOTOBA_INLINE __m256i load_bytes_signed(const std::byte* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
KOTOBA_INLINE VF f16_floats(__m256i halves) { return _mm512_cvtph_ps(halves); }
KOTOBA_INLINE VF bf16_floats(__m256i halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
KOTOBA_INLINE VF e5m2_floats(__m256i codes) { return f16_floats(_mm256_slli_epi16(codes, 8)); }
KOTOBA_INLINE VF e4m3_floats(__m256i codes) {
  const __m256i rest = _mm256_and_si256(codes, _mm256_set1_epi16(0x7f));
  const __m256i nan =
      _mm256_and_si256(_mm256_cmpeq_epi16(rest, _mm256_set1_epi16(0x7f)), _mm256_set1_epi16(0x7c00));
  const __m256i halves =
      _mm256_and_si256(_mm256_slli_epi16(codes, 7), _mm256_set1_epi16(static_cast<int16_t>(0xbfff)));
  return v_mul(f16_floats(_mm256_or_si256(halves, nan)), v_set(256));
}

#elif defined(__AVX2__)

KOTOBA_INLINE __m128i load_halves(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
KOTOBA_INLINE __m128i load_bytes_signed(const std::byte* p) {
  return _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
KOTOBA_INLINE VF f16_floats(__m128i halves) { return _mm256_cvtph_ps(halves); }
KOTOBA_INLINE VF bf16_floats(__m128i halves) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
KOTOBA_INLINE VF e5m2_floats(__m128i codes) { return f16_floats(_mm_slli_epi16(codes, 8)); }
KOTOBA_INLINE VF e4m3_floats(__m128i codes) {
  const __m128i rest = _mm_and_si128(codes, _mm_set1_epi16(0x7f));
  const __m128i nan = _mm_and_si128(_mm_cmpeq_epi16(rest, _mm_set1_epi16(0x7f)), _mm_set1_epi16(0x7c00));
  const __m128i halves =
      _mm_and_si128(_mm_slli_epi16(codes, 7), _mm_set1_epi16(static_cast<int16_t>(0xbfff)));
  return v_mul(f16_floats(_mm_or_si128(halves, nan)), v_set(256));
}

#endif

#if defined(__AVX2__)
#define KOTOBA_WHOLE_VECTORS(expression) \
  for (; i + kLanes <= count; i += kLanes) v_store(dst + i, expression)
#else
#define KOTOBA_WHOLE_VECTORS(expression) static_cast<void>(0)
#endif

static void decode_f16(const std::byte* src, float* dst, int64_t count) {
  int64_t i = 0;
  KOTOBA_WHOLE_VECTORS(f16_floats(load_halves(src + 2 * i)));
  for (; i < count; ++i) dst[i] = f16_to_f32(load_u16(src, i));
}

static void decode_bf16(const std::byte* src, float* dst, int64_t count) {
  int64_t i = 0;
  KOTOBA_WHOLE_VECTORS(bf16_floats(load_halves(src + 2 * i)));
  for (; i < count; ++i) dst[i] = bf16_to_f32(load_u16(src, i));
}

static void decode_f8_e4m3(const std::byte* src, float* dst, int64_t count) {
  int64_t i = 0;
  KOTOBA_WHOLE_VECTORS(e4m3_floats(load_bytes_signed(src + i)));
  for (; i < count; ++i) dst[i] = f8_e4m3_to_f32(static_cast<uint8_t>(src[i]));
}

static void decode_f8_e5m2(const std::byte* src, float* dst, int64_t count) {
  int64_t i = 0;
  KOTOBA_WHOLE_VECTORS(e5m2_floats(load_bytes_signed(src + i)));
  for (; i < count; ++i) dst[i] = f8_e5m2_to_f32(static_cast<uint8_t>(src[i]));
}

#undef KOTOBA_WHOLE_VECTORS

static void decode_f32(const std::byte* src, float* dst, int64_t count) {
  memcpy(dst, src, static_cast<size_t>(count) * sizeof(float));
}

static void decode_f64(const std::byte* src, float* dst, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    double value;
    memcpy(&value, src + i * sizeof value, sizeof value);
    dst[i] = static_cast<float>(value);
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA
