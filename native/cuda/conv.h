// The kernels of `conv2d` (conv2d.cu chooses one) and what they read.
#pragma once

#include <optional>

#include "matmul_tile.cuh"
#include "variant.h"

namespace kotoba::cuda {

struct ConvProblem {
  MatmulSize size;  // output pixels, outputs, kernel² * channels
  TensorView x;     // activations [batch * height * width, channels]
  TensorView w;     // [n, kernel² * channels] of any weight dtype
  Conv2d how;
  RowEpilogue epilogue;
  Precision precision;  // kFp32, kFp16 or kBf16
  int arch;             // as in Context
  int multiprocessors;

  int64_t taps() const { return how.kernel * how.kernel; }
  int64_t channels() const { return x.cols(); }
};

// What the tensor cores multiply: for every pixel, and for every output and tap, whole lines of 64 numbers of
// 16 bits. A line holds 64 channels; or, split, the high parts of 32 channels and then their low parts:
// x[p, c] = (high + low) * x_scale[p], w[n, ·] alike. Channels that do not exist are zeros.
struct ConvFactors {
  static constexpr int64_t kLine = 64;  // numbers of 16 bits

  DType dtype;  // F16 or BF16
  bool split;   // then F16
  const uint16_t *x, *w;
  int64_t x_stride;  // numbers from pixel to pixel
  int64_t lines;     // to a pixel; a row of w has taps * lines
  const float *x_scale = nullptr,
              *w_scale = nullptr;  // [pixels], [n]; split only. NaN: something is not finite
  std::optional<Scratch> x_memory, w_memory;
};

// Made for one use, where x and w are not what is wanted already.
ConvFactors conv_factors(const Context&, const ConvProblem&);

// Implicit matmuls on mma.sync (conv_mma.cu); costs are in cycles of a multiprocessor.
std::span<const Variant<ConvProblem>> conv_mma_variants();

}  // namespace kotoba::cuda
