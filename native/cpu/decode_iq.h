// SIMD decoders of the types with codebooks. Formulas: quant_blocks.h.
#pragma once

#include "decode_simd.h"

#if defined(__AVX2__)

namespace kotoba::cpu::KOTOBA_ISA {

// Codes negated where the bit is set.
KOTOBA_INLINE __m256i negate(__m256i codes, uint32_t signs) {
  const __m256i mask = spread_bits(signs);
  return _mm256_sub_epi8(_mm256_xor_si256(codes, mask), mask);
}

// even_signs() of four times 7 bits.
KOTOBA_INLINE uint32_t even_signs4(uint32_t packed) {
  const uint32_t seven =
      (packed & 127) | (packed << 1 & 127 << 8) | (packed << 2 & 127 << 16) | (packed << 3 & 127u << 24);
  uint32_t parity = seven ^ seven >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return seven | (parity & 0x01010101) << 7;
}

KOTOBA_INLINE __m256i rows8(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
  return _mm256_setr_epi64x(static_cast<int64_t>(a), static_cast<int64_t>(b), static_cast<int64_t>(c),
                            static_cast<int64_t>(d));
}

// Eight rows of four weights, given a row for a number.
template <typename Row>
KOTOBA_INLINE __m256i rows4(const Row& row) {
  return _mm256_setr_epi32(static_cast<int>(row(0)), static_cast<int>(row(1)), static_cast<int>(row(2)),
                           static_cast<int>(row(3)), static_cast<int>(row(4)), static_cast<int>(row(5)),
                           static_cast<int>(row(6)), static_cast<int>(row(7)));
}

// 32 weights, the scale of each 16 being d * (2s + 1) with s in the nibbles of `scales`.
KOTOBA_INLINE void put_odd_scaled(float* w, __m256i codes, float d, int scales) {
  put32(w, codes, v_set(d * (2 * (scales & 15) + 1)), v_set(d * (2 * (scales >> 4) + 1)));
}

KOTOBA_INLINE void decode_simd(const BlockIQ2_XXS& b, float* w) {
  const float d = half(b.d) * 0.125f;
  for (int g = 0; g < 8; ++g) {
    const uint8_t* index = b.groups[g].index;
    const uint32_t rest = bits(b.groups[g].rest);
    const uint64_t* grid = kIq2xxsGrid.rows;
    const __m256i codes = rows8(grid[index[0]], grid[index[1]], grid[index[2]], grid[index[3]]);
    put32(w + 32 * g, negate(codes, even_signs4(rest)), v_set(d * static_cast<int>(2 * (rest >> 28) + 1)));
  }
}

KOTOBA_INLINE void decode_simd(const BlockIQ2_XS& b, float* w) {
  const float d = half(b.d) * 0.125f;
  for (int g = 0; g < 8; ++g) {
    const uint32_t q0 = bits(b.qs[4 * g]), q1 = bits(b.qs[4 * g + 1]);
    const uint32_t q2 = bits(b.qs[4 * g + 2]), q3 = bits(b.qs[4 * g + 3]);
    const uint64_t* grid = kIq2xsGrid.rows;
    const __m256i codes = rows8(grid[q0 & 511], grid[q1 & 511], grid[q2 & 511], grid[q3 & 511]);
    const uint32_t signs = even_signs4(q0 >> 9 | q1 >> 9 << 7 | q2 >> 9 << 14 | q3 >> 9 << 21);
    put_odd_scaled(w + 32 * g, negate(codes, signs), d, b.scales[g]);
  }
}

KOTOBA_INLINE void decode_simd(const BlockIQ2_S& b, float* w) {
  const float d = half(b.d) * 0.125f;
  for (int g = 0; g < 8; ++g) {
    const uint8_t* qs = b.qs + 4 * g;
    const int high = b.qh[g];
    const uint64_t* grid = kIq2sGrid.rows;
    const __m256i codes = rows8(grid[qs[0] | (high << 8 & 768)], grid[qs[1] | (high << 6 & 768)],
                                grid[qs[2] | (high << 4 & 768)], grid[qs[3] | (high << 2 & 768)]);
    uint32_t signs;
    memcpy(&signs, b.signs + 4 * g, sizeof signs);
    put_odd_scaled(w + 32 * g, negate(codes, signs), d, b.scales[g]);
  }
}

KOTOBA_INLINE void decode_simd(const BlockIQ3_XXS& b, float* w) {
  const float d = half(b.d) * 0.25f;
  for (int g = 0; g < 8; ++g) {
    const uint32_t rest = bits(b.rest[g]);
    const __m256i codes = rows4([&](int i) { return kIq3xxsGrid.rows[b.qs[8 * g + i]]; });
    put32(w + 32 * g, negate(codes, even_signs4(rest)), v_set(d * static_cast<int>(2 * (rest >> 28) + 1)));
  }
}

KOTOBA_INLINE void decode_simd(const BlockIQ3_S& b, float* w) {
  const float d = half(b.d);
  for (int g = 0; g < 8; ++g) {
    const int high = b.qh[g];
    const __m256i codes =
        rows4([&](int i) { return kIq3sGrid.rows[b.qs[8 * g + i] | (high << (8 - i) & 256)]; });
    uint32_t signs;
    memcpy(&signs, b.signs + 4 * g, sizeof signs);
    const int scale = b.scales[g / 2] >> g % 2 * 4 & 15;
    put32(w + 32 * g, negate(codes, signs), v_set(d * (2 * scale + 1)));
  }
}

// 8 * grid ± 1, to be scaled by d / 8.
KOTOBA_INLINE __m256i shifted(__m256i codes, __m256i minus_where_set) {
  const __m256i two = _mm256_add_epi8(codes, codes), four = _mm256_add_epi8(two, two);
  return _mm256_add_epi8(_mm256_add_epi8(four, four), _mm256_or_si256(minus_where_set, _mm256_set1_epi8(1)));
}

KOTOBA_INLINE void decode_simd(const BlockIQ1_S& b, float* w) {
  const float d = half(b.d) * 0.125f;
  for (int g = 0; g < 8; ++g) {
    const uint8_t* qs = b.qs + 4 * g;
    const int high = bits(b.qh[g]);
    const uint64_t* grid = kIq1Grid.rows;
    const __m256i codes = rows8(grid[qs[0] | (high << 8 & 0x700)], grid[qs[1] | (high << 5 & 0x700)],
                                grid[qs[2] | (high << 2 & 0x700)], grid[qs[3] | (high >> 1 & 0x700)]);
    const __m256i minus = _mm256_set1_epi8(static_cast<char>(-(high >> 15)));
    put32(w + 32 * g, shifted(codes, minus), v_set(d * (2 * (high >> 12 & 7) + 1)));
  }
}

KOTOBA_INLINE void decode_simd(const BlockIQ1_M& b, float* w) {
  const float d = iq1m_scale(b) * 0.125f;
  for (int g = 0; g < 8; ++g) {
    const uint8_t* qs = b.qs + 4 * g;
    const int high0 = b.qh[2 * g], high1 = b.qh[2 * g + 1], scales = bits(b.scales[g / 2]) >> g % 2 * 6;
    const uint64_t* grid = kIq1Grid.rows;
    const __m256i codes = rows8(grid[qs[0] | (high0 << 8 & 0x700)], grid[qs[1] | (high0 << 4 & 0x700)],
                                grid[qs[2] | (high1 << 8 & 0x700)], grid[qs[3] | (high1 << 4 & 0x700)]);
    const __m256i minus =
        _mm256_setr_epi64x(-(high0 >> 3 & 1), -(high0 >> 7), -(high1 >> 3 & 1), -(high1 >> 7));
    put32(w + 32 * g, shifted(codes, minus), v_set(d * (2 * (scales & 7) + 1)),
          v_set(d * (2 * (scales >> 3 & 7) + 1)));
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA

#endif
