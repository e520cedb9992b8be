// The 16-bit matmul that linear and its quantised weights end in: out = epilogue(x [m, k] · w [n, k]ᵀ),
// products of F16 or BF16 summed in FP32.
#pragma once

#include "epilogue.cuh"
#include "matmul_tile.cuh"
#include "variant.h"

namespace kotoba::cuda {

// size.k is a multiple of 8; rows of x and w start at multiples of 16 bytes.
struct DenseProblem {
  MatmulSize size;
  DType dtype;  // of x and w: F16 or BF16
  const uint16_t *x, *w;
  int64_t x_stride, w_stride;  // numbers
  RowEpilogue epilogue;
  int arch;  // as in Context
  int multiprocessors;
};

// Tiles by instruction (dense_mma.cu, dense_wgmma.cu); costs are estimated microseconds.
std::span<const Variant<DenseProblem>> dense_mma_variants();
std::span<const Variant<DenseProblem>> dense_wgmma_variants();

void dense_matmul(const Context&, const DenseProblem&);

}  // namespace kotoba::cuda
