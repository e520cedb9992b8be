// The routes of `linear` (linear.cu chooses one): what each needs to know, and where it is.
#pragma once

#include "matmul_tile.cuh"
#include "variant.h"

namespace kotoba::cuda {

struct LinearProblem {
  MatmulSize size;
  TensorView x;  // activations [m, k]
  TensorView w;  // [n, k] of any weight dtype
  RowEpilogue epilogue;
  Precision precision;  // kFp32, kFp16 or kBf16
  int arch;             // as in Context
  int multiprocessors;

  bool is_16_bit() const { return precision != Precision::kFp32; }
  // What the products' factors are rounded to, where they are.
  DType rounded() const { return precision == Precision::kFp16 ? DType::F16 : DType::BF16; }
};

// m ≤ 16: weights are read once, in their stored type (gemv.cu).
bool gemv_fits(const LinearProblem&);
void run_gemv(const Context&, const LinearProblem&);

// 16-bit precision and GGUF weights, decoded on their way to the tensor cores (quant_matmul.cu).
bool quant_matmul_fits(const LinearProblem&);
void run_quant_matmul(const Context&, const LinearProblem&);

// kFp32 on tensor cores: factors in two FP16 parts each (split.h).
bool split_fits(const LinearProblem&);
void run_split(const Context&, const LinearProblem&);

}  // namespace kotoba::cuda
