// The register tile of the FP32 matmul: kTileRows[T] weight rows x T vectors of tokens. Tokens lie in the
// lanes, each weight is broadcast, so weights are used as they come, row by row. For *_isa.cpp files only.
#pragma once

#include <cstddef>

#include "simd.h"

namespace kotoba::cpu::KOTOBA_ISA {

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

// Cache lines that the next step will read: `rows` pieces of `bytes`, `stride` apart. Tiles ask for them a
// few at a time; asked for in bursts they would delay the tile's own loads (10 % at 77 tokens on Zen 5).
struct Ahead {
  static constexpr int64_t kLine = 64;

  const std::byte* piece = nullptr;
  int64_t stride = 0;
  int64_t piece_lines = 0;
  int64_t left = 0;   // lines still to ask for
  int64_t batch = 0;  // lines a step
  int64_t line = 0;   // the next one of this piece

  __attribute__((always_inline)) void step() {
    for (int64_t i = batch < left ? batch : left; i > 0; --i, --left) {
      __builtin_prefetch(piece + line * kLine, 0, 2);
      if (++line < piece_lines) continue;
      line = 0;
      piece += stride;
    }
  }
};

// Columns between two steps of Ahead.
constexpr int64_t kAheadColumns = 32;

// sums [rows, T * kLanes] (+)= weights [rows, depth] · tokens [depth, T * kLanes]
// `pitch` is the distance of weight rows in floats; `first` sets the sums instead of adding to them. Adding
// up pieces of k separately also keeps the rounding error below that of one long sum.
template <int T>
static void multiply_tile(float* sums, const float* weights, int64_t pitch, const float* tokens,
                          int64_t depth, bool first, Ahead& ahead) {
  constexpr int kRows = kTileRows[T], kWidth = T * kLanes;
  VF sum[kRows][T];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sum[r][t] = v_zero();
  Ahead next = ahead;
  for (int64_t begin = 0; begin < depth; begin += kAheadColumns) {
    next.step();
    const int64_t end = begin + kAheadColumns < depth ? begin + kAheadColumns : depth;
#pragma GCC unroll 1
    for (int64_t k = begin; k < end; ++k) {
      VF x[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) x[t] = v_load(tokens + k * kWidth + t * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const VF w = v_broadcast(weights + r * pitch + k);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sum[r][t] = v_fma(w, x[t], sum[r][t]);
      }
    }
  }
  ahead = next;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      float* out = sums + r * kWidth + t * kLanes;
      v_store(out, first ? sum[r][t] : v_add(v_load(out), sum[r][t]));
    }
}

}  // namespace kotoba::cpu::KOTOBA_ISA
