// SIMD decoders of the super-blocks of 256: K types, IQ4_XS and the ternary types. Formulas: quant_blocks.h.
#pragma once

#include "decode_simd.h"

#if defined(__AVX2__)

namespace kotoba::cpu::KOTOBA_ISA {

// Sixteen small integers times d, as floats in memory, where broadcasting one is a plain load.
struct Scales16 {
  alignas(64) float values[16];
};

KOTOBA_INLINE VF at(const Scales16& scales, int s) { return v_set(scales.values[s]); }

KOTOBA_INLINE Scales16 scales16(__m128i integers, VF d) {
  Scales16 scales;
  put16(scales.values, integers, d);
  return scales;
}

// Q4_K and Q5_K: d * scale in 0…7, -dmin * min in 8…15. The same as k_scale() and k_min(), four bytes a step.
KOTOBA_INLINE Scales16 k_scales16(Bits16 d, Bits16 dmin, const uint8_t* packed) {
  uint32_t a, b, c;
  memcpy(&a, packed, 4);
  memcpy(&b, packed + 4, 4);
  memcpy(&c, packed + 8, 4);
  const uint32_t six = 0x3f3f3f3f, low = 0x0f0f0f0f, high = 0x30303030;
  const __m128i integers =
      _mm_setr_epi32(static_cast<int>(a & six), static_cast<int>((c & low) | (a >> 2 & high)),
                     static_cast<int>(b & six), static_cast<int>((c >> 4 & low) | (b >> 2 & high)));
  Scales16 scales;
#if defined(__AVX512F__)
  v_store(scales.values,
          v_mul(floats(integers), _mm512_mask_blend_ps(0xff00, half_all(d), v_set(-half(dmin)))));
#else
  v_store(scales.values, v_mul(floats(integers), half_all(d)));
  v_store(scales.values + 8, v_mul(floats(upper(integers)), v_set(-half(dmin))));
#endif
  return scales;
}

KOTOBA_INLINE void decode_simd(const BlockQ4_K& b, float* w) {
  const Scales16 scales = k_scales16(b.d, b.dmin, b.scales);
  for (int s = 0; s < 8; s += 2) {
    const AffineWeights16 low = affine_weights16(at(scales, s), at(scales, s + 8));
    const AffineWeights16 high = affine_weights16(at(scales, s + 1), at(scales, s + 9));
    float* at_s = w + 32 * s;
    put_nibbles(at_s, at_s + 32, b.qs + 16 * s, low, high);
    put_nibbles(at_s + 16, at_s + 48, b.qs + 16 * s + 16, low, high);
  }
}

template <int s>
KOTOBA_INLINE void decode_q5k_part(const BlockQ5_K& b, const Scales16& scales, float* w) {
  const __m256i low = field<s % 2 * 4, 4>(load32(b.qs + s / 2 * 32));
  const __m256i codes = _mm256_or_si256(low, move_bit<s, 4>(load32(b.qh)));
  put32_affine(w + 32 * s, codes, at(scales, s), at(scales, s + 8));
}

KOTOBA_INLINE void decode_simd(const BlockQ5_K& b, float* w) {
  const Scales16 scales = k_scales16(b.d, b.dmin, b.scales);
  decode_q5k_part<0>(b, scales, w);
  decode_q5k_part<1>(b, scales, w);
  decode_q5k_part<2>(b, scales, w);
  decode_q5k_part<3>(b, scales, w);
  decode_q5k_part<4>(b, scales, w);
  decode_q5k_part<5>(b, scales, w);
  decode_q5k_part<6>(b, scales, w);
  decode_q5k_part<7>(b, scales, w);
}

template <int quarter>
KOTOBA_INLINE void decode_q6k_part(__m256i low, __m256i high, const Scales16& scales, int s, float* w) {
  const __m256i codes =
      _mm256_or_si256(field<quarter / 2 * 4, 4>(low), _mm256_slli_epi16(field<quarter * 2, 2>(high), 4));
  put32(w + 16 * s, _mm256_sub_epi8(codes, _mm256_set1_epi8(32)), at(scales, s), at(scales, s + 1));
}

KOTOBA_INLINE void decode_simd(const BlockQ6_K& b, float* w) {
  const Scales16 scales = scales16(load16(b.scales), half_all(b.d));
  for (int h = 0; h < 2; ++h) {
    const __m256i low0 = load32(b.ql + 64 * h), low1 = load32(b.ql + 64 * h + 32),
                  high = load32(b.qh + 32 * h);
    decode_q6k_part<0>(low0, high, scales, 8 * h, w);
    decode_q6k_part<1>(low1, high, scales, 8 * h + 2, w);
    decode_q6k_part<2>(low0, high, scales, 8 * h + 4, w);
    decode_q6k_part<3>(low1, high, scales, 8 * h + 6, w);
  }
}

template <int p>
KOTOBA_INLINE void decode_q2k_part(__m256i qs, const Scales16& scale, const Scales16& min, int s, float* w) {
  const __m256i codes = field<2 * p, 2>(qs);
  put16(w + 16 * s, _mm256_castsi256_si128(codes), at(scale, s), at(min, s));
  put16(w + 16 * s + 16, _mm256_extracti128_si256(codes, 1), at(scale, s + 1), at(min, s + 1));
}

KOTOBA_INLINE void decode_simd(const BlockQ2_K& b, float* w) {
  const __m128i packed = load16(b.scales), low = _mm_set1_epi8(15);
  const Scales16 scale = scales16(_mm_and_si128(packed, low), half_all(b.d));
  const Scales16 min = scales16(_mm_and_si128(_mm_srli_epi16(packed, 4), low), v_set(-half(b.dmin)));
  for (int h = 0; h < 2; ++h) {
    const __m256i qs = load32(b.qs + 32 * h);
    decode_q2k_part<0>(qs, scale, min, 8 * h, w);
    decode_q2k_part<1>(qs, scale, min, 8 * h + 2, w);
    decode_q2k_part<2>(qs, scale, min, 8 * h + 4, w);
    decode_q2k_part<3>(qs, scale, min, 8 * h + 6, w);
  }
}

// The same as q3k_scale() - 32, sixteen at once.
KOTOBA_INLINE __m128i q3k_scales(const uint8_t* packed) {
  uint64_t low;
  uint32_t high;
  memcpy(&low, packed, sizeof low);
  memcpy(&high, packed + 8, sizeof high);
  const uint64_t nibble = 0x0f0f0f0f0f0f0f0f;
  const __m128i lows =
      _mm_set_epi64x(static_cast<int64_t>(low >> 4 & nibble), static_cast<int64_t>(low & nibble));
  const __m128i highs = _mm_srlv_epi32(_mm_set1_epi32(static_cast<int>(high)), _mm_setr_epi32(0, 2, 4, 6));
  const __m128i both = _mm_or_si128(lows, _mm_slli_epi16(_mm_and_si128(highs, _mm_set1_epi8(3)), 4));
  return _mm_sub_epi8(both, _mm_set1_epi8(32));
}

template <int p>
KOTOBA_INLINE void decode_q3k_part(__m256i qs, __m256i high, const Scales16& scales, int s, float* w) {
  const __m256i codes = _mm256_or_si256(field<2 * p, 2>(qs), move_bit<p, 2>(high));
  put32(w + 16 * s, _mm256_sub_epi8(codes, _mm256_set1_epi8(4)), at(scales, s), at(scales, s + 1));
}

KOTOBA_INLINE void decode_simd(const BlockQ3_K& b, float* w) {
  const Scales16 scales = scales16(q3k_scales(b.scales), half_all(b.d));
  __m256i high = load32(b.hmask);
  for (int h = 0; h < 2; ++h, high = _mm256_srli_epi16(high, 4)) {
    const __m256i qs = load32(b.qs + 32 * h);
    decode_q3k_part<0>(qs, high, scales, 8 * h, w);
    decode_q3k_part<1>(qs, high, scales, 8 * h + 2, w);
    decode_q3k_part<2>(qs, high, scales, 8 * h + 4, w);
    decode_q3k_part<3>(qs, high, scales, 8 * h + 6, w);
  }
}

KOTOBA_INLINE void decode_simd(const BlockQ8_K& b, float* w) {
  const VF d = v_set(float_of_bits(bits(b.d)));
  for (int i = 0; i < 256; i += 32) put32(w + i, load32(b.qs + i), d);
}

KOTOBA_INLINE void decode_simd(const BlockIQ4_XS& b, float* w) {
  const float d = half(b.d);
  for (int s = 0; s < 8; ++s) {
    const Weights16 weights = weights16(kIq4Values, v_set(d * iq4xs_scale(b, s)));
    put_nibbles(w + 32 * s, w + 32 * s + 16, b.qs + 16 * s, weights, weights);
  }
}

KOTOBA_INLINE void decode_simd(const BlockTQ2_0& b, float* w) {
  const VF d = half_all(b.d);
  const __m256i one = _mm256_set1_epi8(1);
  for (int h = 0; h < 2; ++h, w += 128) {
    const __m256i qs = load32(b.qs + 32 * h);
    put32(w, _mm256_sub_epi8(field<0, 2>(qs), one), d);
    put32(w + 32, _mm256_sub_epi8(field<2, 2>(qs), one), d);
    put32(w + 64, _mm256_sub_epi8(field<4, 2>(qs), one), d);
    put32(w + 96, _mm256_sub_epi8(field<6, 2>(qs), one), d);
  }
}

// trit(): 3q >> 8 is 1 from q = 86 and 2 from q = 171.
KOTOBA_INLINE __m256i trits_less_one(__m256i q) {
  const __m256i from1 = _mm256_set1_epi8(86), from2 = _mm256_set1_epi8(static_cast<char>(171));
  const __m256i reached1 = _mm256_cmpeq_epi8(_mm256_max_epu8(q, from1), q);  // -1 where true
  const __m256i reached2 = _mm256_cmpeq_epi8(_mm256_max_epu8(q, from2), q);
  return _mm256_sub_epi8(_mm256_set1_epi8(-1), _mm256_add_epi8(reached1, reached2));
}

KOTOBA_INLINE void decode_simd(const BlockTQ1_0& b, float* w) {
  const VF d = half_all(b.d);
  const auto triple = [](__m256i q) { return _mm256_add_epi8(q, _mm256_add_epi8(q, q)); };
  __m256i first = load32(b.qs), last = twice(load16(b.qs + 32));
  for (int n = 0; n < 5; ++n, first = triple(first), last = triple(last)) {
    put32(w + 32 * n, trits_less_one(first), d);
    put16(w + 160 + 16 * n, _mm256_castsi256_si128(trits_less_one(last)), d);
  }
  alignas(32) uint8_t powers[32] = {};
  for (int i = 0; i < 4; ++i) {
    powers[i] = b.qh[i];
    for (int n = 1; n < 4; ++n) powers[4 * n + i] = static_cast<uint8_t>(powers[4 * n - 4 + i] * 3);
  }
  put16(w + 240, _mm256_castsi256_si128(trits_less_one(load32(powers))), d);
}

}  // namespace kotoba::cpu::KOTOBA_ISA

#endif
