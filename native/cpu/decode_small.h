// SIMD decoders of the types with one scale for 16 to 128 weights. Formulas: quant_blocks.h.
#pragma once

#include "decode_simd.h"

#if defined(__AVX2__)

namespace kotoba::cpu::KOTOBA_ISA {

alignas(16) constexpr int8_t kMinus8[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

KOTOBA_INLINE void decode_simd(const BlockQ4_0& b, float* w) {
  const Weights16 weights = weights16(kMinus8, half_all(b.d));
  put_nibbles(w, w + 16, b.qs, weights, weights);
}

KOTOBA_INLINE void decode_simd(const BlockQ4_1& b, float* w) {
  const AffineWeights16 weights = affine_weights16(half_all(b.d), half_all(b.m));
  put_nibbles(w, w + 16, b.qs, weights, weights);
}

// nibble - 16 is the nibble with all higher bits set.
KOTOBA_INLINE void decode_simd(const BlockQ5_0& b, float* w) {
  const __m256i high = _mm256_andnot_si256(spread_bits(bits(b.qh)), _mm256_set1_epi8(-16));
  put32(w, _mm256_or_si256(nibbles(b.qs), high), half_all(b.d));
}

KOTOBA_INLINE void decode_simd(const BlockQ5_1& b, float* w) {
  const __m256i high = _mm256_and_si256(spread_bits(bits(b.qh)), _mm256_set1_epi8(16));
  put32_affine(w, _mm256_or_si256(nibbles(b.qs), high), half_all(b.d), half_all(b.m));
}

KOTOBA_INLINE void decode_simd(const BlockQ8_0& b, float* w) { put32(w, load32(b.qs), half_all(b.d)); }
KOTOBA_INLINE void decode_simd(const BlockQ8_1& b, float* w) { put32(w, load32(b.qs), half_all(b.d)); }

KOTOBA_INLINE void decode_simd(const BlockIQ4_NL& b, float* w) {
  const Weights16 weights = weights16(kIq4Values, half_all(b.d));
  put_nibbles(w, w + 16, b.qs, weights, weights);
}

KOTOBA_INLINE void decode_simd(const BlockMXFP4& b, float* w) {
  const Weights16 weights = weights16(kE2m1Doubled, v_set(half_e8m0_to_f32(b.e)));
  put_nibbles(w, w + 16, b.qs, weights, weights);
}

KOTOBA_INLINE void decode_simd(const BlockNVFP4& b, float* w) {
  const __m128i values = load16(kE2m1Doubled), low_nibbles = _mm_set1_epi8(15);
  for (int s = 0; s < 4; ++s) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.qs + 8 * s));
    const __m128i codes = _mm_and_si128(_mm_unpacklo_epi64(bytes, _mm_srli_epi16(bytes, 4)), low_nibbles);
    put16(w + 16 * s, _mm_shuffle_epi8(values, codes), v_set(half_ue4m3_to_f32(b.d[s])));
  }
}

KOTOBA_INLINE void decode_simd(const BlockQ1_0& b, float* w) {
  const VF d = half_all(b.d);
  for (int i = 0; i < 4; ++i) {
    uint32_t positive;
    memcpy(&positive, b.qs + 4 * i, sizeof positive);
    put32(w + 32 * i, _mm256_or_si256(spread_bits(~positive), _mm256_set1_epi8(1)), d);
  }
}

// Each byte is copied to the places of its four weights and masked there. That leaves q << 2i; folding the
// nibbles leaves q or 4q, and a list undoes the rest.
KOTOBA_INLINE void decode_simd(const BlockQ2_0& b, float* w) {
  const VF d = half_all(b.d);
  const __m256i byte_of = _mm256_setr_epi32(0, 0x01010101, 0x02020202, 0x03030303, 0x04040404, 0x05050505,
                                            0x06060606, 0x07070707);
  const __m256i bits_of = _mm256_set1_epi32(static_cast<int>(0xc0300c03)), low = _mm256_set1_epi8(15);
  const __m256i code_of = twice(_mm_setr_epi8(-1, 0, 1, 2, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0));
  for (int i = 0; i < 2; ++i) {
    const __m256i eight = twice(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.qs + 8 * i)));
    const __m256i alone = _mm256_and_si256(_mm256_shuffle_epi8(eight, byte_of), bits_of);
    const __m256i folded = _mm256_and_si256(_mm256_or_si256(alone, _mm256_srli_epi16(alone, 4)), low);
    put32(w + 32 * i, _mm256_shuffle_epi8(code_of, folded), d);
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA

#endif
