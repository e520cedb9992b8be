// What the paths of the FP32 matmul share, and the convolution with them: its arguments as bare numbers. For
// *_isa.cpp files only.
#pragma once

#include "decode.h"
#include "epilogue.h"
#include "thread_pool.h"

namespace kotoba::cpu::KOTOBA_ISA {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// out [m, n] = epilogue(tokens [m, k] · w [n, k]ᵀ)
struct LinearProblem {
  int64_t m, n, k;
  const std::byte* w;
  int64_t w_stride;  // in bytes
  DType w_dtype;
  DecodeFn decode;
  RowEpilogue epilogue;
  int64_t depth;  // columns that are packed and decoded at a time, an even number, at most kPackDepth

  // The stored weights of row `row` from column `col` on, a multiple of the block size.
  const std::byte* weights(int64_t row, int64_t col) const {
    return w + row * w_stride + dtype_bytes(w_dtype, col);
  }
};

constexpr int64_t kPackDepth = 576;
constexpr int64_t kUsualDepth = 512;  // a multiple of every block size

static inline LinearProblem make_linear_problem(int64_t m, const TensorView& w) {
  return {.m = m,
          .n = w.shape[0],
          .k = w.shape[1],
          .w = w.data,
          .w_stride = dtype_bytes(w.dtype, w.row_stride),
          .w_dtype = w.dtype,
          .decode = decode_fn(w.dtype),
          .epilogue = {},
          .depth = kUsualDepth};
}

// Few tokens, rows of x: weights are streamed once and dotted with every token.
constexpr int64_t kFewTokens = 4;
void linear_few_tokens(const Context&, const LinearProblem&, const float* x, int64_t x_stride);

// Where many tokens come from: rows of a matrix, or the windows of a convolution.
class TokenSource {
 public:
  // Packs columns [col, col + count), at most kPackDepth, of `present` tokens from `token` on, one token a
  // lane: column i goes to dst + i * dst_stride. The lanes of absent tokens become zeros.
  virtual void pack(int64_t token, int64_t present, int64_t col, int64_t count, float* dst,
                    int64_t dst_stride) const = 0;

 protected:
  ~TokenSource() = default;
};

// Any number of tokens; fills in p.epilogue.
void linear_many_tokens(const Context&, LinearProblem p, const TokenSource& tokens, const TensorView& out,
                        const Epilogue&);

}  // namespace kotoba::cpu::KOTOBA_ISA
