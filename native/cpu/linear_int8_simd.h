// Integer side of the int8 kernels: VI, kLanes int32, beside simd.h's VF. For *_isa.cpp files only.
#pragma once

#include <cstddef>

#include "../float_formats.h"
#include "simd.h"

namespace kotoba::cpu::KOTOBA_ISA {

constexpr int kBlock = 32;              // columns that share a scale
constexpr int kSteps = kBlock / 4;      // lanes hold 4 columns
constexpr int kStepBytes = 4 * kLanes;  // one vector of codes

#if defined(__AVX512F__)

using VI = __m512i;
KOTOBA_INLINE VI i_load(const void* p) { return _mm512_loadu_si512(p); }
KOTOBA_INLINE void i_store(void* p, VI a) { _mm512_storeu_si512(p, a); }
KOTOBA_INLINE VI i_set(int32_t a) { return _mm512_set1_epi32(a); }
KOTOBA_INLINE VF i_to_float(VI a) { return _mm512_cvtepi32_ps(a); }
// Interleave 32- and 64-bit elements within each 128 bits.
KOTOBA_INLINE VI i_low32(VI a, VI b) { return _mm512_unpacklo_epi32(a, b); }
KOTOBA_INLINE VI i_high32(VI a, VI b) { return _mm512_unpackhi_epi32(a, b); }
KOTOBA_INLINE VI i_low64(VI a, VI b) { return _mm512_unpacklo_epi64(a, b); }
KOTOBA_INLINE VI i_high64(VI a, VI b) { return _mm512_unpackhi_epi64(a, b); }

KOTOBA_INLINE VI i_and(VI a, VI b) { return _mm512_and_si512(a, b); }
KOTOBA_INLINE VI i_or(VI a, VI b) { return _mm512_or_si512(a, b); }
KOTOBA_INLINE VI i_xor(VI a, VI b) { return _mm512_xor_si512(a, b); }
KOTOBA_INLINE VI i_add(VI a, VI b) { return _mm512_add_epi32(a, b); }
KOTOBA_INLINE VI i_sub(VI a, VI b) { return _mm512_sub_epi32(a, b); }
KOTOBA_INLINE VI i_right(VI a, int n) { return _mm512_srli_epi32(a, n); }  // without sign
KOTOBA_INLINE VI i_left(VI a, int n) { return _mm512_slli_epi32(a, n); }
KOTOBA_INLINE VI i_signed_right(VI a, int n) { return _mm512_srai_epi32(a, n); }
// table16[q] for every byte q, all below 16.
KOTOBA_INLINE VI i_look_up(const void* table16, VI q) {
  const __m128i table = _mm_loadu_si128(static_cast<const __m128i*>(table16));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), q);
}
// F16 in the low 16 bits of every lane to float.
KOTOBA_INLINE VF i_low_half_to_float(VI a) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)); }
// 16 bytes from each of four places.
KOTOBA_INLINE VI i_load_parts(const std::byte* const* rows, int64_t offset) {
  const auto part = [&](int i) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i] + offset));
  };
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(part(0)), part(4), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(part(8)), part(12), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// The larger of a and |b|, as bits: a NaN is larger than infinity, and that than all numbers.
KOTOBA_INLINE VI i_max_bits(VI a, VF b) { return _mm512_max_epi32(a, _mm512_castps_si512(v_abs(b))); }
KOTOBA_INLINE int32_t i_max_lane(VI a) { return _mm512_reduce_max_epi32(a); }

// 32 floats in [-127, 127] to int8, rounded to nearest even.
KOTOBA_INLINE void store_codes(int8_t* dst, const VF* v) {
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst) + i, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v[i])));
}

#elif defined(__AVX2__)

using VI = __m256i;
KOTOBA_INLINE VI i_load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
KOTOBA_INLINE void i_store(void* p, VI a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }
KOTOBA_INLINE VI i_set(int32_t a) { return _mm256_set1_epi32(a); }
KOTOBA_INLINE VF i_to_float(VI a) { return _mm256_cvtepi32_ps(a); }
KOTOBA_INLINE VI i_low32(VI a, VI b) { return _mm256_unpacklo_epi32(a, b); }
KOTOBA_INLINE VI i_high32(VI a, VI b) { return _mm256_unpackhi_epi32(a, b); }
KOTOBA_INLINE VI i_low64(VI a, VI b) { return _mm256_unpacklo_epi64(a, b); }
KOTOBA_INLINE VI i_high64(VI a, VI b) { return _mm256_unpackhi_epi64(a, b); }
KOTOBA_INLINE VI i_and(VI a, VI b) { return _mm256_and_si256(a, b); }
KOTOBA_INLINE VI i_or(VI a, VI b) { return _mm256_or_si256(a, b); }
KOTOBA_INLINE VI i_xor(VI a, VI b) { return _mm256_xor_si256(a, b); }
KOTOBA_INLINE VI i_add(VI a, VI b) { return _mm256_add_epi32(a, b); }
KOTOBA_INLINE VI i_sub(VI a, VI b) { return _mm256_sub_epi32(a, b); }
KOTOBA_INLINE VI i_right(VI a, int n) { return _mm256_srli_epi32(a, n); }
KOTOBA_INLINE VI i_left(VI a, int n) { return _mm256_slli_epi32(a, n); }
KOTOBA_INLINE VI i_signed_right(VI a, int n) { return _mm256_srai_epi32(a, n); }
KOTOBA_INLINE VI i_look_up(const void* table16, VI q) {
  const __m128i table = _mm_loadu_si128(static_cast<const __m128i*>(table16));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), q);
}
KOTOBA_INLINE VF i_low_half_to_float(VI a) {
  const VI low = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
  const VI packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
  return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}
KOTOBA_INLINE VI i_load_parts(const std::byte* const* rows, int64_t offset) {
  const auto part = [&](int i) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i] + offset));
  };
  return _mm256_inserti128_si256(_mm256_castsi128_si256(part(0)), part(4), 1);
}

KOTOBA_INLINE VI i_max_bits(VI a, VF b) { return _mm256_max_epi32(a, _mm256_castps_si256(v_abs(b))); }
KOTOBA_INLINE int32_t i_max_lane(VI a) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}

KOTOBA_INLINE void store_codes(int8_t* dst, const VF* v) {
  const VI low = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
  const VI high = _mm256_packs_epi32(_mm256_cvtps_epi32(v[2]), _mm256_cvtps_epi32(v[3]));
  // packs works within 128 bits: put the groups of four back in order.
  const VI order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  i_store(dst, _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order));
}

#else

typedef int32_t VI __attribute__((vector_size(16)));
KOTOBA_INLINE VI i_load(const void* p) {
  VI a;
  memcpy(&a, p, sizeof a);
  return a;
}
KOTOBA_INLINE void i_store(void* p, VI a) { memcpy(p, &a, sizeof a); }
KOTOBA_INLINE VI i_set(int32_t a) { return VI{a, a, a, a}; }
KOTOBA_INLINE VF i_to_float(VI a) { return __builtin_convertvector(a, VF); }
KOTOBA_INLINE VI i_low32(VI a, VI b) { return VI{a[0], b[0], a[1], b[1]}; }
KOTOBA_INLINE VI i_high32(VI a, VI b) { return VI{a[2], b[2], a[3], b[3]}; }
KOTOBA_INLINE VI i_low64(VI a, VI b) { return VI{a[0], a[1], b[0], b[1]}; }
KOTOBA_INLINE VI i_high64(VI a, VI b) { return VI{a[2], a[3], b[2], b[3]}; }
KOTOBA_INLINE VI i_and(VI a, VI b) { return a & b; }
KOTOBA_INLINE VI i_or(VI a, VI b) { return a | b; }
KOTOBA_INLINE VI i_xor(VI a, VI b) { return a ^ b; }
KOTOBA_INLINE VI i_add(VI a, VI b) { return a + b; }
KOTOBA_INLINE VI i_sub(VI a, VI b) { return a - b; }
KOTOBA_INLINE VI i_right(VI a, int n) {
  typedef uint32_t Unsigned __attribute__((vector_size(16)));
  return (VI)((Unsigned)a >> n);
}
KOTOBA_INLINE VI i_left(VI a, int n) { return a << n; }
KOTOBA_INLINE VI i_signed_right(VI a, int n) { return a >> n; }
KOTOBA_INLINE VI i_look_up(const void* table16, VI q) {
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  Bytes table;
  memcpy(&table, table16, sizeof table);
  return (VI)__builtin_shuffle(table, (Bytes)q);
}
KOTOBA_INLINE VF i_low_half_to_float(VI a) {
  VF f;
  for (int i = 0; i < kLanes; ++i) f[i] = f16_to_f32(static_cast<uint16_t>(a[i]));
  return f;
}
KOTOBA_INLINE VI i_load_parts(const std::byte* const* rows, int64_t offset) {
  return i_load(rows[0] + offset);
}

KOTOBA_INLINE VI i_max_bits(VI a, VF b) {
  const VI bits = (VI)v_abs(b);
  return a > bits ? a : bits;
}
KOTOBA_INLINE int32_t i_max_lane(VI a) {
  const int32_t x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3];
  return x > y ? x : y;
}

KOTOBA_INLINE void store_codes(int8_t* dst, const VF* v) {
  for (int i = 0; i < kBlock / kLanes; ++i) {
    const VI codes = __builtin_convertvector(v_round(v[i]), VI);
    for (int j = 0; j < kLanes; ++j) dst[i * kLanes + j] = static_cast<int8_t>(codes[j]);
  }
}

#endif

// The sum of 16 codes.
KOTOBA_INLINE int32_t sum_of_16(const int8_t* codes) {
#if defined(__AVX2__)
  const __m128i unsigned_codes =
      _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)), _mm_set1_epi8(-128));
  const __m128i sums = _mm_sad_epu8(unsigned_codes, _mm_setzero_si128());
  return _mm_cvtsi128_si32(sums) + _mm_extract_epi32(sums, 2) - 16 * 128;
#else
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += codes[i];
  return sum;
#endif
}

// Four activation codes in every lane.
KOTOBA_INLINE VI i_broadcast4(const int8_t* a) {
  int32_t four;
  memcpy(&four, a, sizeof four);
  return i_set(four);
}

}  // namespace kotoba::cpu::KOTOBA_ISA
