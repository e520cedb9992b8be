// Biases and norm weights are read number by number, so those of a GGUF block type are decoded first.
#pragma once

#include <optional>

#include "ops.h"
#include "weight.cuh"

namespace kotoba::cuda {

class PlainVector {
 public:
  // x: dense, of any weight dtype, or empty
  PlainVector(const Context& context, const TensorView& x) : vector_{x.data, x.dtype} {
    if (x.empty() || is_plain(x.dtype)) return;
    TensorView floats = x;
    floats.dtype = DType::F32;
    floats.row_stride = x.cols();
    scratch_.emplace(context.pool, dtype_bytes(DType::F32, x.elements()));
    floats.data = scratch_->as<std::byte>();
    decode(context, floats, x);
    vector_ = {floats.data, DType::F32};
  }

  const Vector& get() const { return vector_; }

 private:
  std::optional<Scratch> scratch_;
  Vector vector_;
};

}  // namespace kotoba::cuda
