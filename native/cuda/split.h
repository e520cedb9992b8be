// FP32 matmul on tensor cores: every factor is the sum of two FP16 numbers, times a power of two of its row;
// three products of the four are summed (the fourth is below FP32's own rounding). Ootomo and Yokota 2022
// (arXiv:2203.03341).
#pragma once

#include "epilogue.cuh"
#include "matmul_tile.cuh"
#include "variant.h"

namespace kotoba::cuda {

// Rows of factors: x[r, k] = (high[r, k] + low[r, k]) * scale[r]. Activations have all of it. Rows start at
// multiples of 16 bytes, are filled with zeros up to a multiple of 8 numbers, and are NaN throughout (in
// `scale`) if a factor is not finite.
struct SplitRows {
  const uint16_t* high;
  const uint16_t* low;  // null: every factor is its high part
  int64_t stride;       // numbers
  const float* scale;   // [rows]; null: 1
};

// sum · a · b for powers of two whose product may be too large or too small for FP32 where the result is not.
__device__ __forceinline__ float times_powers(float sum, float a, float b) {
  const float both = a * b;
  const bool exact = both >= 0x1p-126f && both <= 0x1p127f;
  const float larger = a > b ? a : b, smaller = a > b ? b : a;
  return exact ? sum * both : sum * larger * smaller;
}

struct SplitProblem {
  MatmulSize size;  // k: a multiple of 8
  SplitRows x, w;
  RowEpilogue epilogue;
  int arch;  // as in Context
  int multiprocessors;
};

// Tiles by instruction (split_mma.cu, split_wgmma.cu); costs are estimated microseconds.
std::span<const Variant<SplitProblem>> split_mma_variants();
std::span<const Variant<SplitProblem>> split_wgmma_variants();

}  // namespace kotoba::cuda
