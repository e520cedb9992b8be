// Exact dot products of unsigned weight codes and signed activation codes. For *_isa.cpp files only.
//
// A WeightBlock holds the steps [kFirst, kFirst + kCount) of 32 columns of kLanes weight rows, a step being
// four consecutive columns to a lane, as codes of kBits bits.
#pragma once

#include "linear_int8_simd.h"

namespace kotoba::cpu::KOTOBA_ISA {

// How many times the tokens must pass for a block's codes to stay in registers.
#if defined(__AVX2__) && !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
template <int kBits>
constexpr int kPasses = kBits == 8 ? 2 : 1;
#else
template <int kBits>
constexpr int kPasses = 1;
#endif

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

KOTOBA_INLINE VI i_dot4(VI sum, VI codes, VI a) {
#if defined(__AVX512VNNI__)
  return _mm512_dpbusd_epi32(sum, codes, a);
#else
  return _mm256_dpbusd_avx_epi32(sum, codes, a);
#endif
}

template <int kBits, int kFirst, int kCount>
struct WeightBlock {
  VI w[kCount];

  KOTOBA_INLINE WeightBlock of(const uint8_t* codes) {
    WeightBlock block;
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) block.w[i] = i_load(codes + (kFirst + i) * kStepBytes);
    return block;
  }
  // start + the products of kNumber steps from kFrom on; `a` points at step 0.
  template <int kFrom, int kNumber>
  KOTOBA_INLINE VI dot(const WeightBlock& block, const int8_t* a, int32_t start) {
    VI sum = i_set(start);
#pragma GCC unroll 8
    for (int i = kFrom; i < kFrom + kNumber; ++i)
      sum = i_dot4(sum, block.w[i - kFirst], i_broadcast4(a + 4 * i));
    return sum;
  }
};

#elif defined(__AVX2__)

#if defined(__AVX512BW__)
KOTOBA_INLINE VI i_set16(int16_t a) { return _mm512_set1_epi16(a); }
KOTOBA_INLINE VI i_add16(VI a, VI b) { return _mm512_add_epi16(a, b); }
KOTOBA_INLINE VI i_pairs8(VI u, VI a) { return _mm512_maddubs_epi16(u, a); }
KOTOBA_INLINE VI i_pairs16(VI a, VI b) { return _mm512_madd_epi16(a, b); }
#else
KOTOBA_INLINE VI i_set16(int16_t a) { return _mm256_set1_epi16(a); }
KOTOBA_INLINE VI i_add16(VI a, VI b) { return _mm256_add_epi16(a, b); }
KOTOBA_INLINE VI i_pairs8(VI u, VI a) { return _mm256_maddubs_epi16(u, a); }
KOTOBA_INLINE VI i_pairs16(VI a, VI b) { return _mm256_madd_epi16(a, b); }
#endif

// Sums of products in 16 bits for as many steps as cannot overflow, then in 32. A pair of products is at most
// 2 * 127 * code: 3810 for codes of 4 bits, 7874 for 5 and 16002 for 6; a step adds one pair.
template <int kBits, int kFirst, int kCount>
struct WeightBlock {
  static constexpr int kSafe = kBits <= 4 ? 8 : kBits == 5 ? 4 : 2;
  static_assert(kSafe * 2 * 127 * ((1 << kBits) - 1) <= 32767);
  VI w[kCount];

  KOTOBA_INLINE WeightBlock of(const uint8_t* codes) {
    WeightBlock block;
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) block.w[i] = i_load(codes + (kFirst + i) * kStepBytes);
    return block;
  }
  template <int kFrom, int kNumber>
  KOTOBA_INLINE VI dot(const WeightBlock& block, const int8_t* a, int32_t start) {
    VI sum = i_set(start);
    constexpr int kGroup = kSafe < kNumber ? kSafe : kNumber;
#pragma GCC unroll 8
    for (int i = kFrom; i < kFrom + kNumber; i += kGroup) {
      VI part = i_pairs8(block.w[i - kFirst], i_broadcast4(a + 4 * i));
#pragma GCC unroll 8
      for (int j = i + 1; j < i + kGroup; ++j)
        part = i_add16(part, i_pairs8(block.w[j - kFirst], i_broadcast4(a + 4 * j)));
      sum = i_add(sum, i_pairs16(part, i_set16(1)));
    }
    return sum;
  }
};

// Codes of 8 bits as 16 * high + low, for their pairs would overflow at once.
template <int kFirst, int kCount>
struct WeightBlock<8, kFirst, kCount> {
  VI low[kCount], high[kCount];

  KOTOBA_INLINE WeightBlock of(const uint8_t* codes) {
    WeightBlock block;
    const VI nibble = i_set(0x0f0f0f0f);
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      const VI w = i_load(codes + (kFirst + i) * kStepBytes);
      block.low[i] = i_and(w, nibble);
      block.high[i] = i_and(i_right(w, 4), nibble);
    }
    return block;
  }
  template <int kFrom, int kNumber>
  KOTOBA_INLINE VI dot(const WeightBlock& block, const int8_t* a, int32_t start) {
    VI low = i_set(0), high = i_set(0);
#pragma GCC unroll 8
    for (int i = kFrom; i < kFrom + kNumber; ++i) {
      const VI four = i_broadcast4(a + 4 * i);
      low = i_add16(low, i_pairs8(block.low[i - kFirst], four));
      high = i_add16(high, i_pairs8(block.high[i - kFirst], four));
    }
    return i_add(i_add(i_set(start), i_pairs16(low, i_set16(1))), i_pairs16(high, i_set16(16)));
  }
};

#else

// Products in 16 bits (255 * 127 fits), sums of pairs in 32.
template <int kBits, int kFirst, int kCount>
struct WeightBlock {
  typedef int16_t Short8 __attribute__((vector_size(16)));
  Short8 w[kCount][2];  // two rows of four columns each

  KOTOBA_INLINE WeightBlock of(const uint8_t* codes) {
    WeightBlock block;
    for (int i = 0; i < kCount; ++i)
      for (int j = 0; j < 16; ++j) block.w[i][j / 8][j % 8] = codes[(kFirst + i) * kStepBytes + j];
    return block;
  }
  template <int kFrom, int kNumber>
  KOTOBA_INLINE VI dot(const WeightBlock& block, const int8_t* a, int32_t start) {
    VI sum[2] = {};
    for (int i = kFrom; i < kFrom + kNumber; ++i) {
      const int8_t* b = a + 4 * i;
      const Short8 four = {b[0], b[1], b[2], b[3], b[0], b[1], b[2], b[3]};
      for (int j = 0; j < 2; ++j) {
        const VI pairs = (VI)(block.w[i - kFirst][j] * four);
        sum[j] += (pairs << 16 >> 16) + (pairs >> 16);
      }
    }
    return VI{sum[0][0] + sum[0][1], sum[0][2] + sum[0][3], sum[1][0] + sum[1][1], sum[1][2] + sum[1][3]} +
           start;
  }
};

#endif

}  // namespace kotoba::cpu::KOTOBA_ISA
