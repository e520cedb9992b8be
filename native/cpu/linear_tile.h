// The register tile of the FP32 matmul: kRows weight rows x T vectors of tokens. Tokens lie in the lanes,
// each weight is broadcast, so decoded weights are used as they come, row by row. For *_isa.cpp files only.
#pragma once

#include "simd.h"

namespace kotoba::cpu::KOTOBA_ISA {

// Weights decoded at a time per row: a multiple of every block size. The pitch keeps a tile's rows apart in
// L1.
constexpr int kDepth = 256;
constexpr int kWeightPitch = kDepth + 16;

// kTileRows[T] rows fill the registers: T * rows sums, T token vectors, one weight; 32 on AVX-512, else 16.
#if defined(__AVX512F__)
constexpr int kMaxVectors = 4;
constexpr int kTileRows[kMaxVectors + 1] = {0, 12, 12, 8, 6};
constexpr int kRowUnit = 24;  // whole tiles of every width
#else
constexpr int kMaxVectors = 3;
constexpr int kTileRows[kMaxVectors + 1] = {0, 12, 6, 4};
constexpr int kRowUnit = 12;
#endif

// Columns after which a tile's sums go back to memory: a panel's [depth, T * kLanes] stays below 32 KB of L1.
template <int T>
constexpr int64_t kTileDepth = T* kLanes > 32 ? kDepth / 2 : kDepth;

// acc [rows, T * kLanes] (+)= weights [rows, depth] x tokens [depth, T * kLanes]
// `weights` has rows of kWeightPitch; `first` starts the sums instead of going on with them.
template <int T>
static void multiply_tile(float* acc, const float* weights, const float* tokens, int64_t depth, bool first) {
  constexpr int kRows = kTileRows[T], kWidth = T * kLanes;
  VF sum[kRows][T];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sum[r][t] = first ? v_zero() : v_load(acc + r * kWidth + t * kLanes);
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; ++k) {
    VF x[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) x[t] = v_load(tokens + k * kWidth + t * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const VF w = v_set(weights[r * kWeightPitch + k]);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) sum[r][t] = v_fma(w, x[t], sum[r][t]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) v_store(acc + r * kWidth + t * kLanes, sum[r][t]);
}

}  // namespace kotoba::cpu::KOTOBA_ISA
