// A typed, shaped window on memory that somebody else owns. Row-major; only the row pitch may be strided.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dtype.h"

namespace kotoba {

struct TensorView {
  static constexpr int kMaxRank = 5;

  std::byte* data = nullptr;  // no alignment is promised: safetensors data may be 2-aligned, FP8 1-aligned
  DType dtype = DType::F32;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape{};  // outermost first, as torch prints it
  int64_t row_stride = 0;  // elements from one row (last dimension) to the next; = cols() when dense

  int64_t cols() const { return rank == 0 ? 1 : shape[rank - 1]; }
  int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank; ++i) n *= shape[i];
    return n;
  }
  int64_t elements() const { return rows() * cols(); }
  bool empty() const { return data == nullptr; }
  bool dense() const { return row_stride == cols(); }

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
  // Row `r` of a plain (one element a block) dtype.
  template <typename T>
  T* row(int64_t r) const {
    return as<T>() + r * row_stride;
  }
  // Row `r` of any dtype. Rows of block types are whole blocks.
  std::byte* row_bytes(int64_t r) const { return data + dtype_bytes(dtype, row_stride) * r; }
};

}  // namespace kotoba
