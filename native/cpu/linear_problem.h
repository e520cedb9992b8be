// What the paths of the FP32 matmul share: its arguments as bare numbers. For *_isa.cpp files only.
#pragma once

#include "decode.h"
#include "epilogue.h"
#include "thread_pool.h"

namespace kotoba::cpu::KOTOBA_ISA {

// out [m, n] = epilogue(x [m, k] · w [n, k]ᵀ)
struct LinearProblem {
  int64_t m, n, k;
  const float* x;
  int64_t x_stride;  // in floats
  const std::byte* w;
  int64_t w_stride;  // in bytes
  DType w_dtype;
  DecodeFn decode;
  RowEpilogue epilogue;

  // The stored weights of row `row` from column `col` on, a multiple of the block size.
  const std::byte* weights(int64_t row, int64_t col) const {
    return w + row * w_stride + dtype_bytes(w_dtype, col);
  }
};

// Few tokens: weights are streamed once and dotted with every token.
constexpr int64_t kFewTokens = 4;
void linear_few_tokens(const Context&, const LinearProblem&);

}  // namespace kotoba::cpu::KOTOBA_ISA
