// Packing for the FP32 matmul: kLanes lines of floats side by side, turned round. For *_isa.cpp files only.
#pragma once

#include "linear_problem.h"
#include "linear_transpose.h"

namespace kotoba::cpu::KOTOBA_ISA {

// The line of a token that is absent, or of a pixel outside the image.
alignas(64) static constexpr float kZeroLine[kPackDepth] = {};

// dst[i * dst_stride + lane] = lines[lane][i] for i < count
static void pack_lines(const float* const (&lines)[kLanes], int64_t count, float* dst, int64_t dst_stride) {
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    VF block[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) block[i] = v_load(lines[i] + k);
    v_transpose(block);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) v_store(dst + (k + i) * dst_stride, block[i]);
  }
  for (; k < count; ++k)
    for (int i = 0; i < kLanes; ++i) dst[k * dst_stride + i] = lines[i][k];
}

}  // namespace kotoba::cpu::KOTOBA_ISA
