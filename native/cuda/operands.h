// Factors as the tensor cores' kernels want them: 16-bit numbers in rows that start at multiples of 16 bytes
// and are filled with zeros up to a multiple of 8 numbers.
#pragma once

#include <optional>

#include "launch.h"
#include "ops.h"

namespace kotoba::cuda {

constexpr int64_t kRowAlignment = 8;  // numbers of 16 bits

inline int64_t padded(int64_t k) { return ceil_div(k, kRowAlignment) * kRowAlignment; }

// Whether x [rows, k] in 16 bits can be used as it is.
inline bool is_operand(const TensorView& x) {
  return x.cols() % kRowAlignment == 0 && x.row_stride % kRowAlignment == 0 &&
         reinterpret_cast<uintptr_t>(x.data) % (2 * kRowAlignment) == 0;
}

struct Operand {
  const uint16_t* data = nullptr;
  int64_t stride = 0;              // numbers
  std::optional<Scratch> scratch;  // what holds it, if it was made for one use
};

// x: activations [m, k], rounded to `dtype`, F16 or BF16.
Operand activation_operand(const Context&, const TensorView& x, DType dtype);

// out [rows, padded(k)] = w [rows, k], of any weight dtype, rounded to `dtype` and filled with zeros.
void expand(const Context&, uint16_t* out, const TensorView& w, DType dtype);

}  // namespace kotoba::cuda
