// What the SIMD decoders are made of, for AVX2 and AVX-512: codes are whole numbers, one a byte, and become
// weights 16 or 32 at a time. d * code is exact (see quant_decode.h), so fused multiply-adds change no bit.
#pragma once

#include "../quant_decode.h"
#include "simd.h"

#if defined(__AVX2__)

namespace kotoba::cpu::KOTOBA_ISA {

KOTOBA_INLINE __m128i load16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
KOTOBA_INLINE __m256i load32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
KOTOBA_INLINE __m256i twice(__m128i a) { return _mm256_broadcastsi128_si256(a); }
KOTOBA_INLINE float half(Bits16 b) { return _cvtsh_ss(bits(b)); }
KOTOBA_INLINE VF half_all(Bits16 b) { return v_set(half(b)); }

// ---- 16 weights

#if defined(__AVX512F__)

KOTOBA_INLINE VF floats(__m128i codes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)); }
KOTOBA_INLINE void put16(float* w, __m128i codes, VF d) { v_store(w, v_mul(floats(codes), d)); }
KOTOBA_INLINE void put16(float* w, __m128i codes, VF d, VF m) { v_store(w, v_fma(floats(codes), d, m)); }

// Bytes that are all ones where the bit is set.
KOTOBA_INLINE __m256i spread_bits(uint32_t bits) { return _mm256_movm_epi8(bits); }

#else

KOTOBA_INLINE VF floats(__m128i codes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)); }
KOTOBA_INLINE __m128i upper(__m128i codes) { return _mm_unpackhi_epi64(codes, codes); }
KOTOBA_INLINE void put16(float* w, __m128i codes, VF d) {
  v_store(w, v_mul(floats(codes), d));
  v_store(w + 8, v_mul(floats(upper(codes)), d));
}
KOTOBA_INLINE void put16(float* w, __m128i codes, VF d, VF m) {
  v_store(w, v_fma(floats(codes), d, m));
  v_store(w + 8, v_fma(floats(upper(codes)), d, m));
}

KOTOBA_INLINE __m256i spread_bits(uint32_t bits) {
  const __m256i byte_of = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit_of = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), byte_of);
  return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit_of), bit_of);
}

#endif

// ---- 32 weights: one scale, a scale and an addend, or a scale for each 16

KOTOBA_INLINE void put32(float* w, __m256i codes, VF d) {
  put16(w, _mm256_castsi256_si128(codes), d);
  put16(w + 16, _mm256_extracti128_si256(codes, 1), d);
}
KOTOBA_INLINE void put32_affine(float* w, __m256i codes, VF d, VF m) {
  put16(w, _mm256_castsi256_si128(codes), d, m);
  put16(w + 16, _mm256_extracti128_si256(codes, 1), d, m);
}
KOTOBA_INLINE void put32(float* w, __m256i codes, VF d0, VF d1) {
  put16(w, _mm256_castsi256_si128(codes), d0);
  put16(w + 16, _mm256_extracti128_si256(codes, 1), d1);
}

// ---- codes from bits

// Bits shift … shift + width - 1 of every byte, moved down.
template <int shift, int width>
KOTOBA_INLINE __m256i field(__m256i bytes) {
  return _mm256_and_si256(_mm256_srli_epi16(bytes, shift), _mm256_set1_epi8((1 << width) - 1));
}
// Bit `shift` of every byte, moved to bit `to`.
template <int shift, int to>
KOTOBA_INLINE __m256i move_bit(__m256i bytes) {
  const __m256i moved = shift >= to ? _mm256_srli_epi16(bytes, shift >= to ? shift - to : 0)
                                    : _mm256_slli_epi16(bytes, shift >= to ? 0 : to - shift);
  return _mm256_and_si256(moved, _mm256_set1_epi8(1 << to));
}
// 16 bytes to 32 codes: their low, then their high nibbles.
KOTOBA_INLINE __m256i nibbles(const uint8_t* qs) {
  const __m128i bytes = load16(qs);
  return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes), _mm256_set1_epi8(15));
}

// ---- 4-bit codes through the list of the 16 weights they can be

#if defined(__AVX512F__)

using Weights16 = VF;
using AffineWeights16 = VF;
KOTOBA_INLINE Weights16 weights16(const int8_t* values, VF d) { return v_mul(floats(load16(values)), d); }
KOTOBA_INLINE AffineWeights16 affine_weights16(VF d, VF m) {
  return v_fma(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), d, m);
}
// The permutation looks at the low four bits only.
KOTOBA_INLINE void put_nibbles(float* w_low, float* w_high, const uint8_t* qs, VF low, VF high) {
  const __m512i codes = _mm512_cvtepu8_epi32(load16(qs));
  v_store(w_low, _mm512_permutexvar_ps(codes, low));
  v_store(w_high, _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 4), high));
}

#else

struct Weights16 {
  __m256i values;
  VF d;
};
struct AffineWeights16 {
  VF d, m;
};
KOTOBA_INLINE Weights16 weights16(const int8_t* values, VF d) { return {twice(load16(values)), d}; }
KOTOBA_INLINE AffineWeights16 affine_weights16(VF d, VF m) { return {d, m}; }
KOTOBA_INLINE void put_nibbles(float* w_low, float* w_high, const uint8_t* qs, Weights16 low,
                               Weights16 high) {
  const __m256i codes = _mm256_shuffle_epi8(low.values, nibbles(qs));
  put16(w_low, _mm256_castsi256_si128(codes), low.d);
  put16(w_high, _mm256_extracti128_si256(codes, 1), high.d);
}
KOTOBA_INLINE void put_nibbles(float* w_low, float* w_high, const uint8_t* qs, AffineWeights16 low,
                               AffineWeights16 high) {
  const __m256i codes = nibbles(qs);
  put16(w_low, _mm256_castsi256_si128(codes), low.d, low.m);
  put16(w_high, _mm256_extracti128_si256(codes, 1), high.d, high.m);
}

#endif

}  // namespace kotoba::cpu::KOTOBA_ISA

#endif
