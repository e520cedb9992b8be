// Floats to int8 with one scale per 32 columns: code = round(127 x / max|x|). For *_isa.cpp files only.
#pragma once

#include <cfloat>

#include "linear_int8_simd.h"

namespace kotoba::cpu::KOTOBA_ISA {

// One token's 32 columns. A weight is scale * (code - offset) or scale * code + low, so that a dot product
// needs the sum of the activation codes besides: as the integer that it starts from, or times `low`. Weights
// whose scales cover 16 columns use one sum for each half, the others the first.
struct ActivationBlock {
  int8_t codes[kBlock];
  float scale;  // NaN if a column is not finite, which makes every product with this block NaN
  union {
    int32_t start[2];  // -offset * sum(codes)
    float sum[2];      // scale * sum(codes)
  };
};

// What a weight format wants in an ActivationBlock.
struct SumRule {
  int offset;
  bool halves;
  bool has_low;
};

// Returns the scale. A block whose maximum is below 2^-120 counts as zero, for 127 / maximum must be finite.
KOTOBA_INLINE float quantise_block(const float* x, int8_t* codes) {
  constexpr int kCount = kBlock / kLanes;
  VF v[kCount];
  VI largest = i_set(0);
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
    v[i] = v_load(x + i * kLanes);
    largest = i_max_bits(largest, v[i]);
  }
  const float maximum = float_of_bits(static_cast<uint32_t>(i_max_lane(largest)));
  if (!(maximum >= 0x1p-120f && maximum <= FLT_MAX)) {
    memset(codes, 0, kBlock);
    return maximum <= FLT_MAX ? 0 : __builtin_nanf("");
  }
  const VF inverse = v_set(127 / maximum);
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) v[i] = v_mul(v[i], inverse);
  store_codes(codes, v);
  return maximum * (1.0f / 127);
}

KOTOBA_INLINE void quantise(const float* x, ActivationBlock* block, SumRule rule) {
  block->scale = quantise_block(x, block->codes);
  int32_t sums[2] = {sum_of_16(block->codes), sum_of_16(block->codes + 16)};
  if (!rule.halves) sums[0] += sums[1];
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    if (rule.has_low)
      block->sum[h] = block->scale * static_cast<float>(sums[h]);
    else
      block->start[h] = -rule.offset * sums[h];
  }
}

// One row of `cols` columns into blocks that lie `stride` blocks apart; the last is padded with zeros.
static inline void quantise_row(const float* x, int64_t cols, ActivationBlock* blocks, int64_t stride,
                                SumRule rule) {
  for (; cols >= kBlock; cols -= kBlock, x += kBlock, blocks += stride) quantise(x, blocks, rule);
  if (cols == 0) return;
  float padded[kBlock] = {};
  memcpy(padded, x, cols * sizeof(float));
  quantise(padded, blocks, rule);
}

}  // namespace kotoba::cpu::KOTOBA_ISA
